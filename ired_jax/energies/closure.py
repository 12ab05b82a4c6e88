"""An energy on pairs of nodes, of any number of them, for y in +-1 [n, n].

    E = sum over unknown pairs (y - a_t F(x, y, t))^2 / (2 s_t),    F = tanh(l / 2)

F is a network on features h_ij of pairs. Reachability is a closure under products, so
each layer has some, learned and bounded whatever the number of nodes between:

    p_ij = 1 - exp(-sum_k a_ik b_kj),    a, b = sigmoid(linear(h)) in (0, 1)

which is "some k has both" where a and b are near 0 or 1 (the probability that one of n
independent links exists, where they are small). Its few layers are applied again and
again, `rounds` times, with the answer so far as an input: each product may double the
length of the paths that are seen. No layer knows which node is which, so
E(P x P^T, P y P^T) = E(x, y) for every order P; an answer is symmetric as its graph is.
FiLM tells the level. What is known is put in for y: no gradient there.

Source: this project.
"""

from collections.abc import Callable
from typing import Annotated

import chex
import jax.numpy as jnp
from flax import linen as nn

from ired_jax.diffusion import Schedule
from ired_jax.energies.aimed import Answering, Levels, around, first_state, in_rounds
from ired_jax.energies.modules import Dense, Module, refuse_below_one
from ired_jax.fields import Field, Part, of_depth, of_size
from ired_jax.types import Array, Box, Energy, Params

ANSWERING = Answering(rounds=8)
RARE = -3.0  # first bias of a and b: products begin far from 1


class Layer(Module):
    """h [n, n, c] -> h + change; gain and bias [c] are those of the level."""

    channels: int

    def setup(self):
        def linear(use_bias=False):
            return Dense(self.channels, use_bias=use_bias)

        self.norm = nn.LayerNorm()
        self.entry, self.back, self.both = linear(True), linear(), linear()
        rare = nn.initializers.constant(RARE)
        self.left = Dense(self.channels, bias_init=rare)
        self.right = Dense(self.channels, bias_init=rare)
        self.out = linear(True)

    def __call__(self, h: Array, gain: Array, bias: Array) -> Array:
        gain, bias = (v.reshape(1, 1, -1) for v in (gain, bias))
        z = self.norm(h)
        left, right = (nn.sigmoid(side(z)) for side in (self.left, self.right))
        some = -jnp.expm1(-jnp.einsum("ikc,kjc->ijc", left, right))
        mixed = self.entry(z) + self.back(z.swapaxes(0, 1)) + self.both(some)
        return h + self.out(nn.swish(mixed * (1 + gain) + bias))


class Closure(Module):
    """(known, y, is_free [n, n], t) -> F after each round [R, n, n]."""

    channels: int
    layers: int
    num_levels: int

    def setup(self):
        self.inputs = Dense(self.channels)
        self.stack = [Layer(self.channels) for _ in range(self.layers)]
        self.levels = Levels(self.num_levels, self.layers, self.channels)
        self.norm, self.head = nn.LayerNorm(), Dense(1)

    def __call__(
        self, known: Array, y: Array, is_free: Array, t: Array, rounds: int
    ) -> Array:
        itself = jnp.eye(len(y), dtype=y.dtype)

        def step(network: Closure, h: Array, answer: Array) -> tuple[Array, Array]:
            h = h + network.inputs(jnp.stack([known, itself, y, answer, is_free], -1))
            levels = network.levels(t)
            for layer, (gain, bias) in zip(network.stack, levels, strict=True):
                h = layer(h, gain, bias)
            logits = network.head(network.norm(h))[..., 0]
            # tanh(l / 2) with l the mean of both directions.
            reached = jnp.tanh((logits + logits.T) / 4)
            return h, jnp.where(is_free > 0, reached, known)

        h = is_free[..., None] * first_state(y, self.channels)
        return in_rounds(self, step, (h, known), rounds)


def make_closure(
    schedule: Schedule,
    box: Callable[[Array], Box],
    *,
    channels: Annotated[int, of_size("features of a pair")] = 32,
    layers: Annotated[int, of_depth("layers of a round")] = 2,
    rounds: Annotated[
        int, Field("times they are applied", at_least=1, at_most=1000)
    ] = 4,
    answering: Annotated[Answering, Part(Answering)] = ANSWERING,
) -> Energy:
    """Makes the energy: x [n, n] a graph, y [n, n], t () -> ().

    With the defaults 13,000 parameters, for every n. E >= 0.

    Raises:
      ValueError: a size below 1.
    """
    refuse_below_one(channels=channels, layers=layers, rounds=rounds)
    network = Closure(channels, layers, schedule.num_levels)

    def inputs(x: Array, y: Array) -> tuple[Array, Array, Array]:
        chex.assert_shape([x, y], (len(x), len(x)))
        is_free = (x == 0) & ~jnp.eye(len(x), dtype=bool)
        return 1.0 - is_free, y, is_free.astype(y.dtype)

    def init(key: Array) -> Params:
        given, y = jnp.zeros((2, 2), jnp.int8), jnp.zeros((2, 2))
        return network.init(key, *inputs(given, y), jnp.int32(0), 1)["params"]

    def answers(params: Params, x: Array, y: Array, t: Array, rounds: int) -> Array:
        return network.apply({"params": params}, *inputs(x, y), t, rounds)

    return around(schedule, box, init, answers, rounds, answering)
