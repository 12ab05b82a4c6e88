"""Graphs as adjacency matrices [n, n]: their laws, what is reached, and how far.

adjacency[i, j] = 1 where an edge leads from i to j, int8, 0 on the diagonal.
"""

import chex
import jax
import jax.numpy as jnp

from ired_jax.types import Array


def draw_neighbours(key: Array, *, n: int, most: int, directed: bool) -> Array:
    """n points in the unit square, each with edges to its nearest: [n, n] int8.

    How many is uniform on 1, .., min(most, n - 1), each point's own; an undirected
    graph has an edge where either point has one.

    Source: Graves et al., Nature 538, 2016, and the released code of arXiv 2406.11179
    (`random_generate_graph_dnc`).
    """
    # One draw for all: each call of random bits takes seconds to compile.
    drawn, most = jax.random.uniform(key, (n, 3)), min(most, n - 1)
    points, degrees = drawn[:, :2], 1 + jnp.floor(most * drawn[:, 2:])
    squares = jnp.sum((points[:, None, :] - points[None, :, :]) ** 2, axis=-1)
    squares = jnp.where(jnp.eye(n, dtype=bool), jnp.inf, squares)
    # How many are nearer: counted, for a sort takes half a minute to compile.
    ranks = jnp.sum(squares[:, None, :] < squares[:, :, None], axis=-1)
    edges = ranks < degrees
    return (edges if directed else edges | edges.T).astype(jnp.int8)


def closure(adjacency: Array) -> Array:
    """Whether a path leads from i to j, of any length and also none: [n, n] bool.

    Of (I + A)^(2^k), k = ceil(log2 n), the entries that are not 0: exact.
    """
    n = _size(adjacency)
    reached = (adjacency != 0) | jnp.eye(n, dtype=bool)
    doublings = max(n - 1, 1).bit_length()
    return jax.lax.fori_loop(0, doublings, lambda _, r: _product(r, r), reached)


def distances_to(adjacency: Array, goal: Array) -> Array:
    """Edges of the shortest path from every node to `goal`, n where none: [n] int32."""
    n = _size(adjacency)
    edges = adjacency != 0

    def step(length, found):
        is_near = (edges & (found < length)[None, :]).any(axis=1)
        return jnp.where((found == n) & is_near, length, found)

    start = jnp.where(jnp.arange(n) == goal, 0, n).astype(jnp.int32)
    return jax.lax.fori_loop(1, n, step, start)


def distances(adjacency: Array, most: int) -> Array:
    """Edges of all shortest paths, most + 1 where there are more: [n, n] int32."""
    n = _size(adjacency)
    edges, itself = adjacency != 0, jnp.eye(n, dtype=bool)

    def step(_, carry):
        reached, length = carry
        reached = reached | _product(reached, edges)
        return reached, length + ~reached

    first = itself, (~itself).astype(jnp.int32)
    return jax.lax.fori_loop(0, most, step, first)[1]


def _product(left: Array, right: Array) -> Array:
    """Whether any k has left_ik and right_kj: counts of float32 are exact here."""
    return left.astype(jnp.float32) @ right.astype(jnp.float32) > 0


def _size(adjacency: Array) -> int:
    chex.assert_rank(adjacency, 2)
    n = adjacency.shape[0]
    chex.assert_shape(adjacency, (n, n))
    return n
