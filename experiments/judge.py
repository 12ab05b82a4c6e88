"""What an energy is worth: does it know which answers are right, and does work help?

python -m experiments.judge --runs=runs/sudoku-cpu-seed0,runs/sudoku-cpu-net-seed0

Each held-out row gets R answers from other start noise. Shown are the share right of
one answer, of the answer that ranks first among R (least energy, or least doubt), and
of any of them: the last two differ by the verifier's error. AUROC is the chance that a
wrong answer ranks behind a right one, of the same x and of any. A row of work is the
rounds of the network that one answer takes, levels times rounds; a gradient counts
three. Tasks with a metric of 0 and 1 alone. Writes a figure, and all numbers in a JSON
beside it.
"""

from pathlib import Path

import numpy as np
from absl import flags
from matplotlib.figure import Figure
from rich.table import Table

from experiments import cli, figures
from experiments.build import Experiment
from experiments.errors import UserError
from experiments.run import workdir
from experiments.run.files import write_json
from experiments.run.logs import say, track
from experiments.score import statistics, trained
from experiments.score.scorer import Scorer, row_metric
from experiments.score.tables import tables
from experiments.score.trained import Trained

BINS = 10  # of the calibration, each of as many answers
GRADIENT = 3  # of the network, in units of its value


def score_run(
    directory: Path,
    *,
    restarts: int,
    rounds: tuple[int, ...],
    num_examples: int,
    checkpoint: str = "last",
) -> dict:
    """Every seed of a run: {metric, step, seeds, splits: {split: `_merged`}}.

    Raises:
      UserError: not a run, a task without a metric of 0 and 1, or other rounds of an
        energy that has none.
    """
    model = trained.load(directory, checkpoint)
    row_metric(model.experiment.task)  # a task without one is refused before the work
    seeds = model.experiment.seeds
    models = [trained.load(directory, checkpoint, seed) for seed in seeds]
    of_seeds = _answers(models, directory, restarts, num_examples)
    for count in rounds:
        config = trained.changed(model.config, {"eval.rounds": count})
        _add_work(of_seeds, models, trained.on_task(model, config), num_examples)
    return {
        "metric": row_metric(model.experiment.task),
        "step": model.step,
        "seeds": seeds,
        "splits": _merged(of_seeds),
    }


def _answers(
    models: list[Trained], directory: Path, restarts: int, num_examples: int
) -> list[dict]:
    """{split: `_judged` and its work} of each seed."""
    experiment = models[0].experiment
    scorer, metric = Scorer(experiment), row_metric(experiment.task)
    work, of_seeds = {"evaluations": evaluations(experiment), "restarts": 1}, []
    for model in models:
        judged = {}
        for split in experiment.task.splits:
            what = f"{directory.name}, {split}, seed {model.seed}"
            runs = [
                scorer.rows(model.params, split, num_examples, restart)
                for restart in track(range(restarts), what)
            ]
            energy = np.stack([rows.energy for rows in runs], axis=1)
            right = np.stack([rows.figures[metric] for rows in runs], axis=1)
            if not np.all((right == 0) | (right == 1)):
                raise UserError(
                    f"--runs={directory}: {metric} is not 0 or 1 of an answer"
                )
            judged[split] = _judged(energy, right > 0)
            one = judged[split]["best"][0]["first"]
            judged[split]["work"] = [work | {"right": one}]
        of_seeds.append(judged)
    return of_seeds


def _add_work(
    of_seeds: list[dict], models: list[Trained], experiment: Experiment, count: int
) -> None:
    """The share right of one answer with the rounds of another experiment."""
    scorer, metric = Scorer(experiment), row_metric(experiment.task)
    work = {"evaluations": evaluations(experiment), "restarts": 1}
    cases = list(zip(of_seeds, models, strict=True))
    for judged, model in track(cases, f"{work['evaluations']} rounds"):
        for split in judged:
            rows = scorer.rows(model.params, split, count, 0)
            right = statistics.summary(rows.figures[metric])
            judged[split]["work"].append(work | {"right": right})


def _merged(of_seeds: list):
    """Figures of several seeds as their mean, its error over seeds, and each of them.

    Of a single seed the figures as they are, their errors over rows.
    """
    first = of_seeds[0]
    if len(of_seeds) == 1:
        return first
    if isinstance(first, dict) and "mean" in first:
        means = [np.nan if v["mean"] is None else v["mean"] for v in of_seeds]
        return statistics.summary(np.array(means)) | {"each": means}
    if isinstance(first, dict):
        return {name: _merged([values[name] for values in of_seeds]) for name in first}
    if isinstance(first, list):
        return [_merged(list(values)) for values in zip(*of_seeds, strict=True)]
    return float(np.mean(of_seeds))


def evaluations(experiment: Experiment) -> int:
    """Rounds of the network that one answer takes, gradients counted as three.

    Raises:
      UserError: the energy has no network that is applied in rounds.
    """
    energy = experiment.energy.answering
    if energy is None:
        raise UserError("energy.name: has no rounds to count")
    how, search = experiment.inference, experiment.search
    levels = experiment.schedule.num_levels
    if search is not None:
        levels += search.moves * (search.level + 1)
    start = 1 if energy.denoise is not None else GRADIENT
    return levels * energy.rounds * (start + GRADIENT * how.num_steps)


def _judged(energy: np.ndarray, right: np.ndarray) -> dict:
    """{best, auroc, calibration} of energies and verdicts [N, R]."""
    counts = [2**k for k in range(right.shape[1].bit_length())]
    best = []
    for count in counts:
        errors = statistics.best_of(energy, 1.0 - right, count)
        best.append({"restarts": count, "first": statistics.summary(1 - errors.lowest)})
        best[-1]["any"] = statistics.summary(1 - errors.oracle)
    order = np.argsort(energy, axis=None, kind="stable")
    bins = [part for part in np.array_split(order, BINS) if len(part)]
    everything = statistics.auroc(energy.reshape(1, -1), right.reshape(1, -1))
    return {
        "best": best,
        "auroc": {
            "same x": statistics.summary(statistics.auroc(energy, right)),
            "any x": statistics.summary(everything),
        },
        "calibration": [
            {"energy": float(np.median(energy.flat[part])), "count": len(part)}
            | {"right": float(np.mean(right.flat[part]))}
            for part in bins
        ],
    }


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
                    f"first of {most['restarts']}": _cell(most["first"]),
                    "any": _cell(most["any"]),
                    "AUROC same x": _cell(auroc["same x"]),
                    "any x": _cell(auroc["any x"]),
                }
            )
    columns = {name: [of_run.get(name, "-") for of_run in cells] for name in cells[0]}
    metric = " or ".join({run["metric"]: 0 for run in runs.values()})
    return tables(f"{metric}, share right", labels, columns)


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
            points = sorted((e["evaluations"], e["right"]["mean"])
                            for e in of_split["work"])  # fmt: skip
            work.plot(*zip(*points, strict=True), "o-", ms=3, **style)
            bins = of_split["calibration"]
            energy.plot(
                *zip(*((b["energy"], b["right"]) for b in bins), strict=True), "o-",
                ms=3, **style,
            )  # fmt: skip
        answers.set(title=split, xlabel="answers R (dots: any of them)", xscale="log")
        work.set(title=split, xlabel="rounds of the network", xscale="log")
        energy.set(title=split, xlabel="energy (or doubt) of an answer", xscale="log")
        answers.set_ylabel("share right")
    handles = axes[0].get_legend_handles_labels()
    drawn.legend(*handles, loc="outside lower center", ncols=2, fontsize=8)
    return drawn


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_list("runs", None, "run directories", flag_values=values)
    flags.DEFINE_integer("restarts", 16, "answers to each x", 1, flag_values=values)
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
    for path in paths.values():
        workdir.read_config(path)  # a run that is not one is refused before the work
    output = cli.output_path(output)
    names = ("restarts", "num_examples", "checkpoint")
    options = {name: values[name].value for name in names}
    runs = {}
    for name, path in paths.items():
        runs[name] = score_run(path, rounds=rounds, **options)
        # After each: an interrupt loses the run that is in work alone.
        write_json(output.with_suffix(".json"), options | {"runs": runs})
    figures.save(figure(runs), output)
    for table in final_tables(runs):
        say(table)
    say(f"figure: {output}, all numbers: {output.with_suffix('.json')}")


def _cell(value: dict) -> str:
    if value["mean"] is None:
        return "-"
    error = f" +- {value['stderr']:.1g}" if value["stderr"] else ""
    return f"{value['mean']:.3g}{error}"


if __name__ == "__main__":
    cli.run(main)
