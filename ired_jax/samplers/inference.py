"""From the smoothest landscape to the sharpest: the answer to one x.

Source: arXiv 2406.11179, algorithm 2, and its released code; y_0 of the last level is
reported (the released code returns a_0 y_0, a shrink of 1.4 % at T = 10).
"""

from collections.abc import Callable
from functools import partial
from numbers import Integral
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ired_jax import boxes, diffusion, trees
from ired_jax.boxes import Bounds
from ired_jax.diffusion import Schedule
from ired_jax.samplers import descent
from ired_jax.types import Array, EnergyFn, Tree, refuse_no_count


class SolveInfo(NamedTuple):
    """What a person needs of one answer; per-level arrays run from T-1 to 0."""

    energy: Array  # () E(x, a_0 y_0, 0) at the answer
    energies: Array  # [T] energy at the end of each level's descent
    acceptance: Array  # [T] share of accepted steps of each level
    steps: Array  # [T] int32, descent steps taken
    answers: Tree | None  # y_0 after each level, each leaf [T, ...]; only with trace


def solve(
    key: Array,
    energy_fn: Callable[[Tree, Array], Array],
    schedule: Schedule,
    y_shape: tuple[int, ...] | Tree,
    *,
    num_steps: int,
    bounds: Bounds,
    **options,
) -> tuple[Tree, SolveInfo]:
    """Answers one x: y ~ N(0, I), then for t = T-1 .. 0 denoise and descend.

        y_0 = clip(predict_start(y, grad E), bounds);  y = a_t y_0
        num_steps of accepted descent within a_t bounds
        y_0 = y / a_t;  y = a_(t-1) y_0, and with `noise` + s_(t-1) eps

    Known elements of a `Box` are exact throughout: a_t times their values at level t,
    no noise, and in y_0 the values themselves, to the bit.

    Args:
      key: PRNG key of this row's noise (key it by the row's index, so that the answer
        does not depend on the batch).
      energy_fn: (y, t ()) -> (); its `at(t)`, if any, is used for each level.
      schedule: the T levels.
      y_shape: of one floating array, or a pytree of things with .shape and .dtype.
      num_steps: descent steps a level, static, at least 0.
      bounds: of y_0, a half-width, a `Box` or None.
      **options: double_steps, tolerance, noise: see `samplers.inference.solve_from`,
        which begins at a given y.

    Returns:
      y_0, and `SolveInfo`.

    Raises:
      ValueError: y_shape is neither, or as `solve_from`.
    """
    if isinstance(y_shape, tuple) and all(isinstance(n, Integral) for n in y_shape):
        refuse_no_count(**{f"y_shape[{i}]": n for i, n in enumerate(y_shape)})
        y_shape = jax.ShapeDtypeStruct(y_shape, jnp.result_type(float))
    if not all(hasattr(leaf, "shape") for leaf in jax.tree.leaves(y_shape)):
        raise ValueError(
            f"y_shape={y_shape}: must be a tuple of sizes, or a pytree of things with"
            " .shape and .dtype"
        )
    y = trees.normal(key, y_shape)
    return solve_from(
        y, energy_fn, schedule, num_steps=num_steps, bounds=bounds, key=key, **options
    )


def solve_from(
    y: Tree,
    energy_fn: Callable[[Tree, Array], Array],
    schedule: Schedule,
    *,
    num_steps: int,
    bounds: Bounds,
    double_steps: bool = False,
    tolerance: Array | float | None = None,
    noise: bool = False,
    key: Array | None = None,
    trace: bool = False,
    denoise: Callable[[Tree, Array], Tree] | None = None,
    level: int | None = None,
) -> tuple[Tree, SolveInfo]:
    """As `solve`, from a given y at level T-1, or at `level`.

    Args:
      y: the start, a pytree of arrays of one floating dtype.
      energy_fn, schedule: as in `solve`.
      num_steps, bounds: as in `solve`.
      double_steps: double the step from each level's second step on, as the released
        code does for continuous tasks.
      tolerance: in units of y, root mean square over free elements; a level's descent
        ends where the denoised answer s_t grad E is no further away (clean: grad E),
        and where no step can move any more (0: only there). None: takes all steps.
      noise: hand over y_(t-1) with fresh noise of its level.
      key: PRNG key of that noise; level t's is folded in with t.
      trace: also return the answer after each level.
      denoise: (y, t) -> y_0; None: `predict_start` by the energy's gradient.
      level: the first one, static; None: T-1.

    Returns:
      y_0, and `SolveInfo`, its arrays those of the levels from the first to 0.

    Raises:
      ValueError: no schedule, a level that there is not, noise without a key, num_steps
        below 0, or a box of another structure than y. AssertionError: y is not
        floating, of several dtypes, or of under 32 bits.
    """
    trees.dtype(y)
    if not isinstance(schedule, Schedule):
        raise ValueError(f"schedule={schedule!r}: must be a Schedule of make_schedule")
    if noise and key is None:
        raise ValueError("key=None: noise at each hand-over needs a key")
    last = _first_level(schedule, level)
    y = boxes.hold(boxes.scale(bounds, schedule.a[last]), y)
    hand_over = partial(_hand_over, schedule, bounds, key if noise else None)
    scale = jnp.where(jnp.arange(num_steps) > 0, 2.0, 1.0) if double_steps else 1.0
    at = getattr(energy_fn, "at", None) or (lambda t: lambda y: energy_fn(y, t))

    def start_of(landscape: EnergyFn, y: Tree, t: Array) -> Tree:
        if denoise is not None:
            return denoise(y, t)
        return diffusion.predict_start(schedule, y, t, jax.grad(landscape)(y))

    def at_level(y0_and_y: tuple[Tree, Tree], t: Array):
        _, y = y0_and_y
        landscape, a = at(t), schedule.a[t]
        y0 = start_of(landscape, y, t)
        y, info = descent.minimize(
            landscape,
            jax.tree.map(lambda y0: a * y0, boxes.clip(bounds, y0)),
            step_size=diffusion.descent_step_size(schedule, t) * scale,
            num_steps=num_steps,
            bounds=boxes.scale(bounds, a),
            # s_t grad E is how far the denoised a_t y_0 is from y.
            tolerance=None
            if tolerance is None
            else tolerance / schedule.temperature[t],
        )
        y0 = boxes.hold(bounds, jax.tree.map(lambda y: y / a, y))
        below = hand_over(y0, jnp.maximum(t - 1, 0))
        return (y0, below), (info, y0 if trace else None)

    levels = jnp.arange(last + 1)[::-1]
    first = jax.tree.map(jnp.zeros_like, y), y
    (y0, _), (info, answers) = jax.lax.scan(at_level, first, levels)
    return y0, SolveInfo(
        info.energy[-1], info.energy, info.acceptance, info.steps, answers
    )


def _first_level(schedule: Schedule, level: int | None) -> int:
    last = schedule.num_levels - 1
    if level is None:
        return last
    if not 0 <= level <= last:
        raise ValueError(f"level={level}: must be from 0 to {last}")
    return level


def _hand_over(
    schedule: Schedule, bounds: Bounds, key: Array | None, y0: Tree, t: Array
) -> Tree:
    """Where level t begins: a_t y_0, and with a key s_t eps."""
    if key is None:
        return jax.tree.map(lambda y0: schedule.a[t] * y0, y0)
    eps = trees.normal(jax.random.fold_in(key, t), y0)
    return diffusion.q_sample(schedule, y0, t, boxes.still(bounds, eps))
