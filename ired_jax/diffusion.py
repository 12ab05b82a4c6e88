"""The noise schedule and what it fixes: noised answers, temperature, step sizes.

Notation: y_t = a_t y_0 + s_t eps with a_t = sqrt(alpha_bar_t), s_t = sqrt(1 -
alpha_bar_t). The denoising loss makes grad_y E = E[eps | y_t, x] = -s_t grad log p_t,
so p_t is proportional to exp(-E / s_t): **the temperature of E_t is s_t**, and
U = E / s_t is the energy in nats. An energy of clean data, s = 0, is learned by other
objectives and has temperature 1.

Answers are pytrees of arrays. Where elements are known, pass eps and grad through
`boxes.still` first: they are then a_t times their values in y_t.
"""

from typing import Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from ired_jax.types import Array, Tree

Kind = Literal["cosine", "linear", "clean"]
COSINE_OFFSET = 0.008
MAX_BETA = 0.999


class Schedule(NamedTuple):
    """The levels t = 0 (sharpest) .. T-1 (smoothest); each array is [T] float32."""

    beta: Array  # noise variance added by level t
    alpha_bar: Array  # product of 1 - beta up to and including t
    a: Array  # sqrt(alpha_bar), the share of the answer
    s: Array  # sqrt(1 - alpha_bar), the share of noise
    temperature: Array  # of E_t: s, or 1 where there is no noise

    @property
    def num_levels(self) -> int:
        return self.beta.shape[0]


def make_schedule(kind: Kind, num_levels: int) -> Schedule:
    """Makes a schedule, computed in float64 and stored as float32.

    Args:
      kind: `cosine`, f(i) = cos^2(((i / T + .008) / 1.008) pi / 2) and
        beta_i = min(1 - f(i + 1) / f(i), .999); `linear`, 1000 / T [1e-4, .02]; or
        `clean`, the data as they are: beta = s = 0, a = temperature = 1.
      num_levels: T, at least 1.

    Raises:
      ValueError: unknown kind, T < 1, a linear schedule with T <= 20, whose last beta
        would be 1 or more, or a clean one with T > 1.

    Source: Nichol, Dhariwal, arXiv 2102.09672, eq. 17 (cosine); Ho et al.,
    arXiv 2006.11239 (linear).
    """
    if num_levels < 1:
        raise ValueError(f"diffusion.num_levels={num_levels}: must be at least 1")
    if kind == "cosine":
        i = np.arange(num_levels + 1, dtype=np.float64)
        angle = (i / num_levels + COSINE_OFFSET) / (1 + COSINE_OFFSET) * np.pi / 2
        f = np.cos(angle) ** 2
        beta = np.minimum(1 - f[1:] / f[:-1], MAX_BETA)
    elif kind == "linear":
        if num_levels <= 20:
            raise ValueError(
                f"diffusion.num_levels={num_levels}: a linear schedule needs more than"
                " 20 levels, with fewer its last beta is 1 or more"
            )
        beta = 1000 / num_levels * np.linspace(1e-4, 0.02, num_levels)
    elif kind == "clean":
        if num_levels != 1:
            raise ValueError(
                f"diffusion.num_levels={num_levels}: a clean schedule has 1 level"
            )
        beta = np.zeros(1)
    else:
        raise ValueError(f"kind={kind!r}: allowed are 'cosine', 'linear' and 'clean'")
    alpha_bar = np.cumprod(1 - beta)
    s = np.sqrt(1 - alpha_bar)
    temperature = np.ones(1) if kind == "clean" else s
    arrays = (beta, alpha_bar, np.sqrt(alpha_bar), s, temperature)
    return Schedule(*(jnp.asarray(array, jnp.float32) for array in arrays))


def q_sample(schedule: Schedule, y0: Tree, t: Array, eps: Tree) -> Tree:
    """y_t = a_t y_0 + s_t eps, for one example: y0, eps of one shape, t ().

    Source: arXiv 2006.11239, eq. 4.
    """
    _check(y0, eps, t)
    a, s = schedule.a[t], schedule.s[t]
    return jax.tree.map(lambda y0, eps: a * y0 + s * eps, y0, eps)


def predict_start(schedule: Schedule, y: Tree, t: Array, grad: Tree) -> Tree:
    """y_0 = (y_t - s_t grad_y E) / a_t, the denoised answer of one example.

    Source: arXiv 2006.11239, eq. 15 with eps_hat = grad_y E.
    """
    _check(y, grad, t)
    a, s = schedule.a[t], schedule.s[t]
    return jax.tree.map(lambda y, grad: (y - s * grad) / a, y, grad)


def predict_noise(schedule: Schedule, y: Tree, t: Array, y0: Tree) -> Tree:
    """eps = (y_t - a_t y_0) / s_t, the inverse of `predict_start`; needs s_t > 0."""
    _check(y, y0, t)
    a, s = schedule.a[t], schedule.s[t]
    return jax.tree.map(lambda y, y0: (y - a * y0) / s, y, y0)


def temperature(schedule: Schedule, t: Array) -> Array:
    """s_t: p_t(y | x) is proportional to exp(-E / s_t); 1 if clean. Shape of t."""
    chex.assert_type(t, int)
    return schedule.temperature[t]


def langevin_step_size(schedule: Schedule, t: Array, multiple: float) -> Array:
    """h = multiple s_t^2, the step on U = E / s_t; multiple if clean. Shape of t.

    Unadjusted chains on the ideal landscape U = |y - a_t y*|^2 / (2 s_t^2) are stable
    for a multiple below 2.
    """
    chex.assert_type(t, int)
    return multiple * schedule.temperature[t] ** 2


def descent_step_size(schedule: Schedule, t: Array) -> Array:
    """beta_t / s_t, the step of a descent on E (on U it is beta_t). Shape of t.

    Where there is no noise this is 0 / 0, and the temperature stands in for it: the
    step that solves the ideal landscape |y - y*|^2 / 2 at once, as the smoothest level
    of a cosine schedule has it.

    Source: released code of arXiv 2406.11179.
    """
    chex.assert_type(t, int)
    beta, s, temperature = schedule.beta[t], schedule.s[t], schedule.temperature[t]
    return jnp.where(s > 0, beta / jnp.where(s > 0, s, 1.0), temperature)


def _check(first: Tree, second: Tree, t: Array) -> None:
    """No broadcasting: two trees of one shape, one level."""
    chex.assert_trees_all_equal_shapes(first, second)
    chex.assert_shape(t, ())
