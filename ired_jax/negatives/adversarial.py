"""Noisy answers after some descent on the energy: where it is low and wrong."""

from typing import Annotated

import jax.numpy as jnp

from ired_jax import blocks, boxes
from ired_jax.diffusion import Schedule
from ired_jax.fields import Field
from ired_jax.negatives.base import (
    BoxFn,
    ChainInfo,
    ChainPrecision,
    DescentSteps,
    NoiseScale,
    NoiseScaleEnd,
    Strategy,
    Units,
    assert_rows,
    box_of,
    noised_start,
    renoise,
)
from ired_jax.samplers import descent


def make_adversarial(
    schedule: Schedule,
    box: BoxFn,
    units: Units,
    block_rows: int | None = None,
    *,
    noise_scale: NoiseScale = 1.5,
    noise_scale_end: NoiseScaleEnd = -1.0,
    descent_steps: DescentSteps = 2,
    descent_step_size: Annotated[
        float, Field("multiple of the level's own beta_t / s_t on E", above=0)
    ] = 1.0,
    chains: ChainPrecision = "float32",
) -> Strategy:
    """As `noise`, with accepted descent on the energy before the y_0 round trip.

    Source: arXiv 2406.11179, section 4.2 and its released code.
    """

    def step_at(t):
        return descent_step_size * units.descent_step(t)

    def refine(key, landscape, rows, y, progress):
        del key, progress
        assert_rows(rows, y)

        def one(x, t, y):
            limit = box_of(box, x)
            limit = None if limit is None else boxes.scale(limit, schedule.a[t])
            return descent.minimize(
                landscape(x, t),
                boxes.clip(limit, y),
                step_size=step_at(t),
                num_steps=descent_steps,
                bounds=limit,
            )

        y, info = blocks.vmap(one, block_rows)(rows["x"], rows["t"], y)
        moved = info.displacement
        info = ChainInfo(info.acceptance, moved, jnp.zeros_like(moved))
        return renoise(schedule, box, rows, y), info

    start = noised_start(schedule, box, noise_scale, noise_scale_end)
    return Strategy(start, refine, chains, step_size=step_at)
