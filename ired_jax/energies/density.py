"""An energy on the plane: a small MLP on y alone, E = N(y) + gain |y|^2 / 2.

The quadratic part, whose gain is learned and positive, keeps samples from running away
where the network has seen no data. Meant for `x = ()`; the level is not looked at.
"""

from typing import Annotated

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from ired_jax.energies.modules import Dense, Module, refuse_below_one
from ired_jax.fields import of_depth, of_size
from ired_jax.types import Array, Energy, Params, Tree


class Landscape(Module):
    """y [D] -> ()."""

    width: int
    layers: int

    @nn.compact
    def __call__(self, y: Array) -> Array:
        h = y
        for _ in range(self.layers):
            h = nn.swish(Dense(self.width)(h))
        gain = jax.nn.softplus(self.param("gain", nn.initializers.zeros, ()))
        return Dense(1)(h)[0] + gain * jnp.sum(y**2) / 2


def make_density(
    y_size: int,
    *,
    width: Annotated[int, of_size("hidden units")] = 128,
    layers: Annotated[int, of_depth("hidden layers")] = 3,
) -> Energy:
    """Makes the energy for y [y_size]; x must be (), t is any integer ().

    Raises:
      ValueError: a size below 1.
    """
    refuse_below_one(y_size=y_size, width=width, layers=layers)
    network = Landscape(width, layers)

    def init(key: Array) -> Params:
        return network.init(key, jnp.zeros(y_size))["params"]

    def apply(params: Params, x: Tree, y: Array, t: Array) -> Array:
        chex.assert_shape([y, t], [(y_size,), ()])
        if jax.tree.leaves(x):
            raise ValueError("x: must be (), this energy has no condition")
        return network.apply({"params": params}, y)

    return Energy(init, apply)
