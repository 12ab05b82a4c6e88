"""What every task offers."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax

from ired_jax.types import Array


class Split(NamedTuple):
    """One distribution of examples."""

    draw: Callable[[Array], tuple[Array, Array]]  # key -> (x [Dx], y [D]), one example
    bounds: float  # half-width of the box that holds every answer


class Task(NamedTuple):
    """A task: conditions x, answers y, and what an answer is worth."""

    train: Split  # also validation: other keys, the same law
    ood: Split  # harder, out of distribution
    residual: Callable[[Array, Array], Array]  # (x [Dx], y [D]) -> (), 0 when right
    grid: tuple[int, int]  # rows and columns in which a person looks at an answer
    solvers: Mapping[str, Callable[[Array], Array]]  # classical x [Dx] -> y [D]

    @property
    def x_size(self) -> int:
        return self._sizes()[0]

    @property
    def y_size(self) -> int:
        return self._sizes()[1]

    def _sizes(self) -> tuple[int, int]:
        x, y = jax.eval_shape(self.train.draw, jax.random.key(0))
        return x.size, y.size
