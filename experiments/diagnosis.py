"""What an energy looks like around the truth, its negatives and its answers.

Functions of arrays: a problem, parameters and rows in, figures of each row out. The
caller jits. Energies are in nats, U = E / s_t, whatever the run's own unit is.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ired_jax import diffusion, losses
from ired_jax.training import Contrast, Problem
from ired_jax.types import Array, Params, bind, scaled

NUM_POINTS = 33  # of a straight line, both ends included
SMALLEST_MOVE = 1e-3  # of the graded perturbations, in units of the answers' spread


class Pairs(NamedTuple):
    """Positives and negatives of one level, each [N] but where it says [N, D]."""

    u_pos: Array  # nats
    u_neg: Array  # nats
    saturated: Array  # 1 where sigmoid((U+ - U-) / tau) < .01
    grad_pos: Array  # mean square over elements of grad_y E
    grad_neg: Array
    width: Array  # mean square over elements of (y- - a_t y_0) / s_t
    acceptance: Array  # of the negatives' moves
    displacement: Array  # root mean square over elements of end - start
    residual_pos: Array  # of the denoised positive
    residual_neg: Array
    denoised_pos: Array  # [N, D] predict_start, within the bounds
    denoised_neg: Array  # [N, D]
    y: Array  # [N, D] the negatives, in y_t space


def pairs(
    problem: Problem,
    contrast: Contrast,
    params: Params,
    key: Array,
    rows: tuple[Array, Array],
    t: Array,
    *,
    bounds: Array | float,
    progress: Array | float = 1.0,
) -> Pairs:
    """The pairs that a run's strategy makes of rows at one level.

    Args:
      problem: energy, schedule and residual.
      contrast: its strategy and units make the negatives, from fresh starts: the rows
        of a replay buffer are not held-out ones. Levels, filter and weight are not
        looked at.
      params: held.
      key: of noise, starts and chains.
      rows: x [N, Dx] and y_0 [N, D].
      t: () int32, the level.
      bounds: half-width of the box of the denoised answers.
      progress: share of the run done, for strategies that change with it.
    """
    schedule, (x, y0) = problem.schedule, rows
    key_noise, key_start, key_chain = jax.random.split(key, 3)
    levels = jnp.broadcast_to(t, len(x))
    eps = jax.random.normal(key_noise, y0.shape)
    rows = {"x": x, "y0": y0, "t": levels, "eps": eps}

    def landscape(x, t):
        energy_fn = bind(problem.energy, params, x, t)
        scale = diffusion.temperature(schedule, t) if contrast.in_nats else 1.0
        return scaled(energy_fn, scale)

    def look(x, y):
        energy, grad = jax.value_and_grad(bind(problem.energy, params, x, t))(y)
        denoised = diffusion.predict_start(schedule, y, t, grad)
        denoised = jnp.clip(denoised, -bounds, bounds)
        nats = energy / diffusion.temperature(schedule, t)
        return nats, jnp.mean(grad**2), problem.residual(x, denoised), denoised

    start = contrast.strategy.start(key_start, rows, progress)
    y, chain = contrast.strategy.refine(key_chain, landscape, rows, start, progress)
    y_pos = jax.vmap(partial(diffusion.q_sample, schedule))(y0, levels, eps)
    u_pos, grad_pos, residual_pos, denoised_pos = jax.vmap(look)(x, y_pos)
    u_neg, grad_neg, residual_neg, denoised_neg = jax.vmap(look)(x, y)
    return Pairs(
        u_pos=u_pos,
        u_neg=u_neg,
        saturated=losses.saturation(u_pos, u_neg, tau=contrast.tau),
        grad_pos=grad_pos,
        grad_neg=grad_neg,
        width=jnp.mean(((y - schedule.a[t] * y0) / schedule.s[t]) ** 2, axis=1),
        acceptance=chain.acceptance,
        displacement=chain.displacement,
        residual_pos=residual_pos,
        residual_neg=residual_neg,
        denoised_pos=denoised_pos,
        denoised_neg=denoised_neg,
        y=y,
    )


def perturbed(key: Array, y0: Array, count: int) -> Array:
    """The truth moved by graded random steps: [N, D] -> [N, count, D].

    Step k is normal noise of SMALLEST_MOVE .. 1 times the root mean square of y0, from
    one to the next by the same factor: answers from nearly right to plainly wrong.
    """
    spread = jnp.sqrt(jnp.mean(y0**2))
    scale = spread * jnp.geomspace(SMALLEST_MOVE, 1.0, count)
    noise = jax.random.normal(key, (len(y0), count, y0.shape[1]))
    return y0[:, None, :] + scale[None, :, None] * noise


def candidate_energies(
    problem: Problem, params: Params, x: Array, answers: Array, t: Array
) -> Array:
    """U of each answer, taken to level t without noise: [N, C, D] -> [N, C], nats.

    An answer y_0 stands at a_t y_0, the minimum of the landscape that it is right in.
    """
    schedule = problem.schedule

    def one(x, answers):
        energy_fn = bind(problem.energy, params, x, t)
        return jax.vmap(energy_fn)(schedule.a[t] * answers)

    return jax.vmap(one)(x, answers) / diffusion.temperature(schedule, t)


def line_energies(
    problem: Problem, params: Params, x: Array, ends: tuple[Array, Array], t: Array
) -> Array:
    """U along the straight line between two points of level t: [N, NUM_POINTS], nats.

    `ends` are the first and the last point, each [N, D] in y_t space.
    """
    share = jnp.linspace(0.0, 1.0, NUM_POINTS)[:, None]

    def one(x, first, last):
        energy_fn = bind(problem.energy, params, x, t)
        return jax.vmap(energy_fn)((1 - share) * first[None] + share * last[None])

    scale = diffusion.temperature(problem.schedule, t)
    return jax.vmap(one)(x, *ends) / scale
