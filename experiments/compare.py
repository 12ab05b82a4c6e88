"""Sets runs side by side: final figures, paired seeds, and learning curves.

python -m experiments.compare --runs=runs/none-cpu-seed0,runs/cd_full-cpu-seed0
"""

from pathlib import Path

from absl import flags
from rich.table import Table

from experiments import cli, figures
from experiments.errors import UserError
from experiments.run.logs import read_rows, say
from experiments.score import statistics
from experiments.score.records import read_result
from experiments.score.tables import tables, with_bounds, with_error

LAST_SHARE = 0.1  # of a run, over which the training metrics are averaged
PICTURES = (".png", ".pdf", ".svg")
TRAINING = ("train/denoise_mse", "grad_norm_pos", "frac_sat", "margin", "filter/kept")


def final_tables(runs: dict[str, Path], results: dict[str, dict]) -> list[Table]:
    """Final answers from result.json; training metrics over the last tenth of a run."""
    rows = [read_rows(path) for path in runs.values()]
    answers, there = _answers(results), {n for lines in rows for r in lines for n in r}
    training = [name for name in TRAINING if name in there]
    training += figures.other_metrics(there)
    columns = {}
    for (name, result), lines in zip(results.items(), rows, strict=True):
        metrics = result["metrics"]
        cells = [with_error(metrics[n], metrics.get(f"{n}/stderr")) for n in answers]
        columns[name] = cells + [_late_mean(lines, metric) for metric in training]
    title = "final answers, and the mean of the last tenth of training"
    return tables(title, [*answers, *training], columns)


def seeds_tables(results: dict[str, dict]) -> list[Table]:
    """Means over seeds with 95 % intervals, and each run paired with the first.

    Ratios are of geometric means, their interval and p-value those of a paired t-test
    on the logarithms; figures that may be 0 are subtracted instead. Raises UserError if
    the seeds differ.
    """
    views = []
    for metric in _answers(results):
        by_seed = {
            name: {seed: scores[metric] for seed, scores in result["seeds"].items()}
            for name, result in results.items()
        }
        means = [statistics.interval(values.values()) for values in by_seed.values()]
        (_, first), *others = by_seed.items()
        is_ratio = all(v > 0 for values in by_seed.values() for v in values.values())
        kind = "ratio" if is_ratio else "difference"
        pairs = [paired(values, first, name, is_ratio) for name, values in others]
        columns = {
            "mean": [f"{mean:.3g} +- {half:.2g}" for mean, half in means],
            f"paired {kind} to the first": ["", *(pair for pair, _ in pairs)],
            "p": ["", *(p for _, p in pairs)],
        }
        views += tables(f"{metric}: over seeds, 95 %", [*by_seed], columns)
    return views


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
    runs, output = cli.run_directories(values.runs), Path(values.output)
    if output.suffix not in PICTURES:
        allowed = ", ".join(PICTURES)
        raise UserError(f"--output={output}: must be a picture, one of {allowed}")
    results = {name: _result(path) for name, path in runs.items()}
    views = final_tables(runs, results)
    if all(len(result["seeds"]) > 1 for result in results.values()):
        views += seeds_tables(results)
    output = cli.output_path(output)
    for view in views:
        say(view)
    panels = figures.panels_of(_answers(results))
    rows = {name: read_rows(path) for name, path in runs.items()}
    figures.save(figures.learning_curves(rows, panels), output)
    say(f"learning curves: {output}")


def _answers(results: dict[str, dict]) -> list[str]:
    """The figures that all runs have, the first run's primary one first."""
    names = []
    for record in next(iter(results.values()))["records"]:
        name = "/".join(filter(None, (record["split"], record["metric"])))
        if all(name in result["metrics"] for result in results.values()):
            names.append(name)
    primary = next(iter(results.values()))["primary"]
    return sorted(names, key=lambda name: name != primary)


def _result(path: Path) -> dict:
    result = read_result(path)
    if result is None:
        raise UserError(f"{path}: is not a finished run, no result.json")
    return result


def _late_mean(rows: list[dict[str, float]], metric: str) -> str:
    rows = [row for row in rows if metric in row]
    late = [r[metric] for r in rows if r["step"] > (1 - LAST_SHARE) * rows[-1]["step"]]
    return f"{sum(late) / len(late):.4g}" if late else "-"


if __name__ == "__main__":
    cli.run(main)
