"""What a sweep is, and the words that its points are written in.

A sweep file has `get_sweep()`, which returns a `Sweep`. A point is {field: value}, as
in a config; two words of it are no fields: `base`, another config than the sweep's, and
`presets`, added to those of the base.
"""

import itertools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

Point = Mapping[str, Any]  # {group.field: value}
Points = Mapping[str, Point]  # by name, each a folder of its own
NOTHING: Point = MappingProxyType({})
# Inversion at n = 10 with both networks, an axis of most studies.
NETWORKS: Points = {"matrix": {}, "mlp": {"presets": "mlp"}}


class Sweep(NamedTuple):
    """Runs that belong together.

    Attributes:
      base: the config of every point, `configs/name.py:preset,..`.
      points: what differs.
      shared: fields of all points.
      seeds: of each point, the same for all, trained together in one program.
      hours: that it may take, on the machine that starts it; None: any number.
    """

    base: str
    points: Points
    shared: Point = NOTHING
    seeds: int = 5
    hours: float | None = 24.0


def listed(field: str, *values: Any) -> Points:
    """One point for each value of a field, named `leaf=value`.

    Raises:
      ValueError: a value twice.
    """
    leaf = field.rpartition(".")[2]
    return _distinct([(f"{leaf}={value}", {field: value}) for value in values])


def grid(*axes: Points) -> Points:
    """Every choice of one point from each axis, names joined by `-`.

    Raises:
      ValueError: two axes that set one field, or two points of one name.
    """
    found = []
    for choice in itertools.product(*(axis.items() for axis in axes)):
        merged: dict[str, Any] = {}
        for name, point in choice:
            if both := sorted(set(merged) & set(point)):
                raise ValueError(f"grid: {', '.join(both)} set by {name} and before it")
            merged |= point
        found.append(("-".join(name for name, _ in choice), merged))
    return _distinct(found)


def _distinct(points: list[tuple[str, Point]]) -> Points:
    names = [name for name, _ in points]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"points must have names of their own: {twice[0]} is there twice"
        )
    return dict(points)
