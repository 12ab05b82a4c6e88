"""A replay buffer on the device: one first-in-first-out ring per bucket of levels.

Fixed shapes, pure functions, no host round trip. Rows are a pytree of arrays; here
{x, y0, y, t}, so that a replayed negative keeps the condition and the level that it was
made with. Entries y are in y_t space. Donate the state to insert in place.

Source: Du, Mordatch, arXiv 1903.08689, section 3.1 (replay of Langevin negatives).
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from ired_jax.types import Array, Tree


class ReplayState(NamedTuple):
    """The rings. Slots at or beyond `size` hold zeros, never returned as real.

    Rings in parts have a leading axis of parts in each leaf; `init`, `insert` and
    `sample` are of one part.
    """

    rows: Tree  # each leaf [num_buckets, capacity, ...]
    head: Array  # [num_buckets] int32, the slot that the next row takes
    size: Array  # [num_buckets] int32, rows held

    @property
    def num_buckets(self) -> int:
        return self.head.shape[-1]

    @property
    def capacity(self) -> int:
        return jax.tree.leaves(self.rows)[0].shape[1]


def init(example: Tree, *, num_buckets: int, capacity: int) -> ReplayState:
    """Makes empty rings.

    Args:
      example: one row, a pytree of arrays (only shapes and dtypes are used).
      num_buckets: rings, at least 1.
      capacity: rows a ring, at least 1.

    Raises:
      ValueError: num_buckets or capacity below 1.
    """
    if num_buckets < 1 or capacity < 1:
        raise ValueError(
            f"num_buckets={num_buckets}, capacity={capacity}: both must be at least 1"
        )

    def ring(leaf):
        return jnp.zeros((num_buckets, capacity, *leaf.shape), leaf.dtype)

    def count():  # two arrays: one buffer cannot be donated twice
        return jnp.zeros(num_buckets, jnp.int32)

    return ReplayState(jax.tree.map(ring, example), head=count(), size=count())


def bucket_of(t: Array, *, num_levels: int, num_buckets: int) -> Array:
    """floor(t / (T - 1) (num_buckets - 1)), in integers: the bucket of level t.

    With num_buckets >= T each level has a bucket of its own; more than T leaves the
    rest empty. Shape of t, int32.
    """
    chex.assert_type(t, int)
    return t.astype(jnp.int32) * (num_buckets - 1) // max(num_levels - 1, 1)


def insert(state: ReplayState, rows: Tree, bucket: Array) -> ReplayState:
    """Appends rows to their buckets in order; the oldest fall out.

    Several rows may go to one bucket, and more than its capacity: the newest stay.

    Args:
      state: the rings.
      rows: each [B, ...], of the example's shapes and dtypes.
      bucket: [B] int32 in [0, num_buckets); a row of another is dropped.
    """
    chex.assert_rank(bucket, 1)
    chex.assert_type(bucket, int)
    _assert_rows_fit(state, rows, bucket.shape[0])
    rank, count = _rank_within_bucket(bucket, state.num_buckets)
    slot = (state.head[bucket] + rank) % state.capacity
    # Of more rows than slots only the last `capacity` are written: two rows in one slot
    # would be settled in no particular order. Rows of no bucket are dropped: a negative
    # index would count from the end. Each index is used once, which the compiler may
    # rely on.
    is_newest = rank >= count[bucket] - state.capacity
    is_in = (bucket >= 0) & (bucket < state.num_buckets)
    outside = state.num_buckets * state.capacity + jnp.arange(bucket.shape[0])
    target = jnp.where(is_newest & is_in, bucket * state.capacity + slot, outside)

    def write(ring, new):
        flat = _flat(ring).at[target].set(new, mode="drop", unique_indices=True)
        return flat.reshape(ring.shape)

    return ReplayState(
        rows=jax.tree.map(write, state.rows, rows),
        head=(state.head + count) % state.capacity,
        size=jnp.minimum(state.size + count, state.capacity),
    )


def sample(key: Array, state: ReplayState, bucket: Array) -> tuple[Tree, Array]:
    """Draws one row uniformly from each requested bucket, with replacement.

    Args:
      key: PRNG key.
      state: the rings.
      bucket: [B] int32 in [0, num_buckets).

    Returns:
      rows, each [B, ...], and is_available [B] bool: False where the bucket is empty,
      whose row is zeros.
    """
    chex.assert_rank(bucket, 1)
    chex.assert_type(bucket, int)
    size = state.size[bucket]
    # One draw of bits where randint takes three: uniform to a part in 2^32 / size.
    bits = jax.random.bits(key, bucket.shape, jnp.uint32)
    slot = bits % jnp.maximum(size, 1).astype(jnp.uint32)
    place = bucket * state.capacity + slot.astype(jnp.int32)
    return jax.tree.map(lambda ring: _flat(ring)[place], state.rows), size > 0


def _flat(ring: Array) -> Array:
    """[num_buckets * capacity, ...]: one index copies rows whole, two do not."""
    return ring.reshape(-1, *ring.shape[2:])


def _rank_within_bucket(bucket: Array, num_buckets: int) -> tuple[Array, Array]:
    """How many earlier rows share the bucket [B], and rows a bucket [num_buckets]."""
    is_in = jax.nn.one_hot(bucket, num_buckets, dtype=jnp.int32)
    seen = jnp.cumsum(is_in, axis=0)
    rank = jnp.take_along_axis(seen, bucket[:, None], axis=1)[:, 0] - 1
    return rank, seen[-1]


def _assert_rows_fit(state: ReplayState, rows: Tree, batch_size: int) -> None:
    chex.assert_trees_all_equal_structs(state.rows, rows)
    for ring, new in zip(*map(jax.tree.leaves, (state.rows, rows)), strict=True):
        chex.assert_shape(new, (batch_size, *ring.shape[2:]))
        chex.assert_type(new, ring.dtype)
