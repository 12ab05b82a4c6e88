"""Mixes and products of stacks of n x n maps: the layers of the matrix energy.

A mix weighs maps entry by entry, a product layer multiplies mixes as matrices and adds
the products to the stack. There are two: `ProductLayer` on maps of A, whose inputs do
not depend on y, and `answer_layer` on the stack O that does. The second takes all that
it needs besides O as arrays, so that a chain computes them once.

On maps of A both have derivatives of their own: the same numbers as JAX's, in an order
of axes in which a batch needs fewer copies (on a CPU a gradient in the parameters takes
three quarters of the time). They are for reverse mode; in y any mode will do.
"""

from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.custom_batching import custom_vmap

from ired_jax.energies.modules import Module, matmul_precision
from ired_jax.types import Array

PRODUCT_SCALE = 0.3
ANSWER_CHANNELS = 4


class Mix(Module):
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
        return _mix(matmul_precision(), weight, maps)


def mix(weight: Array, maps: Array, precision: str | None = None) -> Array:
    """weight [d, c], maps [c, n, n] -> [d, n, n], entry by entry."""
    return jnp.einsum("dc,cij->dij", weight, maps, precision=precision)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mix(precision, weight, maps):
    return mix(weight, maps, precision)


def _mix_backward(precision, operands, out):
    weight, maps = operands
    to_weight = jnp.einsum("dij,cij->dc", out, maps, precision=precision)
    return to_weight, _mix(precision, weight.T, out)


_mix.defvjp(lambda *args: (_mix(*args), args[1:]), _mix_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(precision, left, right):
    return _matmul(precision)(left, right)


def _product_backward(precision, operands, out):
    left, right = (_transposed(operand) for operand in operands)
    return _product(precision, out, right), _product(precision, left, out)


_product.defvjp(lambda *args: (_product(*args), args[1:]), _product_backward)


@cache
def _matmul(precision):
    @custom_vmap
    def matmul(left, right):
        return jnp.matmul(left, right, precision=precision)

    # A batch stays in the order [c, rows, n, n], in which `mix` is one plain product.
    @matmul.def_vmap
    def of_rows(axis_size, is_batched, left, right):
        del axis_size
        left = jnp.moveaxis(left, 0, 1) if is_batched[0] else left[:, None]
        right = jnp.moveaxis(right, 0, 1) if is_batched[1] else right[:, None]
        return jnp.moveaxis(matmul(left, right), 1, 0), True

    return matmul


@jax.custom_vjp
def _transposed(maps):
    return _copy_transposed(maps)


_transposed.defvjp(
    lambda maps: (_transposed(maps), None), lambda _, out: (_transposed(out),)
)


@custom_vmap
def _copy_transposed(maps):
    return jnp.swapaxes(maps, -1, -2)


# XLA's CPU backend takes several times as long with a transpose inside a batched
# product: the barrier makes it a copy before.
@_copy_transposed.def_vmap
def _copy_transposed_of_rows(axis_size, is_batched, maps):
    del axis_size, is_batched
    maps = _copy_transposed(jnp.moveaxis(maps, 0, 1))
    return jnp.moveaxis(jax.lax.optimization_barrier(maps), 1, 0), True


class ProductLayer(Module):
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
        product = _product(matmul_precision(), left, right)
        return maps + Mix(channels, PRODUCT_SCALE, name="out")(product)


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


class AnswerMixes(Module):
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
