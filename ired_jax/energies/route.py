"""An energy on paths through a graph of any number of nodes, y [steps, n] in +-1.

    E = sum over free elements (y - a_t F(x, y, t))^2 / (2 s_t),  F = 2 softmax(l) - 1

F is a network on features of times by nodes, h_li. Each layer mixes an element with
what its neighbours have: those to which an edge leads and those from which one comes,
at the same time, the time before and the time after. From many neighbours comes "some
of them has it", bounded whatever their number:

    1 - exp(-sum_j A_ij b_lj),    b = sigmoid(linear(h)) in (0, 1)

Its few layers are applied again and again, `rounds` times, with the answer so far as an
input. Start and goal are marked at all times. No layer knows which node is which, so E
is the same in every order of the nodes; times differ by their ends only. FiLM tells the
level. What is known is put in for y: no gradient there.

Source: this project.
"""

from collections.abc import Callable
from typing import Annotated

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from ired_jax.diffusion import Schedule
from ired_jax.energies.aimed import Answering, Levels, around, first_state, in_rounds
from ired_jax.energies.modules import Dense, Module, refuse_below_one
from ired_jax.fields import Field, Part, of_depth, of_size
from ired_jax.types import Array, Box, Energy, Example, Params, Tree

ANSWERING = Answering(rounds=8)
RARE = -2.0  # first bias of b: sums over neighbours begin far from 1


class Layer(Module):
    """h [steps, n, c] -> h + change; gain and bias [c] are those of the level."""

    channels: int

    def setup(self):
        def linear(use_bias=False):
            return Dense(self.channels, use_bias=use_bias)

        self.norm = nn.LayerNorm()
        self.sent = Dense(6 * self.channels, bias_init=nn.initializers.constant(RARE))
        self.mixed, self.out = linear(True), linear(True)

    def __call__(self, h: Array, edges: Array, gain: Array, bias: Array) -> Array:
        gain, bias = (v.reshape(1, 1, -1) for v in (gain, bias))
        z = self.norm(h)
        ahead, back = jnp.split(nn.sigmoid(self.sent(z)), 2, axis=-1)
        # [i, j] an edge from i to j: what i hears from where it leads, and j from i.
        found = [
            jnp.einsum("ij,ljc->lic", edges, ahead),
            jnp.einsum("ji,ljc->lic", edges, back),
        ]
        some = [_of_times(-jnp.expm1(-part)) for part in found]
        around = _of_times(jnp.tile(z, 3))
        mixed = self.mixed(jnp.concatenate([around, *some], axis=-1))
        return h + self.out(nn.swish(mixed * (1 + gain) + bias))


def _of_times(parts: Array) -> Array:
    """Thirds of [steps, n, 3 c]: of the time itself, of the next, of the one before."""
    own, after, before = jnp.split(parts, 3, axis=-1)
    none = jnp.zeros_like(own[:1])
    after = jnp.concatenate([after[1:], none])
    before = jnp.concatenate([none, before[:-1]])
    return jnp.concatenate([own, after, before], axis=-1)


class Route(Module):
    """(x, y [steps, n], t) -> F after each round [R, steps, n]."""

    channels: int
    layers: int
    num_levels: int

    def setup(self):
        self.inputs = Dense(self.channels)
        self.stack = [Layer(self.channels) for _ in range(self.layers)]
        self.levels = Levels(self.num_levels, self.layers, self.channels)
        self.norm, self.head = nn.LayerNorm(), Dense(1)

    def __call__(
        self, edges: Array, ends: Array, y: Array, t: Array, rounds: int
    ) -> Array:
        steps, n = y.shape
        is_first = jnp.arange(steps) == 0
        is_last = jnp.arange(steps) == steps - 1
        times = jnp.stack([is_first, is_last], -1).astype(y.dtype)
        marks = jnp.concatenate(
            [
                jnp.broadcast_to(ends[None], (steps, n, 2)),
                jnp.broadcast_to(times[:, None], (steps, n, 2)),
            ],
            axis=-1,
        )
        is_free = (~is_first).astype(y.dtype)[:, None]
        known = (1 - is_free) * (2 * ends[None, :, 0] - 1)

        def step(network: Route, h: Array, answer: Array) -> tuple[Array, Array]:
            seen = jnp.concatenate([marks, jnp.stack([y, answer], -1)], axis=-1)
            h, levels = h + network.inputs(seen), network.levels(t)
            for layer, (gain, bias) in zip(network.stack, levels, strict=True):
                h = layer(h, edges, gain, bias)
            logits = network.head(network.norm(h))[..., 0]
            return h, known + is_free * (2 * jax.nn.softmax(logits, axis=-1) - 1)

        h = is_free[..., None] * first_state(y, self.channels)
        return in_rounds(self, step, (h, known), rounds)


def make_route(
    example: Example,
    schedule: Schedule,
    box: Callable[[Tree], Box],
    *,
    channels: Annotated[int, of_size("features of a node at a time")] = 32,
    layers: Annotated[int, of_depth("layers of a round")] = 2,
    rounds: Annotated[
        int, Field("times they are applied", at_least=1, at_most=1000)
    ] = 5,
    answering: Annotated[Answering, Part(Answering)] = ANSWERING,
) -> Energy:
    """Makes the energy: x (adjacency [n, n], start, goal), y [steps, n], t () -> ().

    With the defaults 35,000 parameters, for every n and every number of steps. E >= 0.

    Args:
      example: shapes and dtypes of one, for the first parameters.
      schedule: the levels.
      box: of the task.
      channels, layers, rounds: of the network.
      answering: how it is used at inference.

    Raises:
      ValueError: a size below 1.
    """
    refuse_below_one(channels=channels, layers=layers, rounds=rounds)
    network = Route(channels, layers, schedule.num_levels)

    def inputs(x: Tree, y: Array) -> tuple[Array, Array, Array]:
        adjacency, start, goal = x
        n = len(adjacency)
        chex.assert_shape([adjacency, y], [(n, n), (None, n)])
        ends = jax.nn.one_hot(jnp.stack([start, goal]), n, axis=0)
        return (adjacency != 0).astype(y.dtype), ends, y

    def init(key: Array) -> Params:
        x, y = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), example)
        return network.init(key, *inputs(x, y), jnp.int32(0), 1)["params"]

    def answers(params: Params, x: Tree, y: Array, t: Array, rounds: int) -> Array:
        return network.apply({"params": params}, *inputs(x, y), t, rounds)

    return around(schedule, box, init, answers, rounds, answering)
