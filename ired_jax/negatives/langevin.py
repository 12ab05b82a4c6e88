"""Langevin chains from noisy answers, or going on where a replayed chain ended."""

import math
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from ired_jax import blocks, boxes, losses
from ired_jax.diffusion import Schedule
from ired_jax.fields import Field, Part
from ired_jax.negatives.base import (
    BoxFn,
    ChainInfo,
    ChainPrecision,
    NoiseScale,
    NoiseScaleEnd,
    Strategy,
    Units,
    assert_rows,
    box_of,
    noised_start,
)
from ired_jax.samplers import langevin
from ired_jax.types import Array, Box

STEP_MULTIPLE = 0.25  # of s_t^2, unadjusted chains: the width comes out 7 % too large
ADJUSTED_STEP = 1.36  # D^(-1/3) s_t^2, adjusted chains: acceptance .57


class Chain(NamedTuple):
    """How a chain moves."""

    num_steps: Annotated[int, Field("K", at_least=1)] = 10
    step_size: Annotated[
        float,
        Field(
            "multiple of s_t^2 (energy: of beta_t / s_t); 0: by kind of chain",
            at_least=0,
            other=0.1,
        ),
    ] = 0.0
    temperature: Annotated[
        float, Field("in units of the chain's energy", at_least=0)
    ] = 1.0
    grad_clip: Annotated[
        float,
        Field("of each element of grad E (on grad U: / s_t); 0: none", at_least=0),
    ] = 5.0
    bounds: Annotated[
        float, Field("half-width of the chain's box; 0: none", at_least=0)
    ] = 0.0
    adjusted: Annotated[bool, Field("Metropolis-Hastings acceptance")] = False


def make_langevin(
    schedule: Schedule,
    box: BoxFn,
    units: Units,
    num_elements: int,
    block_rows: int | None = None,
    *,
    chain: Annotated[Chain, Part(Chain, "sampler")] = Chain(),
    noise_scale: NoiseScale = 1.5,
    noise_scale_end: NoiseScaleEnd = -1.0,
    curriculum: Annotated[
        float,
        Field(
            "share of the run over which moving steps grow to K", at_least=0, at_most=1
        ),
    ] = 0.0,
    chains: ChainPrecision = "float32",
) -> Strategy:
    """a_t y_0 + scale s_t eps', then `num_steps` Langevin steps.

    A clip of 5 on grad E is five standard deviations of the noise under a right
    denoiser: a chain on the ideal landscape never meets it, and one on a bad landscape
    does not run away. A small one keeps chains from following the energy at all.

    Raises:
      ValueError: an adjusted chain at temperature 0.
    """
    if chain.adjusted and chain.temperature == 0:
        raise ValueError("sampler.temperature=0.0: adjusted chains need it above 0")
    multiple = chain.step_size or default_step(units, chain.adjusted, num_elements)

    def step_at(t):
        return units.langevin_step(t, multiple)

    def of_free(box, y):
        """What known elements multiply the default step of an adjusted chain by."""
        if chain.step_size or not chain.adjusted:
            return 1.0
        return (num_elements / boxes.count_free(box, y)) ** (1 / 3)

    def refine(key, landscape, rows, y, progress):
        assert_rows(rows, y)
        is_active = 1.0  # one size for all steps; with a curriculum one for each
        if curriculum:
            share = losses.ramp(progress, curriculum)
            moving = jnp.maximum(1.0, share * chain.num_steps)
            is_active = jnp.arange(chain.num_steps) < moving

        def one(key, x, t, y):
            limit = box_of(box, x)
            return langevin.sample(
                key,
                landscape(x, t),
                y,
                step_size=step_at(t) * is_active * of_free(limit, y),
                temperature=chain.temperature,
                num_steps=chain.num_steps,
                grad_clip=_clip_at(chain.grad_clip, units, t),
                bounds=_chain_box(limit, schedule.a[t], chain.bounds, y),
                adjusted=chain.adjusted,
            )

        keys = jax.random.split(key, rows["t"].shape[0])
        y, info = blocks.vmap(one, block_rows)(keys, rows["x"], rows["t"], y)
        acceptance = info.acceptance
        if curriculum:  # a step that stands still is no move, and no acceptance
            rejected = (1 - acceptance) * chain.num_steps / jnp.sum(is_active)
            acceptance = jnp.maximum(1 - rejected, 0.0)
        return y, ChainInfo(acceptance, info.displacement, info.clipped)

    start = noised_start(schedule, box, noise_scale, noise_scale_end)
    return Strategy(start, refine, chains, goes_on=True, step_size=step_at)


def default_step(units: Units, adjusted: bool, num_elements: int) -> float:
    """The multiple of s_t^2 (or, on E, of beta_t / s_t) that suits a kind of chain.

    Of `num_elements` free ones: chains have it of each row's own.
    """
    if adjusted:
        return ADJUSTED_STEP * num_elements ** (-1 / 3)
    return STEP_MULTIPLE if units.in_nats else 1.0


def _clip_at(clip: float, units: Units, t: Array) -> Array | float | None:
    """A clip of grad E as one of the landscape's gradient: on U it is 1 / s_t wider."""
    if clip == 0:
        return None
    return clip / units.scale(t) if units.in_nats else clip


def _chain_box(box: Box | None, a, half_width: float, y) -> Box | float | None:
    """The half-width, and what is known of y at a_t y_0 where a task has givens."""
    mask = boxes.free(box, y)
    if mask is None:
        return half_width or None
    limit, scaled = half_width or math.inf, boxes.as_box(boxes.scale(box, a))
    assert scaled is not None  # a mask is of a box
    low, high = (
        jax.tree.map(lambda m, k, b=b: jnp.where(m, b, k), mask, boxes.like(part, y))
        for part, b in zip(scaled, (-limit, limit), strict=True)
    )
    return Box(low, high)
