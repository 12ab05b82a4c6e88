"""What an energy is worth: does it know which answers are right, and does work help?

python -m experiments.judge --runs=runs/sudoku-cpu-seed0,runs/sudoku-cpu-net-seed0

Each held-out row gets R answers from other start noise. Shown are the share right of
one answer, of the answer that ranks first among R (least energy, or least doubt), and
of any of them: the last two differ by the verifier's error. AUROC is the chance that a
wrong answer ranks behind a right one, of the same x and of any. A row of work is the
rounds of the network that one answer takes, levels times rounds; a gradient counts
three. With --work each run gets as many answers as so many rounds pay for, ranking
included; of several runs each of the first's task and data is set beside it, paired
over seeds. Tasks with a metric of 0 and 1 alone. Writes a figure, and all numbers in a
JSON beside it.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags
from matplotlib.figure import Figure
from rich.table import Table

from experiments import cli, figures
from experiments.build import Experiment
from experiments.errors import UserError
from experiments.reporting.runs import LAW
from experiments.run import workdir
from experiments.run.files import write_json
from experiments.run.logs import say, track
from experiments.score import statistics, trained, verdict
from experiments.score.scorer import Scorer, row_metric
from experiments.score.tables import tables, with_bounds, with_error
from experiments.score.trained import Trained


class Asked(NamedTuple):
    """What is asked of a run, all of it possible."""

    directory: Path
    models: list[Trained]  # one a seed
    splits: tuple[str, ...]
    restarts: int
    others: list[Experiment]  # of other rounds


def asked(
    directory: Path,
    *,
    restarts: int | None,
    rounds: tuple[int, ...],
    checkpoint: str = "last",
    work: int = 0,
    splits: tuple[str, ...] = (),
) -> Asked:
    """Reads every seed of a run and looks at what is asked of it, before any work.

    Raises:
      UserError: not a run, a task without a metric of 0 and 1 or without such a split,
        work for less than an answer, or other rounds of an energy that has none.
    """
    model = trained.load(directory, checkpoint)
    task, seeds = model.experiment.task, model.experiment.seeds
    row_metric(task)
    for split in splits:
        if split not in task.splits:
            allowed = ", ".join(task.splits)
            raise UserError(f"--splits={split}: {directory} has {allowed}")
    if work:
        restarts = verdict.affordable(model.experiment, work)
    others = [
        trained.on_task(model, trained.changed(model.config, {"eval.rounds": n}))
        for n in rounds
    ]
    models = [trained.load(directory, checkpoint, seed) for seed in seeds]
    return Asked(directory, models, splits or tuple(task.splits), restarts, others)


def score_run(of: Asked, num_examples: int) -> dict:
    """Every seed of a run: {metric, step, seeds, config, splits}.

    Of each split `verdict.merged`, of the config `workdir.lasting`.
    """
    model, *_ = of.models
    found = _answers(of.models, of.directory, of.splits, of.restarts, num_examples)
    for other in of.others:
        _add_work(found, of.models, other, num_examples)
    return {
        "metric": row_metric(model.experiment.task),
        "step": model.step,
        "seeds": model.experiment.seeds,
        "config": workdir.lasting(model.config),
        "splits": verdict.merged(found),
    }


def _answers(
    models: list[Trained],
    directory: Path,
    splits: tuple[str, ...],
    restarts: int,
    num_examples: int,
) -> list[dict]:
    """{split: `verdict.judged` and its work} of each seed."""
    experiment = models[0].experiment
    scorer, metric = Scorer(experiment), row_metric(experiment.task)
    of_seeds = []
    for model in models:
        judged = {}
        for split in splits:
            what = f"{directory.name}, {split}, seed {model.seed}"
            runs = []
            for restart in track(range(restarts), what):
                runs.append(scorer.rows(model.params, split, num_examples, restart))
                verdict.refuse_shares(runs[-1].figures[metric], directory, metric)
            energy = np.stack([rows.energy for rows in runs], axis=1)
            right = np.stack([rows.figures[metric] for rows in runs], axis=1)
            judged[split] = verdict.judged(energy, right > 0)
            judged[split]["alike"] = verdict.are_alike([rows.answer for rows in runs])
            best = judged[split]["best"] if experiment.energy.answering else []
            judged[split]["work"] = [
                {
                    "evaluations": verdict.cost(experiment, entry["restarts"]),
                    "restarts": entry["restarts"],
                    "right": entry["first"],
                }
                for entry in best  # of an energy without rounds none are counted
            ]
        of_seeds.append(judged)
    return of_seeds


def _add_work(
    of_seeds: list[dict], models: list[Trained], experiment: Experiment, count: int
) -> None:
    """The share right of one answer with the rounds of another experiment."""
    scorer, metric = Scorer(experiment), row_metric(experiment.task)
    work = {"evaluations": verdict.evaluations(experiment), "restarts": 1}
    cases = list(zip(of_seeds, models, strict=True))
    for judged, model in track(cases, f"{work['evaluations']} rounds"):
        for split in judged:
            rows = scorer.rows(model.params, split, count, 0)
            right = statistics.summary(rows.figures[metric])
            judged[split]["work"].append(work | {"right": right})


def final_tables(runs: dict[str, dict]) -> list[Table]:
    """A line a run and split."""
    labels, cells = [], []
    for name, run in runs.items():
        for split, of_split in run["splits"].items():
            most, auroc = of_split["best"][-1], of_split["auroc"]
            labels.append(f"{name}, {split}")
            cells.append(
                {
                    "one": _cell(of_split["best"][0]["first"]),
                    "R": str(most["restarts"]),
                    "first of R": _cell(most["first"]),
                    "any": _cell(most["any"]),
                    "AUROC same x": _cell(auroc["same x"]),
                    "any x": _cell(auroc["any x"]),
                }
            )
    metric = " or ".join({run["metric"]: 0 for run in runs.values()})
    found = tables(f"{metric}, share right", labels, _columns(cells))
    return found + _beside_table(runs, metric)


def _beside_table(runs: dict[str, dict], metric: str) -> list[Table]:
    """Each other run of its task beside the first; nothing where no seeds pair."""
    first, labels, pairs = next(iter(runs)), [], []
    alike = {name: run for name, run in runs.items() if _are_alike(run, runs[first])}
    for split in runs[first]["splits"]:
        for name, pair in verdict.beside(alike, split).items():
            if pair is not None:
                labels.append(f"{name}, {split}")
                pairs.append(pair)
    if not pairs:
        return []
    corrected = statistics.holm([pair.p for pair in pairs])
    cells = [
        {
            "difference": with_bounds(pair.middle, pair.low, pair.high),
            "p": f"{pair.p:.2g}",
            "Holm": f"{holm:.2g}",
            "seeds": str(pair.count),
        }
        for pair, holm in zip(pairs, corrected, strict=True)
    ]
    return tables(f"{metric}, first of R, beside {first}", labels, _columns(cells))


def _are_alike(run: dict, first: dict) -> bool:
    """Whether both have one metric, task and data, as far as their files say it."""
    laws = [
        {k: v for k, v in of["config"].items() if k.partition(".")[0] in LAW}
        for of in (run, first)
        if "config" in of  # an earlier version's has none
    ]
    return run["metric"] == first["metric"] and all(law == laws[0] for law in laws)


def _columns(cells: list[dict[str, str]]) -> dict[str, list[str]]:
    return {name: [row[name] for row in cells] for name in cells[0]}


def figure(runs: dict[str, dict]) -> Figure:
    """A row a split: share right against answers, against work, against energy."""
    splits = list(dict.fromkeys(s for run in runs.values() for s in run["splits"]))
    drawn, axes = figures.grid(3 * len(splits), columns=3)
    for row, split in enumerate(splits):
        answers, work, energy = axes[3 * row : 3 * row + 3]
        for index, (name, run) in enumerate(runs.items()):
            if split not in run["splits"]:
                continue
            of_split, style = run["splits"][split], {"color": f"C{index % 10}"}
            counts = [entry["restarts"] for entry in of_split["best"]]
            for of, line in (("first", "o-"), ("any", ":")):
                shares = [entry[of]["mean"] for entry in of_split["best"]]
                label = name if of == "first" else None
                answers.plot(counts, shares, line, ms=3, label=label, **style)
            # One answer of more rounds; more answers, dashed, from the first entry on.
            one = [e for e in of_split["work"] if e["restarts"] == 1]
            more = [e for e in of_split["work"] if e["restarts"] > 1]
            for entries, line in ((one, "o-"), (one[:1] + more, "s--")):
                points = sorted((e["evaluations"], e["right"]["mean"]) for e in entries)
                if points:
                    work.plot(*zip(*points, strict=True), line, ms=3, **style)
            bins = of_split["calibration"]
            energy.plot(
                *zip(*((b["energy"], b["right"]) for b in bins), strict=True), "o-",
                ms=3, **style,
            )  # fmt: skip
        answers.set(title=split, xlabel="answers R (dots: any of them)", xscale="log")
        label = "rounds of the network (dashed: several answers)"
        work.set(title=split, xlabel=label, xscale="log")
        energy.set(title=split, xlabel="energy (or doubt) of an answer")
        of_splits = [run["splits"].get(split, {}) for run in runs.values()]
        bins = [b for of in of_splits for b in of.get("calibration", ())]
        if all(b["energy"] > 0 for b in bins):  # an energy may be negative
            energy.set_xscale("log")
        answers.set_ylabel("share right")
    handles = axes[0].get_legend_handles_labels()
    drawn.legend(*handles, loc="outside lower center", ncols=2, fontsize=8)
    return drawn


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_list("runs", None, "run directories", flag_values=values)
    flags.DEFINE_integer("restarts", 16, "answers to each x", 1, flag_values=values)
    flags.DEFINE_integer(
        "work", 0, "instead: rounds of the network to spend on each x", 0,
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_list("splits", "", "of the task; all of them", flag_values=values)
    flags.DEFINE_list(
        "rounds", "", "other rounds a level, each for one answer and compiled anew",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_integer(
        "num_examples", 256, "held-out rows of each split", 2, flag_values=values
    )
    flags.DEFINE_enum(
        "checkpoint", "last", trained.CHECKPOINTS, "of the runs", flag_values=values
    )
    flags.DEFINE_string("output", "runs/judge.png", "the figure", flag_values=values)
    flags.mark_flag_as_required("runs", flag_values=values)


def main(argv: list[str]) -> None:
    values = cli.parse(argv, define)
    paths, output = cli.run_directories(values.runs), Path(values.output)
    if output.suffix != ".png":
        raise UserError(f"--output={output}: must be a .png file, the .json is beside")
    rounds = cli.counts("rounds", values.rounds) if values.rounds else ()
    options = {name: values[name].value for name in ("restarts", "checkpoint", "work")}
    if values.work:
        options["restarts"] = None  # each run has as many as it pays for
    more = {"rounds": rounds, "splits": tuple(filter(None, values.splits))}
    of_runs = {name: asked(path, **options, **more) for name, path in paths.items()}
    output, options["num_examples"] = cli.output_path(output), values.num_examples
    runs = {}
    for name, of in of_runs.items():
        runs[name] = score_run(of, values.num_examples)
        # After each: an interrupt loses the run that is in work alone.
        write_json(output.with_suffix(".json"), options | {"runs": runs})
    figures.save(figure(runs), output)
    for table in final_tables(runs):
        say(table)
    if text := verdict.alike_text(runs):
        say(text)
    say(f"figure: {output}, all numbers: {output.with_suffix('.json')}")


def _cell(value: dict) -> str:
    return with_error(value["mean"], value["stderr"] or None)


if __name__ == "__main__":
    cli.run(main)
