"""What result.json says of a run: typed records, and which row of a run is the best."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.errors import UserError
from experiments.run.files import read_json
from experiments.score import statistics
from ired_jax.tasks.base import Task

DENOISING = ("low", "per element")
MOMENTS = ("stderr", "pred_mean", "pred_std", "target_mean", "target_std")


class Record(NamedTuple):
    """One figure of a run."""

    metric: str
    split: str | None  # None: of the whole model
    value: float
    interval: tuple[float, float] | None  # 95 %: over seeds (t), or rows of one seed
    unit: str
    better: str  # low, high
    version: int = 1  # of the metric's definition


BETTER = ("low", "high")


def kinds(task: Task) -> dict[str, tuple[str, str]]:
    """{logged name: (better, unit)} of all that a task can be scored by."""
    first = next(iter(task.splits))
    names = {
        f"{split}/{name}": (metric.better, metric.unit)
        for split in (*task.splits, "train")
        for name, metric in task.metrics.items()
    }
    names |= {name: (e.better, e.unit) for name, e in task.evaluators.items()}
    return names | {f"{split}/denoise_mse": DENOISING for split in (first, "train")}


def version(task: Task, name: str) -> int:
    """Of the definition of a logged name."""
    metric = task.metrics.get(name.rpartition("/")[2]) or task.evaluators.get(name)
    return metric.version if metric else 1


def described(task: Task) -> dict[str, dict]:
    """{logged name: {better, unit, version}} of all that a task can be scored by."""
    return {
        name: {"better": better, "unit": unit, "version": version(task, name)}
        for name, (better, unit) in kinds(task).items()
    }


def schema(task: Task) -> dict[str, tuple[str, str]]:
    """{name or pattern: (unit, meaning)} of what a scorer reports."""
    names = {
        re.escape(name): (unit, f"EMA parameters, {better} is better")
        for name, (better, unit) in kinds(task).items()
        if name != "train/denoise_mse"
    }
    parts = f"/({'|'.join(MOMENTS)})"
    names |= {f"{name}{parts}": ("", "of the above") for name in tuple(names)}
    steps = ("steps", "of descent a level")
    return names | {f"{re.escape(split)}/steps": steps for split in task.splits}


def is_better(task: Task, value: float, other: float) -> bool:
    """Whether `value` of the primary metric is better than `other`; NaN never is."""
    better, _ = kinds(task)[task.primary]
    return value < other if better == "low" else value > other


def best_row(
    task: Task, rows: Sequence[Mapping[str, float]]
) -> Mapping[str, float] | None:
    """The row of metrics.jsonl with the best primary metric, the first of equals."""
    best = None
    for row in rows:
        value = row.get(task.primary, np.nan)
        if np.isfinite(value) and (
            best is None or is_better(task, value, best[task.primary])
        ):
            best = row
    return best


def mean_over_seeds(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric; its standard error is that of the seeds, if several."""
    result = {name: float(np.mean([s[name] for s in scores])) for name in scores[0]}
    if len(scores) > 1:
        for name in [name for name in result if name.endswith("/stderr")]:
            values = [s[name.removesuffix("/stderr")] for s in scores]
            result[name] = float(np.std(values, ddof=1) / len(values) ** 0.5)
    return result


def records(task: Task, scores: Sequence[Mapping[str, float]]) -> list[dict]:
    """The `Record`s, as dicts, of the scores of each seed."""
    found = []
    for name, (better, unit) in kinds(task).items():
        if name not in scores[0]:
            continue
        values = [score[name] for score in scores]
        mean, half = float(np.mean(values)), scores[0].get(f"{name}/stderr")
        half = 1.96 * half if half is not None else None
        if len(values) > 1:
            half = statistics.interval(values)[1]
        interval = None if half is None else (mean - half, mean + half)
        split, _, metric = name.rpartition("/")
        kind = (unit, better, version(task, name))
        record = Record(metric, split or None, mean, interval, *kind)
        found.append(record._asdict())
    return found


def read_result(directory: Path) -> dict | None:
    """What a run left in its result.json; None: it has none.

    Raises:
      UserError: it is damaged, or is no result.
    """
    path = directory / "result.json"
    if not path.is_file():
        return None
    found = read_json(path)
    names = {"metrics", "primary", "records", "seeds", "step"}
    missing = names - set(found if isinstance(found, dict) else ())
    if missing:
        raise UserError(
            f"{directory}: its result.json holds no {' and no '.join(sorted(missing))}"
        )
    is_right = {
        "metrics": _are_numbers(found["metrics"]),
        "primary": isinstance(found["primary"], str),
        "records": _are_all(found["records"], list, _is_record),
        "seeds": _are_all(found["seeds"], dict, _are_numbers),
        "step": type(found["step"]) is int,
    }
    wrong = [name for name, right in is_right.items() if not right]
    if wrong:
        raise UserError(f"{path}: is damaged, no run writes such {' and '.join(wrong)}")
    return found


def _are_all(found: object, kind: type, is_right: Callable[[Any], bool]) -> bool:
    """Whether it is a list or dict whose items or values are right."""
    if not isinstance(found, kind):
        return False
    return all(map(is_right, found.values() if isinstance(found, dict) else found))


def _are_numbers(found: object) -> bool:
    return _are_all(found, dict, lambda value: type(value) in (int, float))


def _is_record(found: object) -> bool:
    """Whether it has the names and units of a `Record`."""
    if not isinstance(found, dict):
        return False
    split, texts = found.get("split"), ("metric", "unit", "better")
    is_split = split is None or isinstance(split, str)
    return is_split and all(isinstance(found.get(name), str) for name in texts)


def result(
    task: Task,
    scores: Mapping[str, Mapping[str, float]],
    rows: Sequence[Mapping[str, float]],
) -> dict:
    """What result.json says of the scores of each seed and the rows of metrics.jsonl.

    {primary, best: {step, <primary>}, records, metrics: {name: mean}, seeds}.
    """
    best = best_row(task, rows)
    return {
        "primary": task.primary,
        "best": best and {name: best[name] for name in ("step", task.primary)},
        "records": records(task, [*scores.values()]),
        "metrics": mean_over_seeds([*scores.values()]),
        "seeds": dict(scores),
    }
