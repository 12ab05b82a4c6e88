"""The published energy on Sudoku boards: convolutions over the 9 x 9 cells.

    E = |O(x, y, t)|^2

O is a residual network whose channels are digits at first and at last: a convolution of
width 3, blocks of two of width 5, one of width 1, zeros around the board. Rows and
columns are near or far as on a picture, digits are 18 channels: of the game's
symmetries it has none. Each block's second convolution is modulated by the level. The
network is kept exactly, to be compared with: also that the first convolution of a block
is not modulated, that the second starts at almost nothing, and that givens stand in y
as a_t times what they are, whatever y holds there, so there is no gradient at them.

Source: Du, Mao, Tenenbaum, arXiv 2406.11179, section 5.2, and `SudokuEBM` of the
released code (github.com/yilundu/ired_code_release, models.py), without the attention
that it makes and does not use.
"""

from typing import Annotated

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from ired_jax.diffusion import Schedule
from ired_jax.energies.mlp import linear, sinusoid, uniform_fan_in
from ired_jax.energies.modules import Module, refuse_below_one
from ired_jax.fields import of_depth, of_size
from ired_jax.types import Array, Energy, Params

WAVES, TIME_WIDTH = 128, 64
ALMOST_NOTHING = 1e-5
DIGITS = 9


def _convolution(features: int, size: int, inputs: int, kernel_init=None) -> nn.Conv:
    """Of size x size with zeros around; weights and biases start as in PyTorch."""
    init = uniform_fan_in(size * size * inputs)
    return nn.Conv(
        features, (size, size), kernel_init=kernel_init or init, bias_init=init
    )


class Block(Module):
    """(h [9, 9, c], level [TIME_WIDTH]) -> h + change, which knows the level."""

    channels: int

    def setup(self):
        almost_nothing = nn.initializers.normal(ALMOST_NOTHING)
        self.first = _convolution(self.channels, 5, self.channels)
        self.second = _convolution(self.channels, 5, self.channels, almost_nothing)
        self.modulate = linear(2 * self.channels, TIME_WIDTH)

    def __call__(self, h: Array, level: Array) -> Array:
        gain, bias = jnp.split(self.modulate(level).reshape(1, 1, -1), 2, axis=-1)
        change = self.second(nn.swish(self.first(h)))
        return h + nn.swish(change * (1 + gain) + bias)


class Convolutional(Module):
    """(known, y [9, 9, 9], t) -> O [9, 9, 9]."""

    channels: int
    blocks: int

    def setup(self):
        self.time_first = linear(TIME_WIDTH, WAVES)
        self.time_second = linear(TIME_WIDTH, TIME_WIDTH)
        self.inputs = _convolution(self.channels, 3, 2 * DIGITS)
        self.stack = [Block(self.channels) for _ in range(self.blocks)]
        self.head = _convolution(DIGITS, 1, self.channels)

    def __call__(self, known: Array, y: Array, t: Array) -> Array:
        waves = nn.gelu(self.time_first(sinusoid(t, WAVES)), approximate=False)
        level = self.time_second(waves)
        h = nn.swish(self.inputs(jnp.concatenate([known, y], axis=-1)))
        for block in self.stack:
            h = block(h, level)
        return self.head(h)


def make_convolutional(
    schedule: Schedule,
    *,
    channels: Annotated[int, of_size("features of a cell")] = 384,
    blocks: Annotated[int, of_depth("residual blocks")] = 6,
) -> Energy:
    """Makes the energy: x [9, 9] digits, 0 where unknown, y [9, 9, 9], t () -> ().

    With the defaults 44,619,401 parameters, 25 channels^2 of them for each convolution
    of a block. E >= 0.

    Raises:
      ValueError: a size below 1.
    """
    refuse_below_one(channels=channels, blocks=blocks)
    network = Convolutional(channels, blocks)

    def init(key: Array) -> Params:
        board = jnp.zeros((DIGITS, DIGITS, DIGITS))
        return network.init(key, board, board, jnp.int32(0))["params"]

    def apply(params: Params, x: Array, y: Array, t: Array) -> Array:
        chex.assert_shape([x, y, t], [(9, 9), (9, 9, 9), ()])
        known = 2 * jax.nn.one_hot(x.astype(int) - 1, DIGITS) - 1
        seen = jnp.where((x == 0)[..., None], y, schedule.a[t] * known)
        return jnp.sum(network.apply({"params": params}, known, seen, t) ** 2)

    return Energy(init, apply)
