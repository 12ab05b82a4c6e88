"""Does more compute help: answers against descent steps a level, and against restarts.

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
from rich.table import Table

from experiments import cli, figures
from experiments.errors import UserError
from experiments.run import workdir
from experiments.run.files import write_json
from experiments.run.logs import say, track
from experiments.score import statistics, trained
from experiments.score.scorer import Rows, Scorer, flat, row_metric
from experiments.score.tables import tables
from ired_jax.types import Params

REFERENCE = 5  # steps, the evaluation of record


def score_run(
    directory: Path,
    *,
    steps: tuple[int, ...],
    restarts: tuple[int, ...],
    num_examples: int,
) -> dict:
    """Every seed of a run: {metric, unit, num_steps, step, seeds, config, splits}.

    Of each split `_merged`, of the config `workdir.lasting`.

    The metric is the primary one, if it is one of rows, or the task's first.
    """
    model = trained.load(directory)
    how, seeds = model.experiment.inference, model.experiment.seeds
    metric = row_metric(model.experiment.task)
    params = [trained.load(directory, seed=seed).params for seed in seeds]
    scorers = {  # each number of steps is a program of its own
        count: Scorer(model.experiment, how._replace(num_steps=count))
        for count in sorted({*steps, REFERENCE, how.num_steps})
    }

    def score(split: str, params: Params) -> dict:
        rows = {
            count: scorer.rows(params, split, num_examples, restart=0)
            for count, scorer in track(scorers.items(), f"{directory.name}, {split}")
        }
        of_steps = [_step_figures(n, rows[n], rows[REFERENCE], metric) for n in rows]
        runs = [
            scorers[how.num_steps].rows(params, split, num_examples, restart)
            for restart in track(range(max(restarts)), f"{split}: restarts")
        ]
        return {"steps": of_steps, "restarts": _restart_figures(runs, restarts, metric)}

    return {
        "metric": metric,
        "unit": model.experiment.task.metrics[metric].unit,
        "num_steps": how.num_steps,
        "step": model.step,
        "seeds": seeds,
        "config": workdir.lasting(model.config),
        "splits": {
            split: _merged([score(split, of_seed) for of_seed in params])
            for split in model.experiment.task.splits
        },
    }


def _restart_figures(
    runs: list[Rows], restarts: tuple[int, ...], metric: str
) -> list[dict]:
    """{restarts, value} of the lowest-energy answer out of each number of them."""
    energy = np.stack([rows.energy for rows in runs], axis=1)
    value = np.stack([rows.figures[metric] for rows in runs], axis=1)
    best = {n: statistics.best_of(energy, value, n).lowest for n in sorted(restarts)}
    return [
        {"restarts": n, "value": statistics.summary(v) | {"rows": len(v)}}
        for n, v in best.items()
    ]


def _step_figures(count: int, rows: Rows, first: Rows, metric: str) -> dict:
    """The metric of the answers, and their distance from those of REFERENCE steps."""
    moved = flat(rows.answer) - flat(first.answer)
    of_rows = {"rows": len(moved)}
    return {
        "steps": count,
        "value": statistics.summary(rows.figures[metric]) | of_rows,
        "displacement": statistics.root_summary(np.mean(moved**2, axis=1)) | of_rows,
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
    """{mean, half, not_finite, rows, each}: 95 % over seeds, or over draws of one.

    Of the finite values; how many of how many `rows` are not, over all seeds.
    """
    means = [value["mean"] for value in values]
    if None in means:  # no finite answer at all
        mean, half = np.nan, np.nan
    elif len(values) > 1:
        mean, half = statistics.interval(means)
    else:
        mean, half = means[0], 1.96 * (values[0]["stderr"] or 0.0)
    rows = sum(value["rows"] for value in values)
    left_out = rows - sum(value["count"] for value in values)
    counts = {"not_finite": left_out, "rows": rows}
    return {"mean": float(mean), "half": float(half), **counts, "each": values}


def final_tables(runs: dict[str, dict]) -> list[Table]:
    """The metric at the reference and at most steps, and what restarts give."""
    labels, cells = [], []
    for name, run in runs.items():
        for split, of_split in run["splits"].items():
            by_steps = {entry["steps"]: entry for entry in of_split["steps"]}
            most, best = max(by_steps), of_split["restarts"][-1]
            few, last = by_steps[REFERENCE]["value"], by_steps[most]["value"]
            labels.append(f"{name}, {split}")
            cells.append(
                {
                    f"{REFERENCE} steps": _with_half(few),
                    f"{most} steps": _with_half(last),
                    f"{most} / {REFERENCE} steps": f"{last['mean'] / few['mean']:.3g}"
                    if few["mean"]
                    else "-",
                    f"moved in {most}": _mean(by_steps[most]["displacement"], ".2g"),
                    f"best of {best['restarts']}": _mean(best["value"], ".3g"),
                }
            )
    names = dict.fromkeys(name for of_run in cells for name in of_run)
    columns = {name: [of_run.get(name, "-") for of_run in cells] for name in names}
    return tables(f"{_label(runs)}, against compute", labels, columns)


def _label(runs: dict[str, dict]) -> str:
    return " or ".join({f"{run['metric']}, {run['unit']}": 0 for run in runs.values()})


def figure(runs: dict[str, dict]) -> Figure:
    """A row a split, a line a run: against steps, and against restarts."""
    splits = list(dict.fromkeys(s for run in runs.values() for s in run["splits"]))
    drawn, axes = figures.grid(2 * len(splits), columns=2)
    labels = {"steps": "descent steps a level", "restarts": "restarts R"}
    panels = [(split, kind) for split in splits for kind in labels]
    for axis, (split, kind) in zip(axes, panels, strict=True):
        lows, counts = [], set()
        for index, (name, run) in enumerate(runs.items()):
            entries = run["splits"].get(split, {kind: []})[kind]
            x = [entry[kind] for entry in entries]
            mean, half = (
                [entry["value"][part] for entry in entries] for part in ("mean", "half")
            )
            # There are ten colours: further runs repeat them in dashes.
            style = {"fmt": "o-" if index < 10 else "s--", "ms": 3, "lw": 1.2}
            axis.errorbar(x, mean, half, **style, capsize=2, label=name)
            counts |= set(x)
            lows += mean
        if min(counts, default=1) > 0:  # else, with 0 steps, a linear axis
            axis.set_xscale("log")
            axis.set_xticks(sorted(counts), [str(n) for n in sorted(counts)])
        axis.set(title=split, xlabel=labels[kind], ylabel=_label(runs))
        if min(lows, default=0) > 0:
            axis.set_yscale("log")
        axis.minorticks_off()
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
    counts = {
        name: cli.counts(name, values[name].value) for name in ("steps", "restarts")
    }
    for path in paths.values():
        workdir.read_config(path)  # a run that is not one is refused before the work
    output = cli.output_path(output)
    options = counts | {"num_examples": values.num_examples}
    runs = {name: score_run(path, **options) for name, path in paths.items()}
    write_json(output.with_suffix(".json"), options | {"runs": runs})
    figures.save(figure(runs), output)
    for table in final_tables(runs):
        say(table)
    say(f"figure: {output}, all numbers: {output.with_suffix('.json')}")


def _with_half(value: dict) -> str:
    return f"{value['mean']:.3g} +- {value['half']:.1g}" + _left_out(value)


def _mean(value: dict, form: str) -> str:
    return f"{value['mean']:{form}}" + _left_out(value)


def _left_out(value: dict) -> str:
    """` (1 of 4 not finite)`, which a mean leaves out; earlier versions did not say."""
    if value.get("not_finite"):
        return f" ({value['not_finite']} of {value['rows']} not finite)"
    return ""


if __name__ == "__main__":
    cli.run(main)
