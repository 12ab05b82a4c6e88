"""Answers with too much noise."""

from ired_jax.diffusion import Schedule
from ired_jax.negatives.base import (
    BoxFn,
    NoiseScale,
    NoiseScaleEnd,
    Strategy,
    keep,
    noised_start,
    renoise,
)


def make_noise(
    schedule: Schedule,
    box: BoxFn,
    *,
    noise_scale: NoiseScale = 1.5,
    noise_scale_end: NoiseScaleEnd = -1.0,
) -> Strategy:
    """a_t y_0 + scale s_t eps', taken to y_0 space, clipped, noised again with eps."""

    def refine(key, landscape, rows, y, progress):
        y, info = keep(key, landscape, rows, y, progress)
        return renoise(schedule, box, rows, y), info

    start = noised_start(schedule, box, noise_scale, noise_scale_end)
    return Strategy(start, refine)
