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

from ired_jax.types import Array, EnergyFn


class DescentInfo(NamedTuple):
    """What a person needs at the end of a descent; scalars, float32."""

    energy: Array  # at the last state
    acceptance: Array  # share of the steps that were accepted
    displacement: Array  # root mean square over elements of y_K - y_0


class _State(NamedTuple):
    y: Array
    energy: Array
    grad: Array


def minimize(
    energy_fn: EnergyFn,
    y: Array,
    *,
    step_size: Array | float,
    num_steps: int,
    bounds: Array | float | None = None,
) -> tuple[Array, DescentInfo]:
    """Runs `num_steps` steps y' = clip(y - step_size dE/dy), each kept if E falls.

    A proposal whose energy is NaN is not kept.

    Args:
      energy_fn: y [D] -> ().
      y: [D] floating, the start.
      step_size: () or [num_steps], at least 0.
      num_steps: K, static, at least 0.
      bounds: () or [D]; proposals are clamped to +-bounds.

    Returns:
      The last state [D], and `DescentInfo`; its energy is at most that of the start.

    Raises:
      ValueError: num_steps < 0. AssertionError: y is not a floating vector.
    """
    chex.assert_rank(y, 1)
    chex.assert_type(y, float)
    if num_steps < 0:
        raise ValueError(f"num_steps={num_steps}: must be at least 0")
    if num_steps == 0:
        zero = jnp.zeros((), y.dtype)
        return y, DescentInfo(energy_fn(y), acceptance=zero, displacement=zero)
    step_sizes = jnp.broadcast_to(jnp.asarray(step_size, y.dtype), (num_steps,))

    def propose(state: _State, h: Array) -> Array:
        proposal = state.y - h * state.grad
        return proposal if bounds is None else jnp.clip(proposal, -bounds, bounds)

    def step(state: _State, h: Array):
        proposal = propose(state, h)
        new = _State(proposal, *jax.value_and_grad(energy_fn)(proposal))
        accepted = new.energy < state.energy
        return jax.tree.map(partial(jnp.where, accepted), new, state), accepted

    start = _State(y, *jax.value_and_grad(energy_fn)(y))
    state, accepted = jax.lax.scan(step, start, step_sizes[:-1])
    last = propose(state, step_sizes[-1])
    energy = energy_fn(last)
    keep = energy < state.energy
    end = jnp.where(keep, last, state.y)
    info = DescentInfo(
        energy=jnp.where(keep, energy, state.energy),
        acceptance=jnp.mean(jnp.append(accepted, keep).astype(y.dtype)),
        displacement=jnp.sqrt(jnp.mean((end - y) ** 2)),
    )
    return end, info
