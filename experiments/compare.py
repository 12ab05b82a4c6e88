"""Sets runs side by side: final figures, paired seeds, and learning curves.

python -m experiments.compare --runs=runs/none-cpu-seed0,runs/cd_full-cpu-seed0

Figures of another task, data, number of rows or version of a metric stand apart, each
definition in a row, table and panel of its own, and no ratio is taken between them.
"""

from pathlib import Path

from absl import flags
from rich.table import Table

from experiments import cli, figures
from experiments.errors import UserError
from experiments.reporting.runs import Definition, Run, apart, read
from experiments.run.logs import say
from experiments.score import statistics
from experiments.score.records import read_result
from experiments.score.tables import tables, with_bounds, with_error

LAST_SHARE = 0.1  # of a run, over which the training metrics are averaged
PICTURES = (".png", ".pdf", ".svg")
TRAINING = ("train/denoise_mse", "grad_norm_pos", "frac_sat", "margin", "filter/kept")


def final_tables(runs: dict[str, Run]) -> list[Table]:
    """Final answers from result.json; training metrics over the last tenth of a run.

    A row a metric and definition.
    """
    rows: list[tuple[str, dict[str, str]]] = []  # label, {run: cell}
    for name in _answers(runs):
        for mark, same in _alike(runs, name):
            of_runs = {key: run.result["metrics"] for key, run in same.items()}
            cells = {
                key: with_error(metrics[name], metrics.get(f"{name}/stderr"))
                for key, metrics in of_runs.items()
            }
            rows.append((name + mark, cells))
    there = _logged(runs)
    training = [name for name in TRAINING if name in there]
    for name in training + figures.other_metrics(there):
        for mark, same in _alike(runs, name, running=True):
            late = {key: _late_mean(run.rows, name) for key, run in same.items()}
            rows.append((name + mark, late))
    columns = {key: [cells.get(key, "-") for _, cells in rows] for key in runs}
    title = "final answers, and the mean of the last tenth of training"
    return tables(title, [label for label, _ in rows], columns)


def seeds_tables(runs: dict[str, Run]) -> list[Table]:
    """Means over seeds with 95 % intervals, and each run paired with the first.

    A table a metric and definition: figures of different ones are in no pair. Ratios
    are of geometric means, their interval and p-value those of a paired t-test on the
    logarithms; figures that may be 0 are subtracted instead. Raises UserError if the
    seeds differ.
    """
    views = []
    for metric in _answers(runs):
        found = _alike(runs, metric)
        caption = "Runs of another definition are not compared." * (len(found) > 1)
        for mark, same in found:
            by_seed = {
                key: {seed: of[metric] for seed, of in run.result["seeds"].items()}
                for key, run in same.items()
            }
            title = f"{metric}{mark}: over seeds, 95 %"
            columns = _over_seeds(by_seed)
            views += tables(title, [*by_seed], columns, caption=caption or None)
    return views


def _over_seeds(by_seed: dict[str, dict[str, float]]) -> dict[str, list[str]]:
    """The columns of {run: {seed: value}}: of one run alone, its mean."""
    means = [statistics.interval(values.values()) for values in by_seed.values()]
    columns = {"mean": [f"{mean:.3g} +- {half:.2g}" for mean, half in means]}
    (_, first), *others = by_seed.items()
    if not others:
        return columns
    is_ratio = all(v > 0 for values in by_seed.values() for v in values.values())
    kind = "ratio" if is_ratio else "difference"
    pairs = [paired(values, first, name, is_ratio) for name, values in others]
    return columns | {
        f"paired {kind} to the first": ["", *(pair for pair, _ in pairs)],
        "p": ["", *(p for _, p in pairs)],
    }


def paired(
    values: dict[str, float], first: dict[str, float], name: str, is_ratio: bool = True
) -> tuple[str, str]:
    """("ratio [low, high]", "p") of paired seeds, or their difference."""
    if set(values) != set(first):
        raise UserError(f"{name}: has seeds {sorted(values)}, not {sorted(first)}")
    test = statistics.paired(values, first, is_ratio=is_ratio)
    return with_bounds(*test[:3]), f"{test.p:.2g}"


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_list("runs", None, "run directories", flag_values=values)
    flags.DEFINE_string(
        "output", "runs/comparison.png", "the figure", flag_values=values
    )
    flags.mark_flag_as_required("runs", flag_values=values)


def main(argv: list[str]) -> None:
    values = cli.parse(argv, define)
    paths, output = cli.run_directories(values.runs), Path(values.output)
    if output.suffix not in PICTURES:
        allowed = ", ".join(PICTURES)
        raise UserError(f"--output={output}: must be a picture, one of {allowed}")
    runs = {name: finished(name, path) for name, path in paths.items()}
    views = final_tables(runs)
    if all(len(run.result["seeds"]) > 1 for run in runs.values()):
        views += seeds_tables(runs)
    output = cli.output_path(output)
    for view in views:
        say(view)
    figures.save(figures.learning_curves(*curves(runs)), output)
    say(f"learning curves: {output}")


def finished(name: str, path: Path) -> Run:
    """A run with its result, also where it was trained on since."""
    result = read_result(path)
    if result is None:
        raise UserError(f"{path}: is not a finished run, no result.json")
    return read(path)._replace(name=name, result=result)


def curves(runs: dict[str, Run]) -> tuple[dict[str, list[dict]], figures.Panels]:
    """What is drawn: each run's rows, and a panel a metric and definition.

    A metric that is not defined alike has the name of its definition in the rows too.
    """
    names: dict[str, dict[str, str]] = {key: {} for key in runs}
    drawn: dict[str, list[str]] = {}
    answers = figures.panels_of(_answers(runs))
    own = [(name, (name,)) for name in figures.other_metrics(_logged(runs))]
    for title, panel in (*answers, *figures.CURVES, *own):
        for name in panel:
            found = _alike(runs, name, running=True)
            for mark, same in found if len(found) > 1 else ():
                drawn.setdefault(title + mark, []).append(name + mark)
                for key in same:
                    names[key][name] = name + mark
    rows = {
        key: [{names[key].get(n, n): v for n, v in row.items()} for row in run.rows]
        for key, run in runs.items()
    }
    return rows, [*answers, *((title, tuple(panel)) for title, panel in drawn.items())]


def _alike(
    runs: dict[str, Run], name: str, *, running: bool = False
) -> list[tuple[str, dict[str, Run]]]:
    """(`, what tells it from others`, its runs) of each definition of a figure.

    `running`: as it is logged in training, of the runs that do so.
    """
    found: dict[Definition, list[Run]] = {}
    for run in runs.values():
        if not running or any(name in row for row in run.rows):
            definition = run.definition(name, running=running)
            found.setdefault(definition, []).append(run)
    marks = [f", {mark}" if mark else "" for mark in apart([*found.items()])]
    alike = [{run.name: run for run in same} for same in found.values()]
    return [*zip(marks, alike, strict=True)]


def _logged(runs: dict[str, Run]) -> set[str]:
    return {name for run in runs.values() for row in run.rows for name in row}


def _answers(runs: dict[str, Run]) -> list[str]:
    """The figures that all runs have, the first run's primary one first."""
    names, results = [], [run.result for run in runs.values()]
    for record in results[0]["records"]:
        name = "/".join(filter(None, (record["split"], record["metric"])))
        if all(name in result["metrics"] for result in results):
            names.append(name)
    return sorted(names, key=lambda name: name != results[0]["primary"])


def _late_mean(rows: list[dict[str, float]], metric: str) -> str:
    rows = [row for row in rows if metric in row]
    late = [r[metric] for r in rows if r["step"] > (1 - LAST_SHARE) * rows[-1]["step"]]
    return f"{sum(late) / len(late):.4g}" if late else "-"


if __name__ == "__main__":
    cli.run(main)
