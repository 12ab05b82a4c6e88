"""Mixes and products of stacks of n x n maps: the layers of the matrix energy.

A mix weighs maps entry by entry, a product layer multiplies mixes as matrices and adds
the products to the stack. There are two: `ProductLayer` on maps of A, whose inputs do
not depend on y, and `answer_layer` on the stack O that does. The second takes all that
it needs besides O as arrays, so that a chain computes them once.
"""

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from ired_jax.types import Array

PRODUCT_SCALE = 0.3
ANSWER_CHANNELS = 4


class Mix(nn.Module):
    """Mixes maps across channels, entry by entry: [c, n, n] -> [features, n, n].

    Weights start normal with standard deviation `scale / sqrt(c)`; there is no bias,
    because a constant that is equivariant is a multiple of I, and I is a channel.
    """

    features: int
    scale: float = 1.0

    @nn.compact
    def __call__(self, maps: Array) -> Array:
        channels = maps.shape[0]
        init = nn.initializers.normal(self.scale * channels**-0.5)
        weight = self.param("weight", init, (self.features, channels))
        return mix(weight, maps)


def mix(weight: Array, maps: Array) -> Array:
    """weight [d, c], maps [c, n, n] -> [d, n, n], entry by entry."""
    return jnp.einsum("dc,cij->dij", weight, maps)


class ProductLayer(nn.Module):
    """H + Mix(Mix(X) @ Mix(X)) with X = [H, base]: H [c, n, n] -> [c, n, n].

    The degree of H as a polynomial of A doubles. The product enters small, because
    degrees multiply: at scale 1 the energies of the first steps are near 1e12.
    """

    @nn.compact
    def __call__(self, maps: Array, base: Array) -> Array:
        channels = maps.shape[0]
        both = jnp.concatenate([maps, base])
        left = Mix(channels, name="left")(both)
        right = Mix(channels, name="right")(both)
        return maps + Mix(channels, PRODUCT_SCALE, name="out")(left @ right)


class AnswerLayer(NamedTuple):
    """A product layer on the stack O: weights of its mixes, and its maps of A.

    Attributes:
      left: [channels, outputs], mixes O into the left factors.
      right: [channels, outputs], mixes O into the right factors.
      maps: [channels, n, n], the right factors G that do not depend on y.
      out: [outputs, 2 channels], mixes the products into what is added to O.
    """

    left: Array
    right: Array
    maps: Array
    out: Array


class AnswerMixes(nn.Module):
    """What a layer on the stack O needs besides O: maps of A [c, n, n] -> AnswerLayer.

    The products enter small, as on A, but through weights that see no map here.
    """

    outputs: int

    @nn.compact
    def __call__(self, maps: Array) -> AnswerLayer:
        channels, outputs = ANSWER_CHANNELS, self.outputs
        from_stack = nn.initializers.normal(outputs**-0.5)
        from_products = nn.initializers.normal(PRODUCT_SCALE * (2 * channels) ** -0.5)
        return AnswerLayer(
            left=self.param("left", from_stack, (channels, outputs)),
            right=self.param("right", from_stack, (channels, outputs)),
            maps=Mix(channels, name="maps")(maps),
            out=self.param("out", from_products, (outputs, 2 * channels)),
        )


def answer_layer(layer: AnswerLayer, stack: Array) -> Array:
    """O + out [Z @ Q, Z @ G], Z = left O, Q = right O; O [outputs, n, n]."""
    z = mix(layer.left, stack)
    products = [z @ mix(layer.right, stack), z @ layer.maps]
    return stack + mix(layer.out, jnp.concatenate(products))
