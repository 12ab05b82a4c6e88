"""Pytrees of arrays as one vector of elements: draws, sums, means, choices.

A pytree of one leaf gives bit for bit what its array alone would.
"""

import math

import chex
import jax
import jax.numpy as jnp

from ired_jax.types import Array, Tree


def normal(key: Array, like: Tree) -> Tree:
    """Standard normal draws of the shapes and dtypes of `like`."""
    leaves, structure = jax.tree.flatten(like)
    keys = [key] if len(leaves) == 1 else jax.random.split(key, len(leaves))
    pairs = zip(keys, leaves, strict=True)
    draws = [jax.random.normal(key, leaf.shape, leaf.dtype) for key, leaf in pairs]
    return jax.tree.unflatten(structure, draws)


def dtype(tree: Tree) -> jnp.dtype:
    """The floating dtype that all leaves share, of 32 bits or more.

    In fewer, a step of a chain is lost in the rounding of y, and its temperature with
    it; products of half the precision are `precision.in_precision`'s.

    Raises:
      AssertionError: a leaf is not floating, there is none, two dtypes, or under 32
        bits.
    """
    leaves = jax.tree.leaves(tree)
    chex.assert_type(leaves, float)
    dtypes = {jnp.result_type(leaf) for leaf in leaves}
    assert len(dtypes) == 1, (
        f"one dtype for all leaves of y: {sorted(map(str, dtypes))}"
    )
    (found,) = dtypes
    bits = jnp.finfo(found).bits
    assert bits >= 32, f"y is {found}: must be of 32 bits or more, not {bits}"
    return found


def size(tree: Tree) -> int:
    """Elements of all leaves."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def total(tree: Tree) -> Array:
    """The sum over all elements: ()."""
    first, *rest = (jnp.sum(leaf) for leaf in jax.tree.leaves(tree))
    return sum(rest, start=first)


def mean(tree: Tree) -> Array:
    """The mean over all elements: ()."""
    leaves = jax.tree.leaves(tree)
    return jnp.mean(leaves[0]) if len(leaves) == 1 else total(tree) / size(tree)


def squares(tree: Tree) -> Tree:
    """Each element squared."""
    return jax.tree.map(lambda leaf: leaf**2, tree)


def subtract(first: Tree, second: Tree) -> Tree:
    """first - second, element by element."""
    return jax.tree.map(jnp.subtract, first, second)


def rms(tree: Tree) -> Array:
    """The root mean square over all elements: ()."""
    return jnp.sqrt(mean(squares(tree)))


def where(condition: Array, first: Tree, second: Tree) -> Tree:
    """One of two trees, or of each of their rows: condition () or [N]."""

    def choose(a, b):
        ones = [1] * (a.ndim - condition.ndim)
        return jnp.where(condition.reshape(*condition.shape, *ones), a, b)

    return jax.tree.map(choose, first, second)
