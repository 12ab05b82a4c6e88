"""Descent that accepts a step only if it lowers the energy: one chain, no noise.

Source: the `opt_step` of the released code of arXiv 2406.11179, which evaluates the
energy again after each step; here the new point's energy and gradient come from one
pass, and the last proposal, whose gradient nobody asks for, from a forward pass alone.
"""

from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from ired_jax import boxes, trees
from ired_jax.boxes import Bounds
from ired_jax.types import Array, EnergyFn, Tree, refuse_negative, refuse_no_count


class DescentInfo(NamedTuple):
    """What a person needs at the end of a descent; scalars, float32 unless said."""

    energy: Array  # at the last state
    acceptance: Array  # share of the steps that were accepted
    displacement: Array  # root mean square over free elements of y_K - y_0
    steps: Array  # int32, taken: num_steps, or fewer with a tolerance


class _State(NamedTuple):
    y: Tree
    energy: Array
    grad: Tree  # 0 at known elements


def minimize(
    energy_fn: EnergyFn,
    y: Tree,
    *,
    step_size: Array | float,
    num_steps: int,
    bounds: Bounds = None,
    tolerance: Array | float | None = None,
) -> tuple[Tree, DescentInfo]:
    """Runs `num_steps` steps y' = clip(y - step_size dE/dy), each kept if E falls.

    A proposal whose energy is NaN is not kept. Known elements are at their values from
    the start on, and in no mean over elements.

    Args:
      energy_fn: y -> ().
      y: the start, a pytree of arrays of one floating dtype.
      step_size: () or [num_steps], at least 0.
      num_steps: K, static, at least 0.
      bounds: a half-width, () or as y, or a `Box`; proposals are clamped to it.
      tolerance: (); stops where the root mean square of dE/dy is at most this, and
        where no step can move any more. 0 saves steps and changes no answer. Rows of a
        vmap wait for the slowest of them. None: takes all steps.

    Returns:
      The last state, and `DescentInfo`; its energy is at most that of the start.

    Raises:
      ValueError: num_steps below 0, a plain step_size below 0, or a box of another
        structure than y. AssertionError: y is not floating, or of several dtypes.
    """
    dtype, y = trees.dtype(y), boxes.hold(bounds, y)
    refuse_no_count(num_steps=num_steps)
    refuse_negative(step_size=step_size)
    if num_steps == 0:
        boxes.clip(bounds, y)  # refuses one of another structure, as a step does
        zero = jnp.zeros((), dtype)
        return y, DescentInfo(energy_fn(y), zero, zero, steps=jnp.int32(0))
    step_size = jnp.asarray(step_size, dtype)
    chex.assert_shape(step_size, (num_steps,) if step_size.ndim else ())

    def size(index: Array | int) -> Array:
        return step_size[index] if step_size.ndim else step_size

    def evaluate(y: Tree) -> _State:
        energy, grad = jax.value_and_grad(energy_fn)(y)
        return _State(y, energy, boxes.still(bounds, grad))

    def propose(state: _State, h: Array) -> Tree:
        move = lambda y, grad: y - h * grad  # noqa: E731
        return boxes.clip(bounds, jax.tree.map(move, state.y, state.grad))

    def step(state: _State, index: Array):
        new = evaluate(propose(state, size(index)))
        accepted = new.energy < state.energy
        return trees.where(accepted, new, state), accepted

    start = evaluate(y)
    if tolerance is None:
        state, num_accepted = _taken(step, start, num_steps - 1)
        last = propose(state, size(num_steps - 1))
        end, energy, keep = _better(state, last, energy_fn(last))
        steps, num_accepted = jnp.int32(num_steps), num_accepted + keep
    else:
        sizes = jnp.broadcast_to(step_size, (num_steps,))
        rms = partial(boxes.rms_free, bounds)
        state, steps, num_accepted = _until_still(step, start, sizes, tolerance, rms)
        end, energy = state.y, state.energy
    info = DescentInfo(
        energy=energy,
        acceptance=num_accepted.astype(dtype) / jnp.maximum(steps, 1),
        displacement=boxes.rms_free(bounds, trees.subtract(end, y)),
        steps=steps,
    )
    return end, info


def _better(state: _State, last: Tree, energy: Array) -> tuple[Tree, Array, Array]:
    """The last proposal, its gradient not needed, if its energy is lower."""
    keep = energy < state.energy
    return *trees.where(keep, (last, energy), (state.y, state.energy)), keep


def _taken(step, start: _State, num_steps: int) -> tuple[_State, Array]:
    """The state after all steps, and how many were accepted: int32 ()."""

    def counted(carry: tuple[_State, Array], index: Array):
        state, accepted = step(carry[0], index)
        return (state, carry[1] + accepted), None

    # The count is carried, so that memory does not grow with K.
    first, indices = (start, jnp.int32(0)), jnp.arange(num_steps)
    return jax.lax.scan(counted, first, indices)[0]


def _until_still(
    step, start: _State, step_sizes: Array, tolerance: Array | float, rms
) -> tuple[_State, Array, Array]:
    """The state that is flat or stuck, the steps taken, those accepted: int32 ()."""
    # A rejected step leaves the state as it was: the same size is rejected for ever.
    is_last_size = step_sizes == step_sizes[-1]
    stays_so = jnp.flip(jnp.cumprod(jnp.flip(is_last_size)))

    def goes_on(carry):
        state, count, _, is_stuck = carry
        is_steep = rms(state.grad) > tolerance
        return (count < step_sizes.shape[0]) & is_steep & ~is_stuck

    def take(carry):
        state, count, num_accepted, _ = carry
        state, accepted = step(state, count)
        is_stuck = ~accepted & (stays_so[count] == 1)
        return state, count + 1, num_accepted + accepted, is_stuck

    first = start, jnp.int32(0), jnp.int32(0), jnp.array(False)
    state, count, num_accepted, _ = jax.lax.while_loop(goes_on, take, first)
    return state, count, num_accepted
