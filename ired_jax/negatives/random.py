"""Random wrong answers."""

import jax

from ired_jax import boxes, trees
from ired_jax.diffusion import Schedule
from ired_jax.negatives.base import BoxFn, Strategy, assert_rows, box_of, keep, q_sample


def make_random(schedule: Schedule, box: BoxFn) -> Strategy:
    """N(0, I) clipped to the box as a wrong y_0, noised with the positive's eps."""

    def start(key, rows, progress):
        del progress
        assert_rows(rows, rows["y0"])
        wrong = trees.normal(key, rows["y0"])
        clip = lambda x, y: boxes.clip(box_of(box, x), y)  # noqa: E731
        wrong = jax.vmap(clip)(rows["x"], wrong)
        return q_sample(schedule, wrong, rows["t"], rows["eps"])

    return Strategy(start, keep)
