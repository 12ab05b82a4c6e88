"""Residual filters: they drop negatives that are right answers.

What is kept depends on y-, so filtering moves the fixed point of contrastive
divergence: it is a bias, bought for fewer false negatives.
"""

from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp

from ired_jax import blocks, boxes, diffusion, losses
from ired_jax.diffusion import Schedule
from ired_jax.fields import Field
from ired_jax.negatives.base import BoxFn, LandscapeAt, box_of
from ired_jax.types import Array, Batch, Tree

Denoised = Annotated[
    bool, Field("look at predict_start(y-); False: at y- / a_t (earlier)")
]
Quantile = Annotated[float, Field("of a level's residuals", above=0, below=1)]
PerLevel = Annotated[
    bool, Field("a quantile a level; False: one over all levels (earlier)")
]

UNSEEN = -1.0  # the running threshold of a level without rows so far; others are >= 0


class ResidualFilter(NamedTuple):
    """Drops negatives whose residual is below their level's threshold."""

    mode: Literal["fixed", "batch_quantile", "running_quantile"]
    quantile: float = 0.3
    momentum: float = 0.9  # of the running mean of the batch quantiles
    fixed: tuple[float, ...] = ()  # [T], mode `fixed`
    per_level: bool = True
    denoised: bool = True


def make_fixed(
    num_levels: int,
    *,
    thresholds: Annotated[
        tuple, Field("T residuals, from experiments.calibrate", other=(2.0,) * 10)
    ] = (),
    denoised: Denoised = True,
) -> ResidualFilter:
    """Thresholds set beforehand.

    Raises:
      ValueError: not one number of at least 0 for each level.
    """
    name = f"filter.thresholds={thresholds}"
    if len(thresholds) != num_levels:
        raise ValueError(
            f"{name}: must hold one residual for each of"
            f" diffusion.num_levels={num_levels} (see experiments.calibrate)"
        )
    if not all(isinstance(v, int | float) and v >= 0 for v in thresholds):
        raise ValueError(f"{name}: must be numbers, at least 0")
    return ResidualFilter("fixed", fixed=tuple(thresholds), denoised=denoised)


def make_batch_quantile(
    *, quantile: Quantile = 0.3, per_level: PerLevel = True, denoised: Denoised = True
) -> ResidualFilter:
    """A quantile of the batch's own residuals."""
    return ResidualFilter(
        "batch_quantile", quantile, per_level=per_level, denoised=denoised
    )


def make_running_quantile(
    *,
    quantile: Quantile = 0.3,
    momentum: Annotated[float, Field("of the mean", at_least=0, below=1)] = 0.9,
    per_level: PerLevel = True,
    denoised: Denoised = True,
) -> ResidualFilter:
    """A running mean of the batches' quantiles."""
    return ResidualFilter(
        "running_quantile", quantile, momentum, per_level=per_level, denoised=denoised
    )


FILTERS = {
    "none": None,
    "fixed": make_fixed,
    "batch_quantile": make_batch_quantile,
    "running_quantile": make_running_quantile,
}


def filtered_residual(
    schedule: Schedule,
    task_residual: Callable[[Tree, Tree], Array],
    energy_at: LandscapeAt,
    rows: Batch,
    *,
    box: BoxFn,
    denoised: bool,
    block_rows: int | None = None,
) -> Array:
    """The task residual of each negative's y_0: [N].

    `energy_at(x, t)` is E (not U): predict_start needs its gradient.
    """

    def one(x, t, y):
        zero = jax.tree.map(jnp.zeros_like, y)
        grad = jax.grad(energy_at(x, t))(y) if denoised else zero
        y0 = diffusion.predict_start(schedule, y, t, grad)
        return task_residual(x, boxes.clip(box_of(box, x), y0))

    return blocks.vmap(one, block_rows)(rows["x"], rows["t"], rows["y"])


def thresholds(
    spec: ResidualFilter, residual: Array, t: Array, previous: Array
) -> Array:
    """The threshold of each level, without gradient: [N], [N], [T] -> [T].

    `previous` is the running threshold, `UNSEEN` where a level has had no rows yet
    (which keeps every negative); a level without rows keeps it.
    """
    chex.assert_equal_shape([residual, t])
    chex.assert_rank(previous, 1)
    num_levels = previous.shape[0]
    if spec.mode == "fixed":
        limits = jnp.asarray(spec.fixed, previous.dtype)
        chex.assert_equal_shape([limits, previous])
        return limits
    if spec.per_level:
        batch = losses.level_quantiles(
            residual, t, num_levels=num_levels, quantile=spec.quantile
        )
    else:
        batch = jnp.quantile(jax.lax.stop_gradient(residual), spec.quantile)
        batch = jnp.full(num_levels, batch)
    batch = jnp.where(jnp.isnan(batch), previous, batch)
    if spec.mode == "batch_quantile":
        return batch
    is_new = previous < 0
    return jnp.where(
        is_new, batch, spec.momentum * previous + (1 - spec.momentum) * batch
    )
