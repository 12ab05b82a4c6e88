"""The reference energy of IRED: a three-layer MLP on [x, y], modulated by the level.

Source: Du, Mao, Tenenbaum, arXiv 2406.11179, section 4 and the released code. The
network is kept exactly, so that published weights can be imported and compared.
"""

from functools import partial
from typing import Annotated

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.tree_util import Partial

from ired_jax.energies.modules import Dense, Module
from ired_jax.fields import Field, of_size
from ired_jax.types import Array, Energy, EnergyFn, Params, WithGrad

Head = str  # one of HEADS
HEADS = ("squared_norm", "scalar")
TIME_WIDTH = 128
MAX_PERIOD = 1e4


def uniform_fan_in(fan_in: int):
    """The initializer U(-1/sqrt(fan_in), 1/sqrt(fan_in)), of weights and biases."""
    limit = fan_in**-0.5

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


def linear(features: int, fan_in: int, *, use_bias: bool = True) -> Dense:
    """A dense layer whose weights and biases start uniform in +-1/sqrt(fan_in)."""
    init = uniform_fan_in(fan_in)
    return Dense(features, use_bias=use_bias, kernel_init=init, bias_init=init)


def sinusoid(t: Array, width: int = TIME_WIDTH) -> Array:
    """Sine, then cosine, of the integer level at width / 2 frequencies.

    Args:
      t: levels, integer, shape [...].
      width: even number of features.

    Returns:
      [..., width] float32.
    """
    half = width // 2
    frequencies = jnp.exp(-jnp.arange(half) * (jnp.log(MAX_PERIOD) / (half - 1)))
    phase = jnp.multiply.outer(t.astype(jnp.float32), frequencies)
    return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], axis=-1)


class TimeEmbedding(Module):
    """sinusoid -> Linear -> exact GELU -> Linear; t [...] -> [..., width]."""

    width: int = TIME_WIDTH

    @nn.compact
    def __call__(self, t: Array) -> Array:
        h = linear(self.width, self.width)(sinusoid(t, self.width))
        return linear(self.width, self.width)(nn.gelu(h, approximate=False))


class MLP(Module):
    """The network in two parts: what depends on (x, t), and what depends on y."""

    x_size: int
    y_size: int
    width: int
    head: Head
    num_levels: int | None

    def setup(self):
        fan_in = self.x_size + self.y_size
        self.time = TimeEmbedding()
        self.fc1_x = linear(self.width, fan_in)
        self.fc1_y = linear(self.width, fan_in, use_bias=False)
        self.fc2 = linear(self.width, self.width)
        self.fc3 = linear(self.width, self.width)
        self.modulate2 = linear(2 * self.width, TIME_WIDTH)
        self.modulate3 = linear(2 * self.width, TIME_WIDTH)
        self.fc4 = linear(1 if self.head == "scalar" else self.y_size, self.width)

    def condition(self, x: Array, t: Array) -> tuple[Array, ...]:
        """First-layer part of x; gain and bias of each modulated layer: [width]."""
        if self.num_levels is None:
            modulation = self.modulation(t)
        else:
            # Nothing here depends on the row: under vmap the table is made once for
            # all rows, and so is its gradient.
            table = self.modulation(jnp.arange(self.num_levels))
            modulation = [of_levels[t] for of_levels in table]
        gain2, bias2, gain3, bias3 = modulation
        return self.fc1_x(x), 1.0 + gain2, bias2, 1.0 + gain3, bias3

    def modulation(self, t: Array) -> list[Array]:
        """Gain and bias of the second and of the third layer, [..., width] each."""
        time = self.time(t)
        both = self.modulate2(time), self.modulate3(time)
        return [part for out in both for part in jnp.split(out, 2, axis=-1)]

    def hidden(self, condition: tuple[Array, ...], y: Array) -> Array:
        """The units of the third layer [width], given what `condition` computed."""
        x_part, gain2, bias2, gain3, bias3 = condition
        h = nn.swish(x_part + self.fc1_y(y))
        h = nn.swish(self.fc2(h) * gain2 + bias2)
        return nn.swish(self.fc3(h) * gain3 + bias3)

    def energy(self, condition: tuple[Array, ...], y: Array) -> Array:
        """E(y) given the parts that `condition` computed."""
        out = self.fc4(self.hidden(condition, y))
        # squared_norm: E = |out|^2;  scalar: E = out
        return out[0] if self.head == "scalar" else jnp.sum(out * out)

    def __call__(self, x: Array, y: Array, t: Array) -> Array:
        return self.energy(self.condition(x, t), y)


def make_mlp(
    x_size: int,
    y_size: int,
    num_levels: int | None = None,
    *,
    width: Annotated[int, of_size("units of each hidden layer")] = 512,
    head: Annotated[
        Head,
        Field("squared_norm (E = |out|^2 >= 0) or scalar (E = out)", one_of=HEADS),
    ] = "squared_norm",
) -> Energy:
    """Makes the reference energy.

    Args:
      x_size: elements of the condition x; 0: E of y alone.
      y_size: elements of the answer y.
      num_levels: T, if all levels are in [0, T): what depends on the level alone is
        then computed once a level and not once a row, with the same result.

    Returns:
      The energy; x is [x_size], y is [y_size], both float32, t an integer ().

    Raises:
      ValueError: a size that there is not, or an unknown head.
    """
    if x_size < 0 or min(y_size, width) < 1:
        raise ValueError(
            f"x_size={x_size}, y_size={y_size}, width={width}: must be at least 0, 1, 1"
        )
    if head not in HEADS:
        raise ValueError(f"head={head!r}: allowed are 'squared_norm' and 'scalar'")
    network = MLP(x_size, y_size, width, head, num_levels)

    def init(key: Array) -> Params:
        x, y = jnp.zeros(x_size), jnp.zeros(y_size)
        return network.init(key, x, y, jnp.int32(0))["params"]

    def apply(params: Params, x: Array, y: Array, t: Array) -> Array:
        chex.assert_shape([x, y, t], [(x_size,), (y_size,), ()])
        return network.apply({"params": params}, x, y, t)

    def bind(params: Params, x: Array, t: Array) -> EnergyFn:
        chex.assert_shape([x, t], [(x_size,), ()])
        condition = network.apply({"params": params}, x, t, method="condition")
        energy_fn = Partial(partial(_energy_at, network), params, condition)
        # |W^T h + b|^2 has the gradient 2 (W W^T h + W b) in h: one product of width^2
        # for two of width y_size. At n = 20, W W^T costs what it saves in 700 gradients
        # (rows times steps): little for a batch of chains, much for a single row.
        if head == "scalar" or width >= 2 * y_size:
            return energy_fn
        weight, bias = params["fc4"]["kernel"], params["fc4"]["bias"]
        last = weight @ weight.T, weight @ bias
        grad = Partial(partial(_grad_at, network), params, condition, last)
        return WithGrad(energy_fn, grad)

    return Energy(init, apply, bind)


def _energy_at(network: MLP, params: Params, condition: tuple, y: Array) -> Array:
    chex.assert_shape(y, (network.y_size,))
    return network.apply({"params": params}, condition, y, method="energy")


def _grad_at(
    network: MLP, params: Params, condition: tuple, last: tuple[Array, Array], y: Array
) -> Array:
    chex.assert_shape(y, (network.y_size,))
    hidden = partial(network.apply, {"params": params}, condition, method="hidden")
    h, pull_back = jax.vjp(hidden, y)
    weight, bias = last
    return pull_back(2 * (h @ weight + bias))[0]
