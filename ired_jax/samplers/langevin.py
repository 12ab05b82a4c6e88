"""Langevin chains, plain and Metropolis-adjusted: one chain, vmapped by the caller.

Convention, stated once, here:

    y' = y - step_size dE/dy + sqrt(2 step_size temperature) xi,    xi ~ N(0, I)

whose stationary law is exp(-E / temperature) as step_size -> 0 (exactly, at any step
size, for the adjusted chain). Pass U = E / s_t with temperature 1 to sample p_t.

Sources: Roberts, Tweedie, Bernoulli 2(4), 1996 (both chains); Du, Mordatch,
arXiv 1903.08689 (in energy-based models).
"""

from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from ired_jax.types import Array, EnergyFn, gradient


class LangevinInfo(NamedTuple):
    """What a person needs at the end of a chain; scalars, float32.

    `energy` and the terms below it that the caller drops are not computed under jit.
    """

    energy: Array  # at the last state, in units of the energy function
    acceptance: Array  # mean acceptance probability; 1 for a plain chain
    displacement: Array  # root mean square over elements of y_K - y_0
    grad_norm: Array  # root mean square over elements of the last drift's gradient
    energies: Array | None  # [num_steps + 1], each state's energy; only with trace


class _State(NamedTuple):
    y: Array
    energy: Array  # of y, adjusted chains only: each point is evaluated once
    grad: Array  # dE/dy that the last move used (plain) or of y (adjusted), clipped


def sample(
    key: Array,
    energy_fn: EnergyFn,
    y: Array,
    *,
    step_size: Array | float,
    temperature: Array | float,
    num_steps: int,
    grad_clip: Array | float | None = None,
    bounds: Array | float | None = None,
    adjusted: bool = False,
    trace: bool = False,
) -> tuple[Array, LangevinInfo]:
    """Runs one chain of `num_steps` Langevin steps.

    Args:
      key: typed or raw PRNG key of this chain.
      energy_fn: y [D] -> (), the energy to sample at `temperature`; a plain chain
        without trace moves by its `grad`, if it brings one.
      y: [D] floating, the start.
      step_size: () or [num_steps], at least 0.
      temperature: (), at least 0; positive if `adjusted`.
      num_steps: K, static, at least 0.
      grad_clip: clips each element of dE/dy to +-grad_clip. The clipped drift enters
        both proposal densities of an adjusted chain.
      bounds: () or [D]; a plain chain is clamped to +-bounds after each step, an
        adjusted one rejects a move outside: clamping would break detailed balance.
      adjusted: Metropolis-Hastings acceptance with the exact proposal densities; a
        proposal whose energy is NaN is rejected.
      trace: also return the energy of each state; memory then grows with K.

    Returns:
      The last state [D], and `LangevinInfo`.

    Raises:
      ValueError: num_steps < 0. AssertionError: y is not a floating vector.
    """
    chex.assert_rank(y, 1)
    chex.assert_type(y, float)
    if num_steps < 0:
        raise ValueError(f"num_steps={num_steps}: must be at least 0")
    step_size = jnp.asarray(step_size, y.dtype)
    if step_size.ndim:
        chex.assert_shape(step_size, (num_steps,))
    needs_energy = adjusted or trace
    drift = partial(_energy_and_clipped_grad, energy_fn, grad_clip, needs_energy)
    move = partial(
        _adjusted_move if adjusted else _plain_move,
        drift=drift,
        temperature=jnp.asarray(temperature, y.dtype),
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
        start = _State(y, jnp.zeros((), y.dtype), jnp.zeros_like(y))
    # Sums are carried, so that memory does not grow with K.
    first = start, jnp.zeros((), y.dtype)
    (end, total), energies = jax.lax.scan(step, first, jnp.arange(num_steps))
    energy = end.energy if adjusted else energy_fn(end.y)
    info = LangevinInfo(
        energy=energy,
        acceptance=total / num_steps if num_steps else jnp.ones((), y.dtype),
        displacement=_rms(end.y - y),
        grad_norm=_rms(end.grad),
        energies=jnp.append(energies, energy) if trace else None,
    )
    return end.y, info


def _plain_move(key, state, *, h, drift, temperature, bounds):
    """One unadjusted step; returns the energy of the state that it left."""
    energy, grad = drift(state.y)
    xi = jax.random.normal(key, state.y.shape, state.y.dtype)
    y = state.y - h * grad + jnp.sqrt(2 * h * temperature) * xi
    if bounds is not None:
        y = jnp.clip(y, -bounds, bounds)
    return _State(y, state.energy, grad), jnp.ones((), y.dtype), energy


def _adjusted_move(key, state, *, h, drift, temperature, bounds):
    """One step with Metropolis-Hastings acceptance; the energy of the state it left."""
    key_noise, key_accept = jax.random.split(key)
    xi = jax.random.normal(key_noise, state.y.shape, state.y.dtype)
    y = state.y - h * state.grad + jnp.sqrt(2 * h * temperature) * xi
    proposal = _State(y, *drift(y))
    # log alpha = -(E' - E) / T + log q(y | y') - log q(y' | y),
    # log q(y' | y) = -|y' - y + h grad(y)|^2 / (4 h T)
    back = jnp.sum((state.y - y + h * proposal.grad) ** 2)
    forth = jnp.sum((y - state.y + h * state.grad) ** 2)
    log_alpha = state.energy - proposal.energy + (forth - back) / (4 * h)
    log_alpha = log_alpha / temperature
    if bounds is not None:
        inside = jnp.all(jnp.abs(y) <= bounds)
        log_alpha = jnp.where(inside, log_alpha, -jnp.inf)
    # A barrier can make the proposal's energy or gradient NaN: that is a rejection, and
    # one NaN would hide the acceptance of the whole chain.
    log_alpha = jnp.where(jnp.isnan(log_alpha), -jnp.inf, log_alpha)
    # h = 0 proposes the state itself: 0 / 0 above, and nothing to accept.
    alpha = jnp.where(h > 0, jnp.exp(jnp.minimum(log_alpha, 0.0)), 1.0)
    accepted = jax.random.uniform(key_accept) < alpha
    chosen = jax.tree.map(partial(jnp.where, accepted), proposal, state)
    return chosen, alpha, state.energy


def _energy_and_clipped_grad(energy_fn, grad_clip, needs_energy, y):
    """E, 0 if nobody needs it, and dE/dy."""
    if needs_energy:
        energy, grad = jax.value_and_grad(energy_fn)(y)
    else:
        energy, grad = jnp.zeros((), y.dtype), gradient(energy_fn)(y)
    if grad_clip is not None:
        grad = jnp.clip(grad, -grad_clip, grad_clip)
    return energy, grad


def _rms(array: Array) -> Array:
    return jnp.sqrt(jnp.mean(array**2))
