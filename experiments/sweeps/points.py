"""The points of a sweep: each resolved, none the same run as another."""

import fnmatch
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from configs.sweeps.base import Sweep
from experiments import configuration, fields
from experiments.build import build
from experiments.errors import UserError
from experiments.schema import Values
from experiments.sweeps.copies import BESIDE, is_beside

TRAIN = (sys.executable, "-m", "experiments.train")


class Point(NamedTuple):
    """One run directory to be."""

    name: str
    directory: Path
    values: dict[str, Any]  # every field
    primary: str | None  # the metric that it is judged by
    command: list[str]  # that trains or resumes it, but for its --workdir


def load(path: str) -> Sweep:
    """The sweep of a file configs/sweeps/<name>.py.

    Raises:
      UserError: no such file, or one that gives no sweep.
    """
    sweep = configuration.made_by(path, "get_sweep")
    is_sweep = isinstance(sweep, Sweep) and isinstance(sweep.points, Mapping)
    if not is_sweep or not sweep.points:
        raise UserError(
            f"--config={path}: get_sweep must return a Sweep, with points"
            " {name: {group.field: value}}"
        )
    for name, value, is_right, allowed in _looked_at(sweep):
        if not is_right:
            raise UserError(f"--config={path}: {name}={value!r}: must be {allowed}")
    return sweep


def fields_of(path: str) -> Values:
    """The fields that the base of a sweep sets: {group.field: value}."""
    return configuration.load(load(path).base)


def plan(
    sweep: Sweep, folder: Path, overrides: Mapping[str, str], flags: Sequence[str] = ()
) -> list[Point]:
    """Every point, built once and refused here if it cannot work.

    Args:
      sweep: of `load`.
      folder: in which each point has its run directory.
      overrides: fields of all points, as they are written on a command line.
      flags: of the command that trains a point, besides.

    Raises:
      UserError: a bad name, field or value, or two points that are the same run.
    """
    points = [
        _point(name, dict(point), sweep, folder, overrides, flags)
        for name, point in sweep.points.items()
    ]
    first: dict[str, str] = {}
    for point in points:
        other = first.setdefault(repr(sorted(point.values.items())), point.name)
        if other != point.name:
            raise UserError(
                f"{other} and {point.name}: are the same run, every field of theirs"
                " has the same value"
            )
    return points


def named(points: Sequence[Point], patterns: Sequence[str]) -> set[str]:
    """The names of the points that match one of the patterns, as a shell does.

    Raises:
      UserError: no pattern, or one that no point matches.
    """
    names, found = [point.name for point in points], set()
    for pattern in patterns or [""]:
        matching = fnmatch.filter(names, pattern)
        if not matching:
            raise UserError(f"--points={pattern}: must match one of {', '.join(names)}")
        found.update(matching)
    return found


def _looked_at(sweep: Sweep) -> Iterator[tuple[str, Any, bool, str]]:
    """(name, value, whether it is of its type, what is allowed) of what a sweep has."""
    for name, value in (*sweep.points.items(), ("shared", sweep.shared)):
        is_point = isinstance(value, Mapping) and all(isinstance(k, str) for k in value)
        yield name, value, is_point, "{group.field: value}"
    base, seeds, hours = sweep.base, sweep.seeds, sweep.hours
    yield "base", base, isinstance(base, str), "a config, configs/name.py:preset,.."
    is_count = isinstance(seeds, int) and seeds >= 1
    yield "seeds", seeds, is_count, "a whole number, at least 1"
    yield "hours", hours, isinstance(hours, int | float | None), "a number, or None"


def _point(name, point, sweep, folder, overrides, flags) -> Point:
    is_folder = isinstance(name, str) and re.fullmatch(r"\w[\w.=+,-]{0,199}", name)
    if not is_folder or is_beside(name):
        raise UserError(
            f"{name!r}: the name of a point must do for a folder, with at most 200"
            f" letters, and not end in {', '.join(BESIDE)}"
        )
    for word in ("base", "presets"):
        if not isinstance(point.get(word, ""), str):
            raise UserError(f"{name}: {word}={point[word]!r}: must be a text")
    config = point.pop("base", sweep.base)
    if presets := point.pop("presets", ""):
        config += ("," if ":" in config else ":") + presets
    seeds = {"train.num_seeds": sweep.seeds}
    given = {**seeds, **sweep.shared, **point}
    given = {field: fields.written(value) for field, value in given.items()}
    texts = given | dict(overrides)
    try:
        values = configuration.overridden(configuration.load(config), texts)
        experiment = build(values)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    return Point(
        name,
        folder / name,
        fields.flatten(values),
        experiment.task.primary,
        [
            *(*TRAIN, f"--config={config}"),
            *(f"--config.{field}={text}" for field, text in texts.items()),
            *flags,
        ],
    )
