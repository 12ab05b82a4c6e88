"""Where y_0 may lie, and which of its elements are known.

A `Box` whose low and high are equal at an element says that it is known (a given): it
is exact in every noised answer, chain, descent and answer, and no loss counts it. Level
t uses a_t times the box. A box of two plain numbers holds for every element, none of
them known.
"""

import operator

import jax
import jax.numpy as jnp

from ired_jax import trees
from ired_jax.types import Array, Box, PartError, Tree

Bounds = Box | Array | float | None  # a number or array is a half-width: nothing known


def as_box(bounds: Bounds) -> Box | None:
    """The box of a half-width; a box and None are themselves.

    Raises:
      PartError: plain numbers that leave no room between them.
    """
    if bounds is None:
        return None
    if not isinstance(bounds, Box):
        bounds = Box(jax.tree.map(operator.neg, bounds), bounds)
    low, high = bounds
    if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
        raise PartError(f"box from {low} to {high}: low must be at most high")
    return bounds


def scale(bounds: Bounds, factor: Array | float) -> Bounds:
    """factor times the bounds, factor > 0; a half-width stays one."""
    return jax.tree.map(lambda side: side * factor, bounds)


def clip(bounds: Bounds, y: Tree) -> Tree:
    """The nearest point of the box to y, of y's dtype."""
    box = as_box(bounds)
    if box is None:
        return y

    def nearest(y, low, high):
        return jnp.clip(y, jnp.asarray(low, y.dtype), jnp.asarray(high, y.dtype))

    return jax.tree.map(nearest, y, *(like(part, y) for part in box))


def inside(bounds: Bounds, y: Tree) -> Array:
    """Whether every element of y lies in the box: () bool."""
    box = as_box(bounds)
    if box is None:
        return jnp.bool_(True)
    low, high = (like(part, y) for part in box)
    within = jax.tree.map(lambda y, a, b: jnp.all((a <= y) & (y <= b)), y, low, high)
    return jnp.all(jnp.stack(jax.tree.leaves(within)))


def free(bounds: Bounds, y: Tree) -> Tree | None:
    """True at the elements of y that are not known; None where all are free."""
    if not isinstance(bounds, Box) or all(map(_is_number, bounds)):
        return None
    low, high = (like(part, y) for part in bounds)
    return jax.tree.map(lambda y, a, b: jnp.broadcast_to(a != b, y.shape), y, low, high)


def hold(bounds: Bounds, y: Tree) -> Tree:
    """y with its known elements at their values, the others as they are."""
    mask = free(bounds, y)
    if mask is None or not isinstance(bounds, Box):
        return y

    def choose(is_free, y, known):
        return jnp.where(is_free, y, jnp.asarray(known, y.dtype))

    return jax.tree.map(choose, mask, y, like(bounds.low, y))


def still(bounds: Bounds, move: Tree) -> Tree:
    """A move, noise or gradient with 0 at the known elements."""
    mask = free(bounds, move)
    if mask is None:
        return move
    return jax.tree.map(lambda m, x: jnp.where(m, x, 0), mask, move)


def count_free(bounds: Bounds, y: Tree) -> Array | int:
    """D, the number of free elements, at least 1; an int where all are free."""
    mask = free(bounds, y)
    return trees.size(y) if mask is None else jnp.maximum(trees.total(mask), 1)


def mean_free(bounds: Bounds, values: Tree) -> Array:
    """The mean over the free elements: ()."""
    mask = free(bounds, values)
    if mask is None:
        return trees.mean(values)
    return trees.total(still(bounds, values)) / count_free(bounds, values)


def rms_free(bounds: Bounds, values: Tree) -> Array:
    """The root mean square over the free elements: ()."""
    return jnp.sqrt(mean_free(bounds, trees.squares(values)))


def _is_number(part: Tree) -> bool:
    return jax.tree_util.all_leaves([part]) and jnp.ndim(part) == 0


def like(part: Tree, y: Tree) -> Tree:
    """One side of a box with the structure of y: a single leaf is for every leaf."""
    if jax.tree.structure(part) == jax.tree.structure(y):  # type: ignore[operator]
        return part
    if jax.tree_util.all_leaves([part]):
        return jax.tree.map(lambda _: part, y)
    raise ValueError(
        f"box of structure {jax.tree.structure(part)}: y has {jax.tree.structure(y)}"
    )
