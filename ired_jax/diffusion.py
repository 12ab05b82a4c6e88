"""The noise schedule and what it fixes: noised answers, temperature, step sizes.

Notation: y_t = a_t y_0 + s_t eps with a_t = sqrt(alpha_bar_t), s_t = sqrt(1 -
alpha_bar_t). The denoising loss makes grad_y E = E[eps | y_t, x] = -s_t grad log p_t,
so p_t is proportional to exp(-E / s_t): **the temperature of E_t is s_t**, and
U = E / s_t is the energy in nats.
"""

from typing import Literal, NamedTuple

import chex
import jax.numpy as jnp
import numpy as np

from ired_jax.types import Array

Kind = Literal["cosine", "linear"]
COSINE_OFFSET = 0.008
MAX_BETA = 0.999


class Schedule(NamedTuple):
    """The levels t = 0 (sharpest) .. T-1 (smoothest); each array is [T] float32."""

    beta: Array  # noise variance added by level t
    alpha_bar: Array  # product of 1 - beta up to and including t
    a: Array  # sqrt(alpha_bar), the share of the answer
    s: Array  # sqrt(1 - alpha_bar), the share of noise; temperature of E_t

    @property
    def num_levels(self) -> int:
        return self.beta.shape[0]


def make_schedule(kind: Kind, num_levels: int) -> Schedule:
    """Makes a schedule, computed in float64 and stored as float32.

    Args:
      kind: `cosine`, f(i) = cos^2(((i / T + .008) / 1.008) pi / 2) and
        beta_i = min(1 - f(i + 1) / f(i), .999); or `linear`, 1000 / T [1e-4, .02].
      num_levels: T, at least 1.

    Raises:
      ValueError: unknown kind, T < 1, or a linear schedule with T <= 20, whose last
        beta would be 1 or more.

    Source: Nichol, Dhariwal, arXiv 2102.09672, eq. 17 (cosine); Ho et al.,
    arXiv 2006.11239 (linear).
    """
    if num_levels < 1:
        raise ValueError(f"num_levels={num_levels}: must be at least 1")
    if kind == "cosine":
        i = np.arange(num_levels + 1, dtype=np.float64)
        angle = (i / num_levels + COSINE_OFFSET) / (1 + COSINE_OFFSET) * np.pi / 2
        f = np.cos(angle) ** 2
        beta = np.minimum(1 - f[1:] / f[:-1], MAX_BETA)
    elif kind == "linear":
        if num_levels <= 20:
            raise ValueError(
                f"num_levels={num_levels}: a linear schedule needs more than 20 levels,"
                " with fewer its last beta is 1 or more"
            )
        beta = 1000 / num_levels * np.linspace(1e-4, 0.02, num_levels)
    else:
        raise ValueError(f"kind={kind!r}: allowed are 'cosine' and 'linear'")
    alpha_bar = np.cumprod(1 - beta)
    arrays = (beta, alpha_bar, np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar))
    return Schedule(*(jnp.asarray(array, jnp.float32) for array in arrays))


def q_sample(schedule: Schedule, y0: Array, t: Array, eps: Array) -> Array:
    """y_t = a_t y_0 + s_t eps, for one example: y0, eps [D], t () -> [D].

    Source: arXiv 2006.11239, eq. 4.
    """
    chex.assert_equal_shape([y0, eps])
    chex.assert_shape(t, ())
    return schedule.a[t] * y0 + schedule.s[t] * eps


def predict_start(schedule: Schedule, y: Array, t: Array, grad: Array) -> Array:
    """y_0 = (y_t - s_t grad_y E) / a_t, the denoised answer of one example: [D].

    Source: arXiv 2006.11239, eq. 15 with eps_hat = grad_y E.
    """
    chex.assert_equal_shape([y, grad])
    chex.assert_shape(t, ())
    return (y - schedule.s[t] * grad) / schedule.a[t]


def predict_noise(schedule: Schedule, y: Array, t: Array, y0: Array) -> Array:
    """eps = (y_t - a_t y_0) / s_t, the inverse of `predict_start`: [D]."""
    chex.assert_equal_shape([y, y0])
    chex.assert_shape(t, ())
    return (y - schedule.a[t] * y0) / schedule.s[t]


def temperature(schedule: Schedule, t: Array) -> Array:
    """s_t: p_t(y | x) is proportional to exp(-E / s_t). Shape of t."""
    chex.assert_type(t, int)
    return schedule.s[t]


def langevin_step_size(schedule: Schedule, t: Array, multiple: float) -> Array:
    """h = multiple s_t^2, the step on U = E / s_t. Shape of t.

    Unadjusted chains on the ideal landscape U = |y - a_t y*|^2 / (2 s_t^2) are stable
    for a multiple below 2.
    """
    chex.assert_type(t, int)
    return multiple * schedule.s[t] ** 2


def descent_step_size(schedule: Schedule, t: Array) -> Array:
    """beta_t / s_t, the step of a descent on E (on U it is beta_t). Shape of t.

    Source: released code of arXiv 2406.11179.
    """
    chex.assert_type(t, int)
    return schedule.beta[t] / schedule.s[t]
