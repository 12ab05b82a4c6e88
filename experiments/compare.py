"""Sets runs side by side: final figures, paired seeds, and learning curves.

python -m experiments.compare --runs=runs/none-cpu-seed0,runs/cd_full-cpu-seed0
"""

import json
import math
from pathlib import Path

from absl import flags
from rich.table import Table
from scipy import stats

from experiments import cli, figures
from experiments.errors import UserError
from experiments.logs import read_rows, say
from experiments.statistics import interval

LAST_SHARE = 0.1  # of a run, over which the training metrics are averaged
TRAINING = ("train/denoise_mse", "grad_norm_pos", "frac_sat", "margin", "filter/kept")
ANSWERS = ("val/task_mse", "ood/task_mse")


def table(runs: dict[str, Path]) -> Table:
    """Final answers from result.json; training metrics over the last tenth of a run."""
    view = Table(title="final answers, and the mean of the last tenth of training")
    view.add_column("")
    for name in runs:
        view.add_column(name, justify="right", overflow="fold")
    results = {name: _result(path) for name, path in runs.items()}
    for metric in ANSWERS:
        cells = [_with_error(results[name]["metrics"], metric) for name in runs]
        view.add_row(metric, *cells)
    for metric in TRAINING:
        view.add_row(metric, *(_late_mean(path, metric) for path in runs.values()))
    return view


def seeds_table(runs: dict[str, Path]) -> Table:
    """Means over seeds with 95 % intervals, and paired ratios to the first run.

    The ratio is that of geometric means; its interval and p-value are those of a paired
    t-test on the logarithms. Raises UserError if the seeds differ.
    """
    view = Table(title="over seeds: mean and 95 % interval, paired ratio to the first")
    columns = ("metric", "run", "mean", "ratio to the first", "p")
    for column in columns:
        justify = "left" if column in columns[:2] else "right"
        view.add_column(column, justify=justify, overflow="fold")
    for metric in ANSWERS:
        first = None
        for name, path in runs.items():
            values = _by_seed(path, metric)
            mean, half = interval(values.values())
            cells = [metric, name, f"{mean:.3g} +- {half:.2g}"]
            if first is None:
                first = values
            else:
                cells += paired_ratio(values, first, name)
            view.add_row(*cells)
    return view


def paired_ratio(
    values: dict[str, float], first: dict[str, float], name: str
) -> tuple[str, str]:
    """("ratio [low, high]", "p") of paired seeds: geometric means, t on logarithms."""
    if set(values) != set(first):
        raise UserError(f"{name}: has seeds {sorted(values)}, not {sorted(first)}")
    log_ratio = {seed: math.log(values[seed] / first[seed]) for seed in first}
    mean, half = interval(log_ratio.values())
    p = stats.ttest_1samp(list(log_ratio.values()), 0.0).pvalue
    low, middle, high = (math.exp(mean + shift) for shift in (-half, 0, half))
    return f"{middle:.3g} [{low:.3g}, {high:.3g}]", f"{p:.2g}"


def _by_seed(path: Path, metric: str) -> dict[str, float]:
    return {seed: scores[metric] for seed, scores in _result(path)["seeds"].items()}


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_list("runs", None, "run directories", flag_values=values)
    flags.DEFINE_string(
        "output", "runs/comparison.png", "the figure", flag_values=values
    )
    flags.mark_flag_as_required("runs", flag_values=values)


def main(argv: list[str]) -> None:
    values = cli.parse(argv, define)
    runs = cli.run_directories(values.runs)
    output = cli.output_path(values.output)
    say(table(runs))
    if all(len(_result(path)["seeds"]) > 1 for path in runs.values()):
        say(seeds_table(runs))
    figure = figures.learning_curves({n: read_rows(path) for n, path in runs.items()})
    figures.save(figure, output)
    say(f"learning curves: {output}")


def _result(path: Path) -> dict:
    try:
        result = json.loads((path / "result.json").read_text())
    except OSError as error:
        raise UserError(f"{path}: is not a finished run, no result.json") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: its result.json is damaged") from error
    if not {"metrics", "seeds"} <= set(result):
        raise UserError(f"{path}: its result.json holds no metrics or no seeds")
    return result


def _with_error(metrics: dict[str, float], name: str) -> str:
    return f"{metrics[name]:.4g} +- {metrics[f'{name}/stderr']:.1g}"


def _late_mean(path: Path, metric: str) -> str:
    rows = [row for row in read_rows(path) if metric in row]
    late = [r[metric] for r in rows if r["step"] > (1 - LAST_SHARE) * rows[-1]["step"]]
    return f"{sum(late) / len(late):.4g}" if late else "-"


if __name__ == "__main__":
    cli.run(main)
