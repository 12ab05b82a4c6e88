"""Laws of graphs, what is reached and how far: against networkx and SciPy."""

import functools

import jax
import networkx as nx
import numpy as np
import pytest
from scipy.sparse import csgraph

from ired_jax import graphs
from tests import toys
from tests.mutants import Mutant, one

COUNT = 200
KINDS = [(2, False), (7, False), (7, True), (12, True)]


@functools.cache
def drawn(n, directed, most=2, count=COUNT):
    def draw(key):
        return graphs.draw_neighbours(key, n=n, most=most, directed=directed)

    keys = jax.random.split(jax.random.key(0), count)
    return np.asarray(toys.jit(jax.vmap(draw))(keys))


def shortest(graph):
    """SciPy: [n, n], inf where there is no path."""
    return csgraph.shortest_path(np.float64(graph), unweighted=True)


@pytest.mark.parametrize("n, directed", KINDS)
def test_what_is_reached_is_what_networkx_reaches(n, directed):
    rows = drawn(n, directed)
    found = np.asarray(toys.jit(jax.vmap(graphs.closure))(rows))
    kind = nx.DiGraph if directed else nx.Graph
    for graph, reached in zip(rows[:40], found, strict=False):
        of_networkx = nx.from_numpy_array(graph, create_using=kind)
        for i in range(n):
            nodes = {i} | set(nx.descendants(of_networkx, i))
            assert set(np.flatnonzero(reached[i])) == nodes


def test_a_chain_is_reached_from_end_to_end():
    for n in (2, 5, 16, 17, 33):
        reached = toys.jit(graphs.closure)(np.eye(n, k=1, dtype=np.int8))
        np.testing.assert_array_equal(reached, np.triu(np.ones((n, n))))


@pytest.mark.parametrize("n, directed", KINDS)
def test_distances_are_those_of_scipy_and_beyond_them_one_number(n, directed):
    rows = drawn(n, directed)
    to_goal = toys.jit(jax.vmap(graphs.distances_to, (0, None)))(rows, 1)
    near = toys.jit(jax.vmap(lambda graph: graphs.distances(graph, 2)))(rows)
    expected = np.stack([shortest(graph) for graph in rows])
    to_one = expected[:, :, 1]
    np.testing.assert_array_equal(to_goal, np.where(np.isinf(to_one), n, to_one))
    np.testing.assert_array_equal(near, np.minimum(expected, 3))
    assert n < 7 or np.isinf(expected).any()


@pytest.mark.parametrize("directed", [False, True])
def test_points_are_joined_to_their_nearest_one_to_most(directed):
    n, most = 9, 3
    rows = drawn(n, directed, most=most, count=600)
    assert rows.dtype == np.int8
    assert set(np.unique(rows)) == {0, 1}
    assert not np.any(np.diagonal(rows, axis1=1, axis2=2))
    degrees = rows.sum(2)
    assert degrees.min() == 1
    if directed:
        # Uniform on 1, 2, 3: counts of 5,400 are binomial, deviation 35.
        counts = np.bincount(degrees.ravel(), minlength=4)[1:]
        assert len(counts) == most
        assert np.max(np.abs(counts - degrees.size / 3)) < 5 * 35
        # The nearest of two is as a rule mutual: 62 % of nearest pairs in the plane.
        nearest = drawn(n, True, most=1, count=600)
        share = np.mean((nearest * nearest.swapaxes(1, 2)).sum(2))
        assert 0.55 < share < 0.75
    else:
        np.testing.assert_array_equal(rows, rows.swapaxes(1, 2))


def test_more_neighbours_than_there_are_others_are_all_of_them():
    rows = drawn(3, True, most=9, count=50)
    assert rows.sum(2).max() == 2


MUTANTS = [
    Mutant(
        "graphs",
        "one doubling too few",
        "ired_jax.graphs",
        one("max(n - 1, 1).bit_length()", "(n - 1).bit_length() - 1"),
        test_a_chain_is_reached_from_end_to_end,
    ),
    Mutant(
        "graphs",
        "distances go along the edges the wrong way",
        "ired_jax.graphs",
        one(
            "(edges & (found < length)[None, :]).any(axis=1)",
            "(edges & (found < length)[:, None]).any(axis=0)",
        ),
        test_distances_are_those_of_scipy_and_beyond_them_one_number,
        {"n": 7, "directed": True},
    ),
    Mutant(
        "graphs",
        "a point is its own nearest",
        "ired_jax.graphs",
        one("jnp.eye(n, dtype=bool), jnp.inf, squares", "False, jnp.inf, squares"),
        test_points_are_joined_to_their_nearest_one_to_most,
        {"directed": False},
    ),
]
