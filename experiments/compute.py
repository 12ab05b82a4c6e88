"""Does more compute help: error against descent steps a level, and against restarts.

python -m experiments.compute --runs=runs/none-cpu-seed0,runs/cd_full-cpu-seed0

Restarts take the lowest-energy answer out of R, at the run's own eval.num_steps. How
far an answer still moves is the root mean square over elements of its difference from
that of 5 steps, from the same start noise. Intervals are 95 %: over seeds (t) of a run
with several, over draws of one with one.
Writes a figure, and all numbers in a JSON beside it.
"""

from pathlib import Path

import numpy as np
from absl import flags
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.table import Table

from experiments import cli, figures, statistics, trained, workdir
from experiments.errors import UserError
from experiments.logs import say, track, write_json
from experiments.scoring import Rows, Scorer
from ired_jax.types import Params

SPLITS = {"val": "in distribution", "ood": "harder"}
REFERENCE = 5  # steps, the evaluation of record


def score_run(
    directory: Path,
    *,
    steps: tuple[int, ...],
    restarts: tuple[int, ...],
    num_examples: int,
) -> dict:
    """Every seed of a run: {num_steps, step, val, ood}, the splits as `_merged`."""
    model = trained.load(directory)
    evaluation, seeds = model.experiment.evaluation, model.experiment.seeds
    params = [trained.load(directory, seed=seed).params for seed in seeds]
    scorers = {  # each number of steps is a program of its own
        count: Scorer(model.experiment, evaluation._replace(num_steps=count))
        for count in sorted({*steps, REFERENCE, evaluation.num_steps})
    }

    def score(split: str, params: Params) -> dict:
        title = f"{directory.name}, {split}"
        rows = {
            count: scorer.rows(params, split, num_examples)
            for count, scorer in track(scorers.items(), title)
        }
        of_steps = [_step_figures(n, rows[n], rows[REFERENCE]) for n in rows]
        scorer = scorers[evaluation.num_steps]
        of_restarts = _restart_figures(scorer, params, split, restarts, num_examples)
        return {"steps": of_steps, "restarts": of_restarts}

    result = {"num_steps": evaluation.num_steps, "step": model.step, "seeds": seeds}
    for split in SPLITS:
        result[split] = _merged([score(split, of_seed) for of_seed in params])
    return result


def _restart_figures(
    scorer: Scorer,
    params: Params,
    split: str,
    restarts: tuple[int, ...],
    num_examples: int,
) -> list[dict]:
    """{restarts, error} of the lowest-energy answer out of each number of them."""
    runs = [
        scorer.rows(params, split, num_examples, restart)
        for restart in track(range(max(restarts)), f"{split}: restarts")
    ]
    energy, error = (
        np.stack([getattr(rows, name) for rows in runs], axis=1)
        for name in ("energy", "squared_error")
    )
    best = {n: statistics.best_of(energy, error, n).lowest for n in sorted(restarts)}
    return [{"restarts": n, "error": statistics.summary(e)} for n, e in best.items()]


def _step_figures(count: int, rows: Rows, first: Rows) -> dict:
    """Error of the answers, and their distance from those of REFERENCE steps."""
    moved = rows.answer.astype(np.float64) - first.answer
    return {
        "steps": count,
        "error": statistics.summary(rows.squared_error),
        "displacement": statistics.root_summary(np.mean(moved**2, axis=1)),
    }


def _merged(of_seeds: list[dict]) -> dict:
    """{steps, restarts}: every figure as its mean over seeds and half-width."""
    merged = {}
    for kind in ("steps", "restarts"):
        merged[kind] = [
            {kind: same[0][kind]}
            | {n: _interval([e[n] for e in same]) for n in same[0] if n != kind}
            for same in zip(*(of_seed[kind] for of_seed in of_seeds), strict=True)
        ]
    return merged


def _interval(values: list[statistics.Summary]) -> dict:
    """{mean, half, each}: 95 % over seeds, or over the draws of a single seed."""
    means = [value["mean"] for value in values]
    if None in means:  # no finite answer at all
        mean, half = np.nan, np.nan
    elif len(values) > 1:
        mean, half = statistics.interval(means)
    else:
        mean, half = means[0], 1.96 * (values[0]["stderr"] or 0.0)
    return {"mean": float(mean), "half": float(half), "each": values}


def table(runs: dict[str, dict]) -> Table:
    """Error at the reference and at most steps, their ratio, and what restarts give."""
    view = Table(title="error against compute, mean squared error", box=SIMPLE_HEAD)
    most = max(entry["steps"] for entry in next(iter(runs.values()))["ood"]["steps"])
    many = next(iter(runs.values()))["ood"]["restarts"][-1]["restarts"]
    columns = ("run", "split", f"{REFERENCE} steps", f"{most} steps", "ratio")
    for column in (*columns, "moved", f"best of {many}"):
        justify = "left" if column in ("run", "split") else "right"
        view.add_column(column, justify=justify, overflow="fold")
    for name, run in runs.items():
        for split in SPLITS:
            by_steps = {entry["steps"]: entry for entry in run[split]["steps"]}
            few, last = by_steps[REFERENCE]["error"], by_steps[most]["error"]
            ratio = last["mean"] / few["mean"]
            moved = by_steps[most]["displacement"]["mean"]
            best = run[split]["restarts"][-1]["error"]
            cells = (_with_half(few), _with_half(last), f"{ratio:.3g}", f"{moved:.2g}")
            view.add_row(name, split, *cells, f"{best['mean']:.3g}")
    return view


def figure(runs: dict[str, dict]) -> Figure:
    """A row a split, a line a run: against steps, and against restarts."""
    drawn, axes = figures.grid(2 * len(SPLITS), columns=2)
    labels = {"steps": "descent steps a level", "restarts": "restarts R"}
    panels = [(split, kind) for split in SPLITS for kind in labels]
    for axis, (split, kind) in zip(axes, panels, strict=True):
        for index, (name, run) in enumerate(runs.items()):
            entries = run[split][kind]
            x = [entry[kind] for entry in entries]
            mean, half = (
                [entry["error"][part] for entry in entries] for part in ("mean", "half")
            )
            # There are ten colours: further runs repeat them in dashes.
            style = {"fmt": "o-" if index < 10 else "s--", "ms": 3, "lw": 1.2}
            axis.errorbar(x, mean, half, **style, capsize=2, label=name)
        axis.set(xscale="log", yscale="log", title=SPLITS[split], xlabel=labels[kind])
        axis.set_xticks(x, [str(value) for value in x])
        axis.minorticks_off()
        axis.set_ylabel("mean squared error")
    handles = axes[0].get_legend_handles_labels()
    drawn.legend(*handles, loc="outside lower center", ncols=2, fontsize=8)
    return drawn


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_list("runs", None, "run directories", flag_values=values)
    flags.DEFINE_list(
        "steps", "1,2,5,10,20,40,80", f"a level; {REFERENCE} is always among them",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_list("restarts", "1,2,4,8", "answers to each x", flag_values=values)
    flags.DEFINE_integer(
        "num_examples", 2000, "held-out draws of each split", 2, flag_values=values
    )
    flags.DEFINE_string("output", "runs/compute.png", "the figure", flag_values=values)
    flags.mark_flag_as_required("runs", flag_values=values)


def main(argv: list[str]) -> None:
    values = cli.parse(argv, define)
    paths = cli.run_directories(values.runs)
    output = Path(values.output)
    if output.suffix != ".png":
        raise UserError(f"--output={output}: must be a .png file, the .json is beside")
    counts = {name: _counts(name, values[name].value) for name in ("steps", "restarts")}
    for path in paths.values():
        workdir.read_config(path)  # a run that is not one is refused before the work
    output = cli.output_path(output)
    options = counts | {"num_examples": values.num_examples}
    runs = {name: score_run(path, **options) for name, path in paths.items()}
    write_json(output.with_suffix(".json"), options | {"runs": runs})
    figures.save(figure(runs), output)
    say(table(runs))
    say(f"figure: {output}, all numbers: {output.with_suffix('.json')}")


def _counts(name: str, texts: list[str]) -> tuple[int, ...]:
    """Whole numbers, at least 1."""
    if not texts or not all(text.isdecimal() and int(text) >= 1 for text in texts):
        raise UserError(
            f"--{name}={','.join(texts)}: must be whole numbers, at least 1"
        )
    return tuple(int(text) for text in texts)


def _with_half(value: dict) -> str:
    return f"{value['mean']:.3g} +- {value['half']:.1g}"


if __name__ == "__main__":
    cli.run(main)
