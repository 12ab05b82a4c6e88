"""Energies around what a network proposes, for answers of which a part may be known.

    E = sum over free elements of (y - a_t F(x, y, t))^2 / (2 s_t)

F is applied in rounds and proposes an answer after each; the last one counts. Where F
does not depend on y the denoised answer is F itself, so training starts as a denoiser.
The gradient of F is the part that only an energy has. Known elements are put in for y:
no gradient there. Source: this project.
"""

from collections.abc import Callable
from typing import Annotated, NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from ired_jax import boxes, trees
from ired_jax.diffusion import Schedule
from ired_jax.energies.modules import Module
from ired_jax.fields import Field
from ired_jax.types import Array, Box, Energy, Params, Tree

Rounds = Callable[[Params, Tree, Tree, Array, int], Tree]  # -> answers, [R, ...]
# So many rounds, those of a training, are written out: a gradient through a loop is
# slower. More of them, those of inference, are a loop, or would compile for minutes.
UNROLLED = 6


class Levels(Module):
    """t () -> what each layer is told of the level, a gain and a bias: [layers, 2, c].

    Source: FiLM, Perez et al., arXiv 1709.07871.
    """

    num_levels: int
    layers: int
    channels: int

    @nn.compact
    def __call__(self, t: Array) -> Array:
        shape = (self.num_levels, 2 * self.layers * self.channels)
        start = nn.linear.default_embed_init
        table = self.param("embedding", start, shape)
        return table[t].reshape(self.layers, 2, self.channels)


class Answering(NamedTuple):
    """How the energy is used at inference."""

    rounds: Annotated[
        int,
        Field(
            "of the energy's network; 0: as in training",
            at_least=0,
            at_most=1_000_000,
            group="eval",
        ),
    ] = 0
    first_rounds: Annotated[
        int,
        Field(
            "of it at the level that an answer begins at; 0: as at the others",
            at_least=0,
            at_most=1_000_000,
            group="eval",
        ),
    ] = 0
    denoise: Annotated[
        str,
        Field(
            "y_0 of a level by the gradient of E, or F itself (a third of the work)",
            one_of=("gradient", "proposal"),
            group="eval",
        ),
    ] = "proposal"
    choose: Annotated[
        str,
        Field(
            "of several answers that of least energy, or least doubt sum(1 - y_0^2)",
            one_of=("energy", "doubt"),
            group="eval",
        ),
    ] = "energy"


def around(
    schedule: Schedule,
    box: Callable[[Tree], Box] | None,
    init: Callable[[Array], Params],
    answers: Rounds,
    rounds: int,
    answering: Answering | None = None,
) -> Energy:
    """The energy around a network; E >= 0.

    Args:
      schedule: the levels.
      box: of the task, says which elements are known.
      init: key -> parameters, whatever the number of rounds.
      answers: (params, x, y, t, rounds) -> an answer after each round, leaves
        [rounds, ...]. The y that it gets is 0 at known elements; what it says there is
        replaced by what is known.
      rounds: how many.
      answering: how it is used at inference; None: as any energy.

    Raises:
      ValueError: rounds < 1.
    """
    if rounds < 1:
        raise ValueError(f"energy.rounds={rounds}: must be at least 1")

    num_levels = schedule.num_levels
    energy, _ = _around(schedule, box, init, answers, (rounds,) * num_levels)
    if answering is None:
        return energy
    deep = answering.rounds or rounds
    by_level = (deep,) * (num_levels - 1) + (answering.first_rounds or deep,)
    deeper, aim = _around(schedule, box, init, answers, by_level)
    if answering.denoise == "proposal":
        deeper = deeper._replace(denoise=aim)
    if answering.choose == "doubt":
        deeper = deeper._replace(score=_doubt)
    return energy._replace(answering=deeper)


def _around(
    schedule: Schedule,
    box: Callable[[Tree], Box] | None,
    init: Callable[[Array], Params],
    answers: Rounds,
    rounds: tuple[int, ...],
) -> tuple[Energy, Callable[[Params, Tree, Tree, Array], Tree]]:
    """The energy with so many rounds by level, the same below level T-1; and its F."""
    first, others, last = rounds[-1], rounds[0], schedule.num_levels - 1

    def propose(params: Params, x: Tree, y: Tree, t: Array, rounds=others) -> Tree:
        bounds = box(x) if box else None
        found = answers(params, x, boxes.still(bounds, y), t, rounds)
        return jax.vmap(lambda answer: boxes.hold(bounds, answer))(found)

    def aim(params: Params, x: Tree, y: Tree, t: Array) -> Tree:
        def after(rounds: int) -> Tree:
            found = propose(params, x, y, t, rounds)
            return jax.tree.map(lambda leaf: leaf[-1], found)

        if first == others:
            return after(others)
        return jax.lax.cond(t == last, lambda: after(first), lambda: after(others))

    def apply(params: Params, x: Tree, y: Tree, t: Array) -> Array:
        chex.assert_rank(t, 0)
        answer = aim(params, x, y, t)
        gap = jax.tree.map(lambda y, aim: y - schedule.a[t] * aim, y, answer)
        gap = boxes.still(box(x) if box else None, gap)
        return trees.total(trees.squares(gap)) / (2 * schedule.temperature[t])

    return Energy(init, apply, propose=propose, rounds=rounds), aim


def _doubt(params: Params, x: Tree, y0: Tree) -> Array:
    """sum (1 - y_0^2): 0 where every element is +-1, what a network calls certain."""
    del params, x
    return trees.total(jax.tree.map(lambda leaf: 1 - leaf**2, y0))


def in_rounds(
    network: nn.Module,
    step: Callable[[nn.Module, Array, Array], tuple[Array, Array]],
    first: tuple[Array, Array],
    rounds: int,
) -> Array:
    """The answers of a recurrent network after each round: [R, ...].

    Args:
      network: a module inside one of its own methods.
      step: (network, state, answer) -> (state, answer), one round. It calls the parts
        of the network that it is given, not of one that it closes over.
      first: the state and the answer before the first round.
      rounds: R.
    """

    def one(network: nn.Module, carry: tuple[Array, Array], _: None):
        carry = step(network, *carry)
        return carry, carry[1]

    if rounds > UNROLLED:
        shared = {"variable_broadcast": "params", "split_rngs": {"params": False}}
        return nn.scan(one, length=rounds, **shared)(network, first, None)[1]
    answers = []
    for _ in range(rounds):
        first, answer = one(network, first, None)
        answers.append(answer)
    return jnp.stack(answers)


def first_state(y: Array, channels: int) -> Array:
    """Noise for a network's first state, as many channels [..., c] of every y [...].

        sqrt(2) cos(w_k y + 2 pi k / golden),    w_k from 20 to 60

    Of a noised y they are as good as independent draws of variance 1, so inference
    starts each level from another state, and the network learns to reason on from
    anywhere. Each entry has its own from its own y alone: what permutes the entries
    permutes the state. No gradient flows through it: it would be that of noise.
    """
    index = jnp.arange(channels).reshape((1,) * y.ndim + (channels,))
    rates, phases = 20.0 + 40.0 * index / channels, 2 * jnp.pi * 0.618034 * index
    held = jnp.expand_dims(jax.lax.stop_gradient(y), -1)
    return jnp.sqrt(2.0) * jnp.cos(held * rates + phases)
