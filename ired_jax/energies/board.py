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
from ired_jax.energies.aimed import Answering, around, first_state
from ired_jax.fields import Field, Part
from ired_jax.types import Array, Box, Energy, Params

ANSWERING = Answering(rounds=12)


class Layer(nn.Module):
    """h [3, 3, 3, 3, 9, c] -> h + change; gain and bias [c] are those of the level."""

    channels: int

    def setup(self):
        def linear(use_bias=False):
            return nn.Dense(self.channels, use_bias=use_bias)

        self.entry, self.block, self.cell = linear(True), linear(), linear()
        self.line = linear()  # of rows and columns alike: transposing is a symmetry
        self.out = linear(True)

    def __call__(self, h: Array, gain: Array, bias: Array) -> Array:
        z = normalised(h)

        def mean(axes):  # first the mean, then the product: of a ninth of the entries
            return z.mean(axes, keepdims=True)

        mixed = (
            self.entry(z)
            + self.line(mean((0, 1)))
            + self.line(mean((2, 3)))
            + self.block(mean((1, 3)))
            + self.cell(mean(4))
        )
        return h + self.out(bend(mixed * (1 + _wide(gain)) + _wide(bias)))


class Board(nn.Module):
    """(known, y, is_free, t, R) -> F after each round [R, ..].

    Arrays are [band, row, stack, column, digit], [3, 3, 3, 3, 9]: all units are axes.
    """

    channels: int
    layers: int
    num_levels: int

    def setup(self):
        self.inputs = nn.Dense(self.channels)
        self.stack = [Layer(self.channels) for _ in range(self.layers)]
        # Two at least: of a single embedding flax returns all.
        count = max(2, self.num_levels)
        self.levels = nn.Embed(count, 2 * self.layers * self.channels)
        self.head = nn.Dense(1)

    def __call__(
        self, known: Array, y: Array, is_free: Array, t: Array, rounds: int
    ) -> Array:
        levels = self.levels(t).reshape(self.layers, 2, self.channels)
        h = is_free[..., None] * first_state(y, self.channels)
        answer, answers = known, []
        for _ in range(rounds):
            h = h + self.inputs(jnp.stack([known, y, answer, is_free], -1))
            for layer, (gain, bias) in zip(self.stack, levels, strict=True):
                h = layer(h, gain, bias)
            logits = self.head(normalised(h))[..., 0]
            digits = 2 * jax.nn.softmax(logits, axis=-1) - 1
            answer = jnp.where(is_free > 0, digits, known)
            answers.append(answer)
        return jnp.stack(answers)


def normalised(h: Array) -> Array:
    """h over its root mean square over channels, without weights: the next has them."""
    return h * jax.lax.rsqrt(jnp.mean(h**2, -1, keepdims=True) + 1e-6)


def bend(h: Array) -> Array:
    """h / 2 (1 + h / sqrt(1 + h^2)), like swish, without its costly exponential."""
    return h / 2 * (1 + h * jax.lax.rsqrt(1 + h**2))


def _wide(v: Array) -> Array:
    return v.reshape(1, 1, 1, 1, 1, -1)


def make_board(
    schedule: Schedule,
    box: Callable[[Array], Box],
    *,
    channels: Annotated[int, Field("features of an entry", at_least=1)] = 32,
    layers: Annotated[int, Field("layers of a round", at_least=1)] = 4,
    rounds: Annotated[int, Field("times they are applied", at_least=1)] = 6,
    answering: Annotated[Answering, Part(Answering)] = ANSWERING,
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

    def inputs(x: Array, y: Array) -> list[Array]:
        chex.assert_shape([x, y], [(9, 9), (9, 9, 9)])
        is_free = jnp.broadcast_to((x == 0)[..., None], y.shape)
        known = jnp.where(is_free, 0.0, 2 * jax.nn.one_hot(x - 1, 9) - 1)
        arrays = known, y, is_free.astype(y.dtype)
        return [array.reshape(3, 3, 3, 3, 9) for array in arrays]

    def init(key: Array) -> Params:
        given, y = jnp.zeros((9, 9), jnp.int8), jnp.zeros((9, 9, 9))
        return network.init(key, *inputs(given, y), jnp.int32(0), 1)["params"]

    def answers(params: Params, x: Array, y: Array, t: Array, rounds: int) -> Array:
        found = network.apply({"params": params}, *inputs(x, y), t, rounds)
        return found.reshape(rounds, 9, 9, 9)

    return around(schedule, box, init, answers, rounds, answering)
