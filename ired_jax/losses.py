"""Pair losses, penalties, masks and schedules: arrays in, per-example values out.

No mean over the batch is taken here, so nothing can be diluted by its size. U = E / s_t
is the energy in nats; y+ comes from the data, y- from a chain; data down, samples up.
"""

from collections.abc import Callable
from typing import Annotated, NamedTuple

import chex
import jax
import jax.numpy as jnp

from ired_jax.fields import Field
from ired_jax.types import Array

Elements = Array | int  # D, free elements of y: one number, or one for each row
SATURATED = 0.01  # a pair counts as saturated below this sigmoid


def contrastive_divergence(u_pos: Array, u_neg: Array, *, num_elements: Elements):
    """(U+ - U-) / D, nats per element: [B], [B] -> [B]. Lower widens the gap.

    Source: Hinton, Neural Computation 14(8), 2002; arXiv 1903.08689, eq. 2.
    """
    _assert_pairs(u_pos, u_neg)
    return (u_pos - u_neg) / num_elements


def logistic(u_pos: Array, u_neg: Array, *, tau: Array | float) -> Array:
    """softplus((U+ - U-) / tau): [B], [B] -> [B]; tau in nats.

    With tau = 1 it is the 2-way cross-entropy of the logits (-U+, -U-).
    Source: arXiv 2406.11179, eq. 7.
    """
    _assert_pairs(u_pos, u_neg)
    return jax.nn.softplus((u_pos - u_neg) / tau)


def hinge(u_pos: Array, u_neg: Array, *, margin: float) -> Array:
    """max(0, margin + U+ - U-): [B], [B] -> [B]; margin in nats.

    Source: LeCun et al., A Tutorial on Energy-Based Learning, 2006, eq. 11.
    """
    _assert_pairs(u_pos, u_neg)
    return jnp.maximum(0.0, margin + u_pos - u_neg)


def energy_penalty(u_pos: Array, u_neg: Array, *, num_elements: Elements):
    """(U+ / D)^2 + (U- / D)^2: [B], [B] -> [B]. Never masked or filtered."""
    _assert_pairs(u_pos, u_neg)
    return (u_pos / num_elements) ** 2 + (u_neg / num_elements) ** 2


def saturation(u_pos: Array, u_neg: Array, *, tau: Array | float) -> Array:
    """1 where sigmoid((U+ - U-) / tau) < .01, else 0: [B], [B] -> [B].

    Such a pair is told apart at once and hardly teaches a logistic loss anything.
    """
    _assert_pairs(u_pos, u_neg)
    return (jax.nn.sigmoid((u_pos - u_neg) / tau) < SATURATED).astype(u_pos.dtype)


class PairLoss(NamedTuple):
    """A contrastive term of pairs, and where it saturates."""

    value: Callable[[Array, Array, Elements], Array]  # (U+, U-, D) -> [N]
    tau: Callable[[Elements], Elements | float] = lambda size: 1.0  # nats


PerElement = Annotated[
    bool, Field("gap, tau, margin by element of y; False: whole (earlier)")
]


def make_cd(
    *,
    clamp: Annotated[
        float,
        Field("pairs whose gap exceeds it (nats an element) rest; 0: no", at_least=0),
    ] = 0.0,
    per_element: PerElement = True,
) -> PairLoss:
    """Contrastive divergence."""

    def value(u_pos, u_neg, size):
        unit = size if per_element else 1
        value = contrastive_divergence(u_pos, u_neg, num_elements=unit)
        return jnp.maximum(value, -clamp) if clamp else value

    return PairLoss(value)


def make_logistic(
    *,
    tau: Annotated[float, Field("temperature, nats (an element)", above=0)] = 1.0,
    per_element: PerElement = True,
) -> PairLoss:
    """Softplus of the gap."""

    def scale(size):
        return size * tau if per_element else tau

    return PairLoss(lambda u, v, size: logistic(u, v, tau=scale(size)), scale)


def make_hinge(
    *,
    margin: Annotated[float, Field("nats (an element)", at_least=0)] = 1.0,
    per_element: PerElement = True,
) -> PairLoss:
    """A margin that pairs have to keep."""

    def value(u_pos, u_neg, size):
        unit = size if per_element else 1
        return hinge(u_pos / unit, u_neg / unit, margin=margin)

    return PairLoss(value)


PAIR_LOSSES: dict[str, Callable[..., PairLoss]] = {
    "cd": make_cd,
    "logistic": make_logistic,
    "hinge": make_hinge,
}


def ramp(progress: Array, share: float) -> Array:
    """min(1, progress / share): grows over the first `share` of a run; 1 if it is 0."""
    return jnp.minimum(1.0, progress / share) if share else jnp.ones(())


def warmup(step: Array, *, maximum: float, num_steps: int) -> Array:
    """maximum min(1, step / num_steps); the maximum at once if num_steps is 0."""
    return maximum * ramp(step, num_steps)


def level_range(num_levels: int, low: float, high: float) -> tuple[int, int]:
    """low (T - 1) and high (T - 1), rounded down: the first and last level, inclusive.

    Raises:
      ValueError: unless 0 <= low <= high <= 1.
    """
    if not 0 <= low <= high <= 1:
        raise ValueError(f"level range ({low}, {high}): needs 0 <= low <= high <= 1")
    last = num_levels - 1
    # k / last times last may be a bit below k.
    return int(low * last + 1e-9), int(high * last + 1e-9)


def level_weights(temperature: Array, *, power: float) -> Array:
    """temperature^power over its mean: a weight for each level, mean 1. [T] -> [T].

    The ideal gap of a wrong answer is proportional to 1 / s_t^2 nats, so power = 2 lets
    every level speak equally loud.
    """
    chex.assert_rank(temperature, 1)
    weight = temperature**power
    return weight / jnp.mean(weight)


def level_quantiles(residual: Array, t: Array, *, num_levels: int, quantile: float):
    """The quantile of the residuals of each level: [B], [B] -> [T].

    NaN for a level without rows. Carries no gradient.
    """
    _assert_pairs(residual, t)
    residual = jax.lax.stop_gradient(residual)[None, :]
    of_level = jnp.where(
        jnp.arange(num_levels)[:, None] == t[None, :], residual, jnp.nan
    )
    return jnp.nanquantile(of_level, quantile, axis=1)


def _assert_pairs(first: Array, second: Array) -> None:
    chex.assert_rank([first, second], 1)
    chex.assert_equal_shape([first, second])
