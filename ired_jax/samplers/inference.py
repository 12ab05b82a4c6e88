"""From the smoothest landscape to the sharpest: the answer to one x.

Source: arXiv 2406.11179, algorithm 2, and its released code; y_0 of the last level is
reported (the released code returns a_0 y_0, a shrink of 1.4 % at T = 10).
"""

from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from ired_jax import diffusion
from ired_jax.diffusion import Schedule
from ired_jax.samplers import descent
from ired_jax.types import Array, LandscapeFn


class SolveInfo(NamedTuple):
    """What a person needs of one answer; per-level arrays run from T-1 to 0."""

    energy: Array  # () E(x, a_0 y_0, 0) at the answer
    energies: Array  # [T] energy at the end of each level's descent
    acceptance: Array  # [T] share of accepted steps of each level
    steps: Array  # [T] int32, descent steps taken
    answers: Array | None  # [T, D] y_0 after each level; only with trace


def solve(
    key: Array,
    energy_fn: LandscapeFn,
    schedule: Schedule,
    y_shape: tuple[int, ...],
    **options,
) -> tuple[Array, SolveInfo]:
    """Answers one x: y ~ N(0, I), then for t = T-1 .. 0 denoise and descend.

        y_0 = clip(predict_start(y, grad E), +-bounds);  y = a_t y_0
        num_steps of accepted descent within +-bounds a_t
        y_0 = y / a_t;  y = a_(t-1) y_0

    Args:
      key: PRNG key of this row's start noise (key it by the row's index, so that the
        answer does not depend on the batch).
      energy_fn: (y [D], t ()) -> (); its `at(t)`, if any, is used for each level.
      schedule: the T levels.
      y_shape: (D,).
      **options: those of `solve_from`.

    Returns:
      y_0 [D], and `SolveInfo`.
    """
    return solve_from(jax.random.normal(key, y_shape), energy_fn, schedule, **options)


def solve_from(
    y: Array,
    energy_fn: LandscapeFn,
    schedule: Schedule,
    *,
    num_steps: int,
    bounds: Array | float,
    double_steps: bool = False,
    tolerance: Array | float | None = None,
    trace: bool = False,
) -> tuple[Array, SolveInfo]:
    """As `solve`, from a given y [D] at level T-1.

    Args:
      y: [D], the start.
      energy_fn, schedule: as in `solve`.
      num_steps: descent steps a level, static, at least 0.
      bounds: half-width of the box that holds the answers.
      double_steps: double the step from each level's second step on, as the released
        code does for continuous tasks.
      tolerance: in units of y, root mean square over elements; a level's descent ends
        where the denoised answer s_t grad E is no further away, and where no step can
        move any more (0: only there). None: takes all steps.
      trace: also return the answer after each level.

    Returns:
      y_0 [D], and `SolveInfo`.
    """
    chex.assert_rank(y, 1)
    scale = jnp.where(jnp.arange(num_steps) > 0, 2.0, 1.0) if double_steps else 1.0
    at = getattr(energy_fn, "at", None) or (lambda t: partial(energy_fn, t=t))

    def level(y0_and_y: tuple[Array, Array], t: Array):
        _, y = y0_and_y
        landscape, a = at(t), schedule.a[t]
        y0 = diffusion.predict_start(schedule, y, t, jax.grad(landscape)(y))
        y, info = descent.minimize(
            landscape,
            a * jnp.clip(y0, -bounds, bounds),
            step_size=diffusion.descent_step_size(schedule, t) * scale,
            num_steps=num_steps,
            bounds=bounds * a,
            # s_t grad E is how far the denoised a_t y_0 is from y.
            tolerance=None if tolerance is None else tolerance / schedule.s[t],
        )
        y0 = y / a
        following = schedule.a[jnp.maximum(t - 1, 0)] * y0
        return (y0, following), (info, y0 if trace else None)

    levels = jnp.arange(schedule.num_levels)[::-1]
    (y0, _), (info, answers) = jax.lax.scan(level, (jnp.zeros_like(y), y), levels)
    return y0, SolveInfo(
        info.energy[-1], info.energy, info.acceptance, info.steps, answers
    )
