"""An energy on Sudoku boards that has the game's symmetries, for y in +-1 one-hot.

    E = sum over free elements (y - a_t F(x, y, t))^2 / (2 s_t),    F = 2 softmax(h) - 1

F is a network on features [row, column, digit, channel]: each layer mixes an entry with
the means over its row, its column, its block and the digits of its cell, and no layer
knows which row, column or digit it is in. So E(g x, g y) = E(x, y) for every symmetry g
of the game. Its few layers are applied again and again, `rounds` times, with the answer
so far as an input; hard boards need rounds rather than width. FiLM tells the level.
Where F does not depend on y the denoised answer is F itself; givens are put in for y,
so there is no gradient at them.

Source: this project; means over units as in Palm et al., arXiv 1711.08028.
"""

from collections.abc import Callable
from typing import Annotated

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from ired_jax.diffusion import Schedule
from ired_jax.energies.aimed import around, first_state
from ired_jax.fields import Field
from ired_jax.types import Array, Box, Energy, Params


class Layer(nn.Module):
    """h [9, 9, 9, c] -> h + change; gain and bias [c] are those of the level."""

    channels: int

    def setup(self):
        def linear(use_bias=False):
            return nn.Dense(self.channels, use_bias=use_bias)

        self.norm = nn.LayerNorm()
        self.entry, self.block, self.cell = linear(True), linear(), linear()
        self.line = linear()  # of rows and columns alike: transposing is a symmetry
        self.out = linear(True)

    def __call__(self, h: Array, gain: Array, bias: Array) -> Array:
        gain, bias = (v.reshape(1, 1, 1, -1) for v in (gain, bias))
        z = self.norm(h)
        # A mean first and the product then: a product of a ninth of the entries.
        block = self.block(z.reshape(3, 3, 3, 3, *z.shape[2:]).mean((1, 3)))
        mixed = (
            self.entry(z)
            + self.line(z.mean(0, keepdims=True))
            + self.line(z.mean(1, keepdims=True))
            + self.cell(z.mean(2, keepdims=True))
            + block.repeat(3, 0).repeat(3, 1)
        )
        return h + self.out(nn.swish(mixed * (1 + gain) + bias))


class Board(nn.Module):
    """(known, y [9, 9, 9], is_free [9, 9, 1], t) -> F after each round [R, 9, 9, 9]."""

    channels: int
    layers: int
    num_levels: int

    def setup(self):
        self.inputs = nn.Dense(self.channels)
        self.stack = [Layer(self.channels) for _ in range(self.layers)]
        self.levels = nn.Embed(self.num_levels, 2 * self.layers * self.channels)
        self.norm, self.head = nn.LayerNorm(), nn.Dense(1)

    def __call__(
        self, known: Array, y: Array, is_free: Array, t: Array, rounds: int
    ) -> Array:
        levels = self.levels(t).reshape(self.layers, 2, self.channels)
        is_free = jnp.broadcast_to(is_free, y.shape).astype(y.dtype)
        h = is_free[..., None] * first_state(y, self.channels)
        answer, answers = known, []
        for _ in range(rounds):
            seen = jnp.stack([known, y, answer, is_free], -1)
            h = h + self.inputs(seen)
            for layer, (gain, bias) in zip(self.stack, levels, strict=True):
                h = layer(h, gain, bias)
            logits = self.head(self.norm(h))[..., 0]
            digits = 2 * jax.nn.softmax(logits, axis=-1) - 1
            answer = jnp.where(is_free > 0, digits, known)
            answers.append(answer)
        return jnp.stack(answers)


def make_board(
    schedule: Schedule,
    box: Callable[[Array], Box],
    *,
    channels: Annotated[int, Field("features of an entry", at_least=1)] = 32,
    layers: Annotated[int, Field("layers of a round", at_least=1)] = 4,
    rounds: Annotated[int, Field("times they are applied", at_least=1)] = 6,
) -> Energy:
    """Makes the energy: x [9, 9] digits, 0 where unknown, y [9, 9, 9], t () -> ().

    With the defaults 23,000 parameters. E >= 0.

    Raises:
      ValueError: a size below 1.
    """
    if min(channels, layers, rounds) < 1:
        raise ValueError(
            f"channels={channels}, layers={layers}, rounds={rounds}: at least 1 each"
        )
    network = Board(channels, layers, schedule.num_levels)

    def inputs(x: Array, y: Array) -> tuple[Array, Array, Array]:
        chex.assert_shape([x, y], [(9, 9), (9, 9, 9)])
        is_free = (x == 0)[..., None]
        known = jnp.where(is_free, 0.0, 2 * jax.nn.one_hot(x - 1, 9) - 1)
        return known, y, is_free

    def init(key: Array) -> Params:
        given, y = jnp.zeros((9, 9), jnp.int8), jnp.zeros((9, 9, 9))
        return network.init(key, *inputs(given, y), jnp.int32(0), 1)["params"]

    def answers(params: Params, x: Array, y: Array, t: Array, rounds: int) -> Array:
        return network.apply({"params": params}, *inputs(x, y), t, rounds)

    return around(schedule, box, init, answers, rounds)
