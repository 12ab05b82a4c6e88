"""An energy on Sudoku boards that has the game's symmetries, for y in +-1 one-hot.

    E = sum over free elements (y - a_t F(x, y, t))^2 / (2 s_t),    F = 2 softmax(h) - 1

F is a network on features [row, column, digit, channel]: each layer mixes an entry with
the means over its row, its column, its block and the digits of its cell, and no layer
knows which row, column or digit it is in. So E(g x, g y) = E(x, y) for every symmetry g
of the game. Its few layers are applied again and again, `rounds` times, with the answer
so far as an input; hard boards need rounds rather than width. FiLM tells the level. A
state that only adds up grows with the rounds, to sizes that no training has seen; a
`steady` one has unit size after each. Where F does not depend on y the denoised answer
is F itself; givens are put in for y, so there is no gradient at them.

Source: this project; means over units as in Palm et al., arXiv 1711.08028.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from ired_jax.diffusion import Schedule
from ired_jax.energies.aimed import Answering, Levels, around, first_state, in_rounds
from ired_jax.energies.modules import Dense, Module, matmul_precision, refuse_below_one
from ired_jax.fields import Field, Part, of_depth, of_size
from ired_jax.types import Array, Box, Energy, Params

ANSWERING = Answering(rounds=12)
# Axes over which an entry sees means. Rows and columns are lines alike: transposing is
# a symmetry.
UNITS = {"block": ((1, 3),), "cell": ((4,),), "line": ((0, 1), (2, 3))}
BIASED = ("entry", "out")


class Mix(Module):
    """The weights of a mix of channels [c, c], made as flax's Dense makes them."""

    channels: int
    use_bias: bool

    @nn.compact
    def __call__(self) -> Params:
        init, shape = nn.initializers.lecun_normal(), (self.channels, self.channels)
        weights = {"kernel": self.param("kernel", init, shape)}
        if self.use_bias:
            weights["bias"] = self.param("bias", nn.initializers.zeros, shape[1:])
        return weights


class Weights(Module):
    """The weights of a layer, by name; `layer` applies them."""

    channels: int

    @nn.compact
    def __call__(self) -> dict[str, Params]:
        names = ("entry", *UNITS, "out")
        return {n: Mix(self.channels, n in BIASED, name=n)() for n in names}


class Board(Module):
    """(known, y, is_free, t, R) -> F after each round [R, ..].

    Arrays are [band, row, stack, column, digit], [3, 3, 3, 3, 9]: all units are axes.
    """

    channels: int
    layers: int
    num_levels: int
    steady: bool

    def setup(self):
        self.inputs = Dense(self.channels)
        self.stack = [Weights(self.channels) for _ in range(self.layers)]
        self.levels = Levels(self.num_levels, self.layers, self.channels)
        self.head = Dense(1)

    def __call__(
        self, known: Array, y: Array, is_free: Array, t: Array, rounds: int
    ) -> Array:
        # A barrier: or the look-up is repeated inside every loop over entries.
        levels = jax.lax.optimization_barrier(self.levels(t))
        stack, steady = [weights() for weights in self.stack], self.steady

        def step(network: Board, h: Array, answer: Array) -> tuple[Array, Array]:
            h = h + network.inputs(jnp.stack([known, y, answer, is_free], -1))
            for weights, (gain, bias) in zip(stack, levels, strict=True):
                h = layer(weights, h, gain, bias)
            unit = normalised(h)
            digits = 2 * jax.nn.softmax(network.head(unit)[..., 0], axis=-1) - 1
            return unit if steady else h, jnp.where(is_free > 0, digits, known)

        h = is_free[..., None] * first_state(y, self.channels)
        return in_rounds(self, step, (h, known), rounds)


def layer(weights: dict[str, Params], h: Array, gain: Array, bias: Array) -> Array:
    """h [3, 3, 3, 3, 9, c] -> h + change; gain and bias [c] are those of the level.

    With z = h over its size, M_u means over a unit u, and f = `bend`:

        m = W_entry z + sum_u W_u M_u z,    out = h + W_out f((1 + gain) m + bias)

    The gradient is written by hand: fewer passes over memory and fewer arrays kept
    than JAX's own has on a CPU. It is for reverse mode, any number of times.
    """
    return _layer(matmul_precision(), weights, h, gain, bias)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _layer(precision, weights, h, gain, bias):
    return _forward(precision, weights, h, gain, bias)[0]


def _forward(precision, weights, h, gain, bias):
    del precision  # it holds where this is traced, not where the gradient is
    scale = _inverse_size(h)
    z = h * scale
    mixed = z @ weights["entry"]["kernel"] + _wide(weights["entry"]["bias"])
    for name, units in UNITS.items():
        for axes in units:
            # First the mean, then the product: of a ninth of the entries.
            mixed = mixed + z.mean(axes, keepdims=True) @ weights[name]["kernel"]
    bent = bend(mixed * (1 + _wide(gain)) + _wide(bias))
    change = bent @ weights["out"]["kernel"] + _wide(weights["out"]["bias"])
    return h + change, (weights, z, scale, mixed, gain, bias)


def _backward(precision, kept, grad):
    with jax.default_matmul_precision(precision):
        return _gradients(kept, grad)


def _gradients(kept, grad):
    weights, z, scale, mixed, gain, bias = kept
    bent, slope = _bend_and_slope(mixed * (1 + _wide(gain)) + _wide(bias))
    of_out = {"kernel": _outer(bent, grad), "bias": _over_entries(grad)}
    to_bent = (grad @ weights["out"]["kernel"].T) * slope
    to_bias, to_gain = _over_entries(to_bent), _over_entries(to_bent * mixed)
    to_mixed = to_bent * (1 + _wide(gain))
    of_entry = {"kernel": _outer(z, to_mixed), "bias": to_bias * (1 + gain)}
    to_z = to_mixed @ weights["entry"]["kernel"].T
    to_weights = {"entry": of_entry, "out": of_out}
    for name, units in UNITS.items():
        kernel = weights[name]["kernel"]
        of_kernel = jnp.zeros_like(kernel)
        for axes in units:
            to_mean = to_mixed.sum(axes, keepdims=True)
            of_kernel += _outer(z.mean(axes, keepdims=True), to_mean)
            to_z += to_mean @ kernel.T * (to_mean.size / z.size)
        to_weights[name] = {"kernel": of_kernel}
    along = jnp.mean(to_z * z, -1, keepdims=True)
    return to_weights, grad + scale * (to_z - z * along), to_gain, to_bias


_layer.defvjp(_forward, _backward)


def _outer(a: Array, b: Array) -> Array:
    """sum over entries of a b^T: [.., c] and [.., d] -> [c, d]."""
    return a.reshape(-1, a.shape[-1]).T @ b.reshape(-1, b.shape[-1])


def _over_entries(a: Array) -> Array:
    return a.reshape(-1, a.shape[-1]).sum(0)


def _wide(v: Array) -> Array:
    return v.reshape(1, 1, 1, 1, 1, -1)


def normalised(h: Array) -> Array:
    """h over its root mean square over channels, without weights: the next has them."""
    return h * _inverse_size(h)


def _inverse_size(h: Array) -> Array:
    return jax.lax.rsqrt(jnp.mean(h**2, -1, keepdims=True) + 1e-6)


def bend(h: Array) -> Array:
    """h / 2 (1 + h / sqrt(1 + h^2)), like swish, without its costly exponential."""
    return _bend_and_slope(h)[0]


def _bend_and_slope(h: Array) -> tuple[Array, Array]:
    inverse = jax.lax.rsqrt(1 + h**2)
    sine = h * inverse
    return h / 2 * (1 + sine), (1 + sine * (1 + inverse**2)) / 2


def make_board(
    schedule: Schedule,
    box: Callable[[Array], Box],
    *,
    channels: Annotated[int, of_size("features of an entry")] = 32,
    layers: Annotated[int, of_depth("layers of a round")] = 4,
    rounds: Annotated[
        int, Field("times they are applied", at_least=1, at_most=1000)
    ] = 6,
    steady: Annotated[
        bool, Field("the state has unit size after each round, however many")
    ] = False,
    answering: Annotated[Answering, Part(Answering)] = ANSWERING,
) -> Energy:
    """Makes the energy: x [9, 9] digits, 0 where unknown, y [9, 9, 9], t () -> ().

    With the defaults 22,000 parameters. E >= 0.

    Raises:
      ValueError: a size below 1.
    """
    refuse_below_one(channels=channels, layers=layers, rounds=rounds)
    network = Board(channels, layers, schedule.num_levels, steady)

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
