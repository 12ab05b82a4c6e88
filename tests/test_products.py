"""Mixes and products of maps: their own derivatives are those of plain JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ired_jax.energies import products
from tests import toys
from tests.mutants import Mutant, one

N, CHANNELS, ROWS = 3, 2, 5


def layer_of(params, maps, base):
    return products.ProductLayer().apply({"params": params}, maps, base)


def plain(params, maps, base):
    """The layer in plain products."""
    both = jnp.concatenate([maps, base])
    left, right, out = (
        lambda maps, weight=params[name]["weight"]: jnp.einsum(
            "dc,cij->dij", weight, maps
        )
        for name in ("left", "right", "out")
    )
    return maps + out(jnp.einsum("cij,cjk->cik", left(both), right(both)))


def inputs(*batch):
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.float32(rng.standard_normal(shape))

    sizes = {"left": CHANNELS + 1, "right": CHANNELS + 1, "out": CHANNELS}
    params = {name: {"weight": draw(CHANNELS, size)} for name, size in sizes.items()}
    return params, draw(*batch, CHANNELS, N, N), draw(*batch, 1, N, N)


def over_rows(layer, depth):
    for _ in range(depth):
        layer = jax.vmap(layer, (None, 0, 0))
    return layer


def row_by_row(layer, depth):
    """The same without a batch."""
    if depth == 0:
        return layer
    inner = row_by_row(layer, depth - 1)
    return lambda params, *rows: jax.lax.map(lambda row: inner(params, *row), rows)


def derivatives(layer, args):
    """Gradients of an unevenly weighted sum, and a gradient of those."""
    weights = jnp.cos(jnp.arange(args[1].size, dtype=jnp.float32))

    def total(*args):
        return jnp.sum(layer(*args).reshape(-1) * weights)

    def squared(*args):
        grads = jax.grad(total, argnums=(0, 1, 2))(*args)
        return sum(jnp.sum(grad**2) for grad in jax.tree.leaves(grads))

    first = toys.jit(jax.grad(total, argnums=(0, 1, 2)))(*args)
    return first, toys.jit(jax.grad(squared, argnums=(0, 1, 2)))(*args)


@pytest.mark.parametrize("batch", [(), (ROWS,), (2, 3)])
def test_first_and_second_derivatives_are_those_of_plain_products(batch):
    args, depth = inputs(*batch), len(batch)
    found = derivatives(over_rows(layer_of, depth), args)
    expected = derivatives(row_by_row(plain, depth), args)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4),
        found,
        expected,
    )


@pytest.mark.parametrize("axes", [(0, None), (None, 0)])
def test_a_product_with_one_operand_for_all_rows(axes):
    _, maps, _ = inputs(ROWS)
    operands = [maps if axis == 0 else maps[0] for axis in axes]
    found = jax.vmap(products._matmul(None), axes)(*operands)
    np.testing.assert_allclose(found, operands[0] @ operands[1], rtol=1e-5, atol=1e-6)


def test_the_precision_of_the_products_is_that_of_their_derivatives():
    """A derivative is traced after the context that asked for a precision has ended."""

    def total(*args):
        with jax.default_matmul_precision("highest"):
            return jnp.sum(layer_of(*args))

    text = str(jax.make_jaxpr(jax.grad(total, argnums=(0, 1)))(*inputs()))
    asked = text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)")
    asked += text.count("precision=HIGHEST")
    # Forward: three mixes and a product; backward: two for each.
    assert text.count("dot_general[") == 4 + 2 * 4
    assert asked == text.count("dot_general[")


MUTANTS = [
    Mutant(
        "energies",
        "the gradient of a product without its transpose",
        "ired_jax.energies.products",
        one("(_transposed(operand) for operand", "(operand for operand"),
        test_first_and_second_derivatives_are_those_of_plain_products,
        {"batch": ()},
    ),
    Mutant(
        "energies",
        "a derivative in the precision of wherever it is traced",
        "ired_jax.energies.modules",
        one("return jax.config.jax_default_matmul_precision", "return None"),
        test_the_precision_of_the_products_is_that_of_their_derivatives,
    ),
]
