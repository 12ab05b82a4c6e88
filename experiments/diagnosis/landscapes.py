"""What an energy looks like around the truth, its negatives and its answers.

Functions of arrays: a phase, parameters and rows in, figures of each row out. The
caller jits. Energies are in nats, U = E / s_t, whatever the run's own unit is.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ired_jax import boxes, diffusion, losses, trees
from ired_jax.negatives.base import BoxFn, box_of, elements_of, q_sample, still
from ired_jax.objectives.contrast import Contrast
from ired_jax.types import Array, Example, Params, Tree, bind, scaled

NUM_POINTS = 33  # of a straight line, both ends included
SMALLEST_MOVE = 1e-3  # of the graded perturbations, in units of the answers' spread


class Pairs(NamedTuple):
    """Positives and negatives of one level, [N] each; trees have leaves [N, ...]."""

    u_pos: Array  # nats
    u_neg: Array  # nats
    saturated: Array  # 1 where sigmoid((U+ - U-) / tau) < .01
    grad_pos: Array  # mean square over elements of grad_y E
    grad_neg: Array
    width: Array  # mean square over elements of (y- - a_t y_0) / s_t
    acceptance: Array  # of the negatives' moves
    displacement: Array  # as in `ChainInfo`
    denoised_pos: Tree  # predict_start, within the box
    denoised_neg: Tree
    y: Tree  # the negatives, in y_t space


def pairs(
    phase: Contrast,
    params: Params,
    key: Array,
    rows: Example,
    t: Array,
    *,
    box: BoxFn,
    progress: Array | float = 1.0,
) -> Pairs:
    """The pairs that a run's strategy makes of rows at one level.

    Its energy is looked at; its strategy and units make the negatives, from fresh
    starts: the rows of a replay buffer are not held-out ones. Levels, filter and weight
    are not looked at. `rows` have leaves [N, ...], `t` is () int32, `box` that of the
    denoised answers, `progress` the share of the run done.
    """
    schedule, (x, y0) = phase.schedule, rows
    key_noise, key_start, key_chain = jax.random.split(key, 3)
    levels = jnp.broadcast_to(t, len(jax.tree.leaves(y0)[0]))
    eps = still(box, x, trees.normal(key_noise, y0))
    rows = {"x": x, "y0": y0, "t": levels, "eps": eps}
    temperature = diffusion.temperature(schedule, t)

    def landscape(x, t):
        return scaled(bind(phase.chain_energy, params, x, t), phase.units.scale(t))

    def look(x, y):
        energy, grad = jax.value_and_grad(bind(phase.energy, params, x, t))(y)
        denoised = diffusion.predict_start(schedule, y, t, grad)
        denoised = boxes.clip(box_of(box, x), denoised)
        square = boxes.mean_free(box_of(box, x), trees.squares(grad))
        return energy / temperature, square, denoised

    def width(x, y, y0):
        moved = jax.tree.map(
            lambda y, y0: (y - schedule.a[t] * y0) / schedule.s[t], y, y0
        )
        return boxes.mean_free(box_of(box, x), trees.squares(moved))

    start = phase.strategy.start(key_start, rows, progress)
    y, chain = phase.strategy.refine(key_chain, landscape, rows, start, progress)
    u_pos, grad_pos, denoised_pos = jax.vmap(look)(
        x, q_sample(schedule, y0, levels, eps)
    )
    u_neg, grad_neg, denoised_neg = jax.vmap(look)(x, y)
    tau = phase.pair_loss.tau(elements_of(box, {"x": x, "y": y})) / phase.factor
    return Pairs(
        *(u_pos, u_neg, losses.saturation(u_pos, u_neg, tau=tau)),
        *(grad_pos, grad_neg, jax.vmap(width)(x, y, y0)),
        *(chain.acceptance, chain.displacement),
        *(denoised_pos, denoised_neg, y),
    )


def perturbed(key: Array, rows: Example, box: BoxFn, count: int) -> Tree:
    """The truth moved by graded random steps: leaves [N, ...] -> [N, count, ...].

    Step k is normal noise of SMALLEST_MOVE .. 1 times the root mean square of y0, from
    one to the next by the same factor: answers from nearly right to plainly wrong.
    """
    spread = trees.rms(rows.y)
    scale = spread * jnp.geomspace(SMALLEST_MOVE, 1.0, count)
    repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf[:, None], count, 1), rows.y)
    noise = trees.normal(key, repeated)

    def move(x, y0, noise):
        def one(y0, noise, scale):
            noise = boxes.still(box_of(box, x), noise)
            return jax.tree.map(lambda y, e: y + scale * e, y0, noise)

        return jax.vmap(one)(y0, noise, scale)

    return jax.vmap(move)(rows.x, repeated, noise)


def candidate_energies(
    phase: Contrast, params: Params, x: Tree, answers: Tree, t: Array
) -> Array:
    """U of each answer, taken to level t without noise: [N, C, ...] -> [N, C], nats.

    An answer y_0 stands at a_t y_0, the minimum of the landscape that it is right in.
    """
    a = phase.schedule.a[t]

    def one(x, answers):
        energy_fn = bind(phase.energy, params, x, t)
        return jax.vmap(energy_fn)(jax.tree.map(lambda y: a * y, answers))

    return jax.vmap(one)(x, answers) / diffusion.temperature(phase.schedule, t)


def line_energies(
    phase: Contrast, params: Params, x: Tree, ends: tuple[Tree, Tree], t: Array
) -> Array:
    """U along the straight line between two points of level t: [N, NUM_POINTS], nats.

    `ends` are the first and the last point, leaves [N, ...] in y_t space.
    """

    def one(x, first, last):
        energy_fn = bind(phase.energy, params, x, t)

        def at(share):
            return energy_fn(
                jax.tree.map(lambda a, b: (1 - share) * a + share * b, first, last)
            )

        return jax.vmap(at)(jnp.linspace(0.0, 1.0, NUM_POINTS))

    scale = diffusion.temperature(phase.schedule, t)
    return jax.vmap(one)(x, *ends) / scale
