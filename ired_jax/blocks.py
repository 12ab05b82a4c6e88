"""Rows of a batch, a block after the other, on each device its own: the same numbers.

All rows at once (the default everywhere) suit a GPU. A CPU that takes thousands of them
at once writes every activation to memory and reads it back; in blocks that its cache
holds, a gradient of the matrix energy at n = 20 is 2.6 times as fast.

Traced under a mesh with the axis AXIS (`jax.sharding.use_abstract_mesh`), each device
takes an equal share of the rows, and in it the blocks. Rows that are left over all of
them compute. Without a mesh the program is the one of a single device.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params
from jax.sharding import PartitionSpec

from ired_jax.types import Array, Energy, Example, Params, Tree, bind

# Of a block's largest array. Measured with both energies on two cores with 1 MiB each
# and 32 MiB shared: half of it is as good within a tenth, twice as much costs a third.
CACHE_BYTES = 2**21
PRIME = 1009  # so many rows: an array whose size it divides grows with them
AXIS = "rows"  # of a mesh: rows, and rings in parts, are with their device
OF_DEVICE, OF_ALL = PartitionSpec(AXIS), PartitionSpec()


def num_devices() -> int:
    """Devices that rows are shared out to in what is being traced."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.shape[AXIS] if AXIS in mesh.auto_axes else 1


def whole(tree: Tree) -> Tree:
    """All rows on every device, where there are several."""
    if num_devices() == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, OF_ALL)


def in_parts(rows: Tree, parts: int) -> Tree:
    """Leaves [N, ...] as [parts, N / parts, ...]: as many devices need move no row."""
    return jax.tree.map(lambda a: a.reshape(parts, -1, *a.shape[1:]), rows)


def in_one(rows: Tree) -> Tree:
    """The inverse of `in_parts`."""
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), rows)


def first(rows: Tree, count: int, parts: int = 1) -> Tree:
    """`count` rows, the first ones of each part."""
    if parts == 1:
        return jax.tree.map(lambda a: a[:count], rows)
    cut = in_parts(rows, parts)
    return in_one(jax.tree.map(lambda a: a[:, : count // parts], cut))


def vmap(fn: Callable, block_rows: int | None = None) -> Callable:
    """`jax.vmap(fn)` over the first axis of every argument, a block at a time.

    Args:
      fn: arrays of one row -> a pytree of arrays.
      block_rows: the most rows at once; None: all.

    Raises:
      ValueError: block_rows below 1.
    """
    _check(block_rows)
    each = jax.vmap(fn)

    def over_rows(*rows):
        blocks, rest = _split(rows, block_rows)
        if blocks is None:
            return each(*rest)
        out = jax.lax.map(lambda block: each(*block), blocks)
        out = in_one(out)
        return out if rest is None else joined(out, each(*rest))

    def over_devices(*rows):
        shared, rest = _share_out(rows)
        if shared is None:
            return over_rows(*rest)
        out = _on_each_device(over_rows, OF_DEVICE, OF_DEVICE)(*shared)
        return out if rest is None else joined(out, over_rows(*rest))

    return over_devices


def value_and_grad(
    fn: Callable[[Params, Tree], tuple[Array, Any]], block_rows: int | None = None
) -> Callable[[Params, Tree], tuple[tuple[Array, Any], Params]]:
    """`jax.value_and_grad(fn, has_aux=True)` of a mean over rows, a block at a time.

    Args:
      fn: (params, rows) -> (loss (), aux), the loss and all of aux means over the rows.
        Rows without an array are handed over as they are, once.
      block_rows: the most rows at once; None: all.

    Returns:
      (params, rows) -> ((loss, aux), gradient), those of all rows.

    Raises:
      ValueError: block_rows below 1.
    """
    _check(block_rows)
    of_block = jax.value_and_grad(fn, has_aux=True)

    def over_rows(params, rows):
        blocks, rest = _split(rows, block_rows)
        if blocks is None:
            return of_block(params, rest)
        num_rows, size = _size(rows), _size(blocks, axis=1)

        def add(total, block):
            return jax.tree.map(jnp.add, total, of_block(params, block)), None

        first = jax.tree.map(lambda a: a[0], blocks)
        shapes = jax.eval_shape(of_block, params, first)
        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
        total, _ = jax.lax.scan(add, zeros, blocks)
        mean = jax.tree.map(lambda a: size / num_rows * a, total)
        if rest is None:
            return mean
        share = _size(rest) / num_rows
        return jax.tree.map(lambda a, b: a + share * b, mean, of_block(params, rest))

    def over_devices(params, rows):
        if not jax.tree.leaves(rows):  # of the parameters alone
            return of_block(params, rows)
        shared, rest = _share_out(rows)
        if shared is None:
            return over_rows(params, rest)

        def mean_of_all(params, rows):
            # Once, after all blocks: what is moved does not depend on their number.
            return jax.lax.pmean(over_rows(params, rows), AXIS)

        mean = _on_each_device(mean_of_all, (OF_ALL, OF_DEVICE), OF_ALL)
        if rest is None:
            return mean(params, shared)
        share, means = _size(rest) / _size(rows), mean(params, shared)
        rests = over_rows(params, rest)
        return jax.tree.map(lambda a, b: (1 - share) * a + share * b, means, rests)

    return over_devices


def rows_at_once(energy: Energy, example: Example) -> int | None:
    """The rows to take at once: as many as fit a CPU's cache; None, all, elsewhere."""
    if jax.default_backend() != "cpu":
        return None
    return rows_that_fit(energy, example)


def rows_that_fit(energy: Energy, example: Example) -> int:
    """Rows whose largest array in E(x, y, t) fills about CACHE_BYTES: a power of two.

    Only arrays that grow with the rows count: not the parameters, nor what depends on
    the level alone.
    """

    def energies(params, x, y, t):
        return jax.vmap(lambda x, y, t: bind(energy, params, x, t)(y))(x, y, t)

    params = jax.eval_shape(energy.init, jax.random.key(0))
    x, y = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((PRIME, *leaf.shape), leaf.dtype), example
    )
    t = jax.ShapeDtypeStruct((PRIME,), jnp.int32)
    computed = _computed(jax.make_jaxpr(energies)(params, x, y, t).jaxpr)
    of_rows = [a for a in computed if a.size % PRIME == 0]
    largest = max(a.size * a.dtype.itemsize for a in of_rows) / PRIME
    return 2 ** max(0, math.floor(math.log2(CACHE_BYTES / largest)))


def _check(block_rows: int | None) -> None:
    if block_rows is not None and block_rows < 1:
        raise ValueError(f"block_rows={block_rows}: must be at least 1, or None")


def _split(rows, block_rows: int | None):
    """Equal blocks [k, size, ...] and the rows that are left, or None.

    Neither has more than block_rows.
    """
    num_rows = _size(rows)
    if block_rows is None or num_rows <= block_rows:
        return None, rows
    num_blocks = -(-num_rows // block_rows)
    size, left = divmod(num_rows, num_blocks)
    if left > block_rows:  # more than a block: full ones leave less
        num_blocks, size = num_rows // block_rows, block_rows
    cut = num_blocks * size
    blocks = jax.tree.map(
        lambda a: a[:cut].reshape(num_blocks, size, *a.shape[1:]), rows
    )
    rest = jax.tree.map(lambda a: a[cut:], rows) if cut < num_rows else None
    return blocks, rest


def _share_out(rows):
    """Rows in equal shares of the devices, or None, and the few left over, or None."""
    num_rows, count = _size(rows), num_devices()
    cut = num_rows // count * count
    if count == 1 or cut == 0:
        return None, rows
    shared = jax.tree.map(lambda a: a[:cut], rows)
    rest = jax.tree.map(lambda a: a[cut:], rows) if cut < num_rows else None
    return shared, rest


def _on_each_device(fn: Callable, in_specs, out_specs) -> Callable:
    # Gradients are taken inside and summed by hand: JAX's own bookkeeping of what
    # differs between devices would sum them at each block.
    return jax.shard_map(fn, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def joined(*parts: Tree) -> Tree:
    """Rows of several parts, one after the other."""
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def _size(rows, axis: int = 0) -> int:
    return jax.tree.leaves(rows)[0].shape[axis]


def _computed(jaxpr):
    """Shapes of all arrays that a jaxpr computes."""
    for eqn in jaxpr.eqns:
        for inner in jaxprs_in_params(eqn.params):
            yield from _computed(inner)
        yield from (var.aval for var in eqn.outvars)
