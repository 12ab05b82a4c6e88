"""Wrong answers of the task's own making: other digits, flipped links."""

from collections.abc import Callable

import jax

from ired_jax.diffusion import Schedule
from ired_jax.negatives.base import Strategy, assert_rows, keep, q_sample
from ired_jax.types import Array, Tree


def make_corrupted(
    schedule: Schedule, corrupt: Callable[[Array, Tree, Tree], Tree] | None
) -> Strategy:
    """The task's wrong answer to each x, noised with the positive's eps.

    Raises:
      ValueError: the task does not say what a wrong answer looks like.
    """
    if corrupt is None:
        raise ValueError(
            "negatives.strategy='corrupted': the task has no `corrupt`, it does not"
            " say what a wrong answer looks like"
        )

    def start(key, rows, progress):
        del progress
        assert_rows(rows, rows["y0"])
        keys = jax.random.split(key, rows["t"].shape[0])
        wrong = jax.vmap(corrupt)(keys, rows["x"], rows["y0"])
        return q_sample(schedule, wrong, rows["t"], rows["eps"])

    return Strategy(start, keep)
