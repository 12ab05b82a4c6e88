"""An energy that is the same small network at every element, for every number of them.

    E = sum_i |O_i|^2 / (2 s_t),    O_i = A_t [x_1i, .., x_ki, y_i, 1] + N([..], t)

x [k D] holds k values for each of the D elements of y; A_t is a learned table of levels
and N a network of one hidden layer that starts at 0, whose hidden units see the level
as well. With N = 0 the energy is quadratic, and an answer that is linear in x, as a sum
is, is reached exactly; what elements say of each other is out of its sight.
Source: this project.
"""

from typing import Annotated

import chex
import jax.numpy as jnp
from flax import linen as nn

from ired_jax.diffusion import Schedule
from ired_jax.energies.modules import Dense, Module
from ired_jax.fields import of_size
from ired_jax.types import Array, Energy, Params


class Entrywise(Module):
    """(values [D, k + 1], t ()) -> O [D, outputs]."""

    num_levels: int
    width: int
    outputs: int

    @nn.compact
    def __call__(self, values: Array, t: Array) -> Array:
        inputs = values.shape[-1]
        start = nn.initializers.normal(inputs**-0.5)
        linear = self.param("linear", start, (self.num_levels, inputs, self.outputs))
        offset = self.param(
            "offset", nn.initializers.zeros, (self.num_levels, self.outputs)
        )
        out = values @ linear[t] + offset[t][None]
        if self.width:
            shift = nn.Embed(self.num_levels, self.width, name="level")(t[None])[0]
            hidden = nn.swish(Dense(self.width, name="hidden")(values) + shift[None])
            zeros = nn.initializers.zeros
            out += Dense(self.outputs, kernel_init=zeros, name="out")(hidden)
        return out


def make_entrywise(
    x_size: int,
    y_size: int,
    schedule: Schedule,
    *,
    width: Annotated[int, of_size("hidden units; 0: quadratic in y", at_least=0)] = 16,
    outputs: Annotated[int, of_size("squares summed for an element")] = 1,
) -> Energy:
    """Makes the energy for x [x_size], y [y_size]; weights do not depend on D.

    Raises:
      ValueError: x_size is not a multiple of y_size, or a size below its limit.
    """
    if min(x_size, y_size) < 1 or x_size % y_size:
        raise ValueError(
            f"x_size={x_size}, y_size={y_size}: at least 1, x_size a multiple of y_size"
        )
    if width < 0 or outputs < 1:
        raise ValueError(f"width={width}, outputs={outputs}: at least 0 and 1")
    num_levels, of_element = schedule.num_levels, x_size // y_size
    network = Entrywise(num_levels, width, outputs)

    def init(key: Array) -> Params:
        values = jnp.zeros((1, of_element + 1))
        return network.init(key, values, jnp.int32(0))["params"]

    def apply(params: Params, x: Array, y: Array, t: Array) -> Array:
        chex.assert_rank([x, y, t], [1, 1, 0])
        chex.assert_shape(x, (of_element * y.size,))
        values = jnp.stack([*x.reshape(of_element, -1), y], axis=-1)
        out = network.apply({"params": params}, values, t)
        return jnp.sum(out**2) / (2 * schedule.temperature[t])

    return Energy(init, apply)
