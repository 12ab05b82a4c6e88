"""Langevin chains, plain and Metropolis-adjusted: one chain, vmapped by the caller.

Convention, stated once, here:

    y' = y - step_size dE/dy + sqrt(2 step_size temperature) xi,    xi ~ N(0, I)

whose stationary law is exp(-E / temperature) as step_size -> 0 (exactly, at any step
size, for the adjusted chain). Pass U = E / s_t with temperature 1 to sample p_t.

y is a pytree of arrays of one floating dtype. Its elements that `bounds` knows stay at
their values: the chain is one over the others, whose number is D.

Sources: Roberts, Tweedie, Bernoulli 2(4), 1996 (both chains); Du, Mordatch,
arXiv 1903.08689 (in energy-based models).
"""

from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from ired_jax import boxes, trees
from ired_jax.boxes import Bounds
from ired_jax.types import (
    Array,
    EnergyFn,
    Tree,
    gradient,
    refuse_negative,
    refuse_no_count,
)


class LangevinInfo(NamedTuple):
    """What a person needs at the end of a chain; scalars, float32.

    `energy` and the terms below it that the caller drops are not computed under jit.
    """

    energy: Array  # at the last state, in units of the energy function
    acceptance: Array  # mean acceptance probability; 1 for a plain chain
    displacement: Array  # root mean square over free elements of y_K - y_0
    grad_norm: Array  # that of the last drift's gradient
    clipped: Array  # share of that gradient's free elements that the clip has cut
    energies: Array | None  # [num_steps + 1], each state's energy; only with trace


class _State(NamedTuple):
    y: Tree
    energy: Array  # of y, adjusted chains only: each point is evaluated once
    grad: Tree  # dE/dy that the last move used (plain) or of y (adjusted), clipped


def sample(
    key: Array,
    energy_fn: EnergyFn,
    y: Tree,
    *,
    step_size: Array | float,
    temperature: Array | float,
    num_steps: int,
    grad_clip: Array | float | None = None,
    bounds: Bounds = None,
    adjusted: bool = False,
    trace: bool = False,
) -> tuple[Tree, LangevinInfo]:
    """Runs one chain of `num_steps` Langevin steps.

    Args:
      key: typed or raw PRNG key of this chain.
      energy_fn: y -> (), the energy to sample at `temperature`; a plain chain
        without trace moves by its `grad`, if it brings one.
      y: the start, arrays of one floating dtype; known elements need not be right.
      step_size: () or [num_steps], at least 0.
      temperature: (), at least 0; positive if `adjusted`.
      num_steps: K, static, at least 0.
      grad_clip: clips each element of dE/dy to +-grad_clip. The clipped drift enters
        both proposal densities of an adjusted chain.
      bounds: a half-width, () or as y, or a `Box`; a plain chain is clamped to it after
        each step, an adjusted one rejects a move outside: clamping would break detailed
        balance. Known elements do not move, and are in no proposal density.
      adjusted: Metropolis-Hastings acceptance with the exact proposal densities; a
        proposal whose energy is NaN is rejected.
      trace: also return the energy of each state; memory then grows with K.

    Returns:
      The last state, and `LangevinInfo`.

    Raises:
      ValueError: num_steps below 0, a plain number of a step_size or temperature that
        is not allowed, or a box of another structure than y. AssertionError: y is not
        floating, or of several dtypes.
    """
    dtype = trees.dtype(y)
    refuse_no_count(num_steps=num_steps)
    refuse_negative(step_size=step_size, temperature=temperature)
    if adjusted and isinstance(temperature, int | float) and not temperature:
        raise ValueError("temperature=0: must be above 0 of an adjusted chain")
    step_size = jnp.asarray(step_size, dtype)
    if step_size.ndim:
        chex.assert_shape(step_size, (num_steps,))
    y = boxes.hold(bounds, y)
    drift = partial(_energy_and_drift, energy_fn, grad_clip, bounds, adjusted or trace)
    move = partial(
        _adjusted_move if adjusted else _plain_move,
        drift=drift,
        temperature=jnp.asarray(temperature, dtype),
        bounds=bounds,
    )

    def step(carry: tuple[_State, Array], index: Array):
        state, total = carry
        h = step_size[index] if step_size.ndim else step_size
        state, acceptance, energy = move(jax.random.fold_in(key, index), state, h=h)
        return (state, total + acceptance), energy if trace else None

    if adjusted:
        start = _State(y, *drift(y))
    else:
        start = _State(y, jnp.zeros((), dtype), jax.tree.map(jnp.zeros_like, y))
    # Sums are carried, so that memory does not grow with K.
    first = start, jnp.zeros((), dtype)
    (end, total), energies = jax.lax.scan(step, first, jnp.arange(num_steps))
    energy = end.energy if adjusted else energy_fn(end.y)
    info = LangevinInfo(
        energy=energy,
        acceptance=total / num_steps if num_steps else jnp.ones((), dtype),
        displacement=boxes.rms_free(bounds, trees.subtract(end.y, y)),
        grad_norm=boxes.rms_free(bounds, end.grad),
        clipped=_share_at(grad_clip, bounds, end.grad),
        energies=jnp.append(energies, energy) if trace else None,
    )
    return end.y, info


def _share_at(limit, bounds, grad) -> Array:
    """The share of free elements at the limit; 0 without one."""
    if limit is None:
        return jnp.zeros((), trees.dtype(grad))
    cut = jax.tree.map(lambda g: (jnp.abs(g) >= limit).astype(g.dtype), grad)
    return boxes.mean_free(bounds, cut)


def _plain_move(key, state, *, h, drift, temperature, bounds):
    """One unadjusted step; returns the energy of the state that it left."""
    energy, grad = drift(state.y)
    y = boxes.clip(bounds, _propose(key, state.y, grad, h, temperature, bounds))
    return _State(y, state.energy, grad), jnp.ones_like(state.energy), energy


def _adjusted_move(key, state, *, h, drift, temperature, bounds):
    """One step with Metropolis-Hastings acceptance; the energy of the state it left."""
    key_noise, key_accept = jax.random.split(key)
    y = _propose(key_noise, state.y, state.grad, h, temperature, bounds)
    proposal = _State(y, *drift(y))
    # log alpha = -(E' - E) / T + log q(y | y') - log q(y' | y),
    # log q(y' | y) = -|y' - y + h grad(y)|^2 / (4 h T)
    back = _squared_noise(state.y, y, h, proposal.grad)
    forth = _squared_noise(y, state.y, h, state.grad)
    log_alpha = state.energy - proposal.energy + (forth - back) / (4 * h)
    log_alpha = log_alpha / temperature
    if bounds is not None:
        log_alpha = jnp.where(boxes.inside(bounds, y), log_alpha, -jnp.inf)
    # A barrier can make the proposal's energy or gradient NaN: that is a rejection, and
    # one NaN would hide the acceptance of the whole chain.
    log_alpha = jnp.where(jnp.isnan(log_alpha), -jnp.inf, log_alpha)
    # h = 0 proposes the state itself: 0 / 0 above, and nothing to accept.
    alpha = jnp.where(h > 0, jnp.exp(jnp.minimum(log_alpha, 0.0)), 1.0)
    accepted = jax.random.uniform(key_accept) < alpha
    return trees.where(accepted, proposal, state), alpha, state.energy


def _propose(key, y, grad, h, temperature, bounds):
    """y - h grad + sqrt(2 h T) xi, with no noise on known elements."""
    xi = boxes.still(bounds, trees.normal(key, y))

    def move(y, grad, xi):
        return y - h * grad + jnp.sqrt(2 * h * temperature) * xi

    return jax.tree.map(move, y, grad, xi)


def _squared_noise(new, y, h, grad):
    """|y' - y + h grad(y)|^2; known elements, without drift, add nothing."""
    noise = jax.tree.map(lambda new, y, grad: new - y + h * grad, new, y, grad)
    return trees.total(trees.squares(noise))


def _energy_and_drift(energy_fn, grad_clip, bounds, needs_energy, y):
    """E, 0 if nobody needs it, and dE/dy, clipped and 0 at known elements."""
    if needs_energy:
        energy, grad = jax.value_and_grad(energy_fn)(y)
    else:
        energy, grad = jnp.zeros((), trees.dtype(y)), gradient(energy_fn)(y)
    return energy, boxes.still(bounds, boxes.clip(grad_clip, grad))
