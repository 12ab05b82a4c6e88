"""An energy on n x n matrices, built from matrix products, for every n.

The condition x = vec(A) and the answer y = vec(Y) become stacks of n x n maps
[c, n, n]. Maps are mixed across channels and multiplied as matrices, nothing else, so
one set of weights serves every n, and E(P A P^T, P Y P^T, t) = E(A, Y, t) for every
orthogonal P, so for every permutation. Products are what an entrywise network lacks:
a function of the spectrum of A, like an inverse, is a polynomial in A, and `layers`
product layers reach degree 2^layers.

With A scaled to spectral norm at most 1, U_d, V_d and C_d learned polynomials of
{A, A^T, I}, and B_d, D_d learned mixes of A and A^T:

    O_d = g_d(t) (U_d B_d Y + Y D_d V_d) - h_d(t) C_d,    E = sum_d |O_d|_F^2

`reach="products"` is this. No inverse and no residual is written down: all maps and
gains are learned. What is assumed is that Y is seen through its products with A, and
it decides what happens out of distribution: the minimum of E is then the solution of
a learned linear system in Y, and descent refines the answer where the polynomials
alone do not reach. `reach="direct"` puts B_d = D_d = I: as good in distribution, and
then Y is compared with a learned feed-forward guess, however many steps are taken.
Both are convex in y: they have no false minima for negatives to find. With
`answer_layers` > 0 the stack O is multiplied with itself before it is squared,

    O <- O + M [(L O) @ (R O), (L O) @ G(A)],    O_d for channel d, @ by channel,

L, R, M learned mixes of channels and G of maps of A: E is then a polynomial of degree
2^(1 + answer_layers) in y, and no longer convex.

Source: this project; the training objective is that of arXiv 2406.11179.
"""

from typing import Annotated, NamedTuple

import chex
import jax.numpy as jnp
from flax import linen as nn
from jax.tree_util import Partial

from ired_jax.energies.mlp import sinusoid
from ired_jax.energies.modules import Dense, Module, refuse_below_one
from ired_jax.energies.products import (
    AnswerLayer,
    AnswerMixes,
    Mix,
    ProductLayer,
    answer_layer,
)
from ired_jax.fields import Field, of_depth, of_size
from ired_jax.types import Array, Energy, EnergyFn, Params

REACHES = ("products", "direct")
LEVEL_WIDTH = 32
GAIN_SCALE = 0.02


class Condition(NamedTuple):
    """The parts of E that do not depend on y.

    Attributes:
      left: [outputs, n, n], multiplies Y from the left.
      right: [outputs, n, n], multiplies Y from the right.
      offset: [outputs, n, n], what the products are compared with.
      answer: the layers on O, from the first to the last.
    """

    left: Array
    right: Array
    offset: Array
    answer: tuple[AnswerLayer, ...] = ()


class LevelGains(Module):
    """Gains near 1 from the integer level: sinusoid -> Linear -> swish -> Linear.

    t () -> [features]; it is defined for every integer t, also one not trained.
    """

    features: int

    @nn.compact
    def __call__(self, t: Array) -> Array:
        h = Dense(LEVEL_WIDTH)(sinusoid(t, LEVEL_WIDTH))
        init = nn.initializers.normal(GAIN_SCALE)
        return 1.0 + Dense(self.features, kernel_init=init)(nn.swish(h))


class MatrixProducts(Module):
    """The part of the network that sees x and t: (x [n^2], t ()) -> Condition."""

    channels: int
    layers: int
    outputs: int
    reach: str
    answer_layers: int

    @nn.compact
    def __call__(self, x: Array, t: Array) -> Condition:
        a = as_matrix(x)
        scale = spectral_bound(a)
        identity = jnp.eye(a.shape[0], dtype=a.dtype)
        base = jnp.stack([a / scale, a.T / scale, identity])
        maps = Mix(self.channels, name="input")(base)
        for layer in range(self.layers):
            maps = ProductLayer(name=f"product_{layer}")(maps, base)
        maps = jnp.concatenate([maps, base])
        answer = tuple(
            AnswerMixes(self.outputs, name=f"answer_{layer}")(maps)
            for layer in range(self.answer_layers)
        )
        return self._heads(maps, base[:2], scale, t)._replace(answer=answer)

    def _heads(self, maps: Array, a_maps: Array, scale: Array, t: Array) -> Condition:
        left = Mix(self.outputs, name="left")(maps)
        right = Mix(self.outputs, name="right")(maps)
        offset = Mix(self.outputs, name="offset")(maps)
        if self.reach == "products":
            left = left @ Mix(self.outputs, name="left_a")(a_maps)
            right = Mix(self.outputs, name="right_a")(a_maps) @ right
        gains = LevelGains(2 * self.outputs, name="gains")(t)[:, None, None]
        gain_y, gain_offset = jnp.split(gains, 2)
        # Y has the units of 1 / A: with the offset over `scale`, E of (A, Y) and of
        # (k A, Y / k) differ by the factor k^-2 alone (not with products in Y, whose
        # units are others).
        return Condition(gain_y * left, gain_y * right, gain_offset * offset / scale)


def energy_of(condition: Condition, y: Array) -> Array:
    """E(y) = sum_d |O_d|^2, O_d = left_d Y + Y right_d - offset_d; y [n^2] -> ().

    The answer layers, if any, act on O before it is squared.
    """
    left, right, offset, answer = condition
    outputs, n, _ = left.shape
    chex.assert_shape(y, (n * n,))
    matrix = as_matrix(y)
    # Two plain products over stacked maps: a batched one is several times slower.
    from_left = (left.reshape(outputs * n, n) @ matrix).reshape(outputs, n, n)
    stacked = right.transpose(1, 0, 2).reshape(n, outputs * n)
    from_right = (matrix @ stacked).reshape(n, outputs, n).transpose(1, 0, 2)
    stack = from_left + from_right - offset
    for layer in answer:
        stack = answer_layer(layer, stack)
    return jnp.sum(stack**2)


def spectral_bound(a: Array) -> Array:
    """|A^T A|_F^(1/2), at least the spectral norm, at most n^(1/4) times it: ()."""
    # The floor keeps the gradient of A = 0 finite.
    return jnp.maximum(jnp.sum((a.T @ a) ** 2), 1e-24) ** 0.25


def as_matrix(flat: Array) -> Array:
    """[n^2] -> [n, n]; n follows from the size.

    Raises:
      ValueError: the size is not a square.
    """
    n = round(flat.size**0.5)
    if n * n != flat.size or n == 0:
        raise ValueError(f"size {flat.size}: must be n * n for some n >= 1")
    return flat.reshape(n, n)


def make_matrix(
    *,
    channels: Annotated[
        int,
        of_size("n x n maps carried from layer to layer"),
    ] = 12,
    layers: Annotated[
        int,
        of_depth("product layers on A; degree up to 2^layers"),
    ] = 7,
    outputs: Annotated[int, of_size("maps whose squared norms are summed")] = 2,
    reach: Annotated[
        str,
        Field("products (Y is seen through A), or direct", one_of=REACHES),
    ] = "products",
    answer_layers: Annotated[
        int, of_depth("product layers on Y: degree 2^(1 + these)", at_least=0)
    ] = 0,
) -> Energy:
    """Makes the matrix energy. Its parameters do not depend on n.

    Returns:
      The energy; x and y are [n^2] float32 for any n >= 1, the same in both, t an
      integer (). E >= 0; without answer layers convex and quadratic in y.

    Raises:
      ValueError: a size that is not positive, or an unknown reach.
    """
    refuse_below_one(channels=channels, layers=layers, outputs=outputs)
    if answer_layers < 0:
        raise ValueError(f"answer_layers={answer_layers}: must be at least 0")
    if reach not in REACHES:
        raise ValueError(f"reach={reach!r}: allowed are 'products' and 'direct'")
    network = MatrixProducts(channels, layers, outputs, reach, answer_layers)

    def init(key: Array) -> Params:
        return network.init(key, jnp.zeros(1), jnp.int32(0))["params"]

    def bind(params: Params, x: Array, t: Array) -> EnergyFn:
        chex.assert_rank([x, t], [1, 0])
        return Partial(energy_of, network.apply({"params": params}, x, t))

    def apply(params: Params, x: Array, y: Array, t: Array) -> Array:
        return bind(params, x, t)(y)

    return Energy(init, apply, bind)
