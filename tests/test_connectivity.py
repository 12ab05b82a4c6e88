"""Connectivity: what is drawn, known, right and wrong, and the energy on pairs."""

import functools

import chex
import jax
import networkx as nx
import numpy as np
import pytest

from ired_jax import diffusion
from ired_jax.energies import closure
from ired_jax.tasks import connectivity
from tests import toys
from tests.mutants import Mutant, one

COUNT = 64


@functools.cache
def drawn(split, n):
    source = connectivity.make_connectivity(n=n).splits[split]
    keys = jax.random.split(jax.random.key(0), 1024)
    draw = toys.jit(jax.vmap(source.draw, (None, 0)))
    return jax.tree.map(np.asarray, draw(source.data, keys))


def examples(split="val", count=COUNT, n=12):
    """x int8 [N, n, n] and y [N, n, n]."""
    return jax.tree.map(lambda leaf: leaf[:count], drawn(split, n))


def connected(graph):
    """networkx: [n, n] in +-1."""
    reached = -np.ones(graph.shape)
    for part in nx.connected_components(nx.from_numpy_array(graph)):
        reached[np.ix_(list(part), list(part))] = 1
    return reached


@pytest.mark.parametrize("split, n", [("val", 12), ("ood", 18), ("ood32", 32)])
def test_answers_are_the_components_of_networkx_at_every_size(split, n):
    x, y = examples(split)
    assert x.shape == y.shape == (COUNT, n, n)
    assert (x.dtype, y.dtype) == (np.int8, np.float32)
    for graph, answer in zip(x, y, strict=True):
        np.testing.assert_array_equal(answer, connected(graph))


@pytest.mark.parametrize("split, share", [("val", 0.633), ("ood", 0.77)])
def test_the_majority_class_is_as_large_as_in_the_published_data(split, share):
    _, y = examples(split, 1024)
    reached = (y > 0).mean((1, 2))
    error = reached.std() / np.sqrt(len(reached))
    assert abs(reached.mean() - share) < 4 * error + 0.005


def test_the_diagonal_and_the_edges_are_known_and_nothing_else():
    x, y = examples()
    free, inside, held, _ = toys.in_box(connectivity.make_connectivity().train, x, y)
    np.testing.assert_array_equal(free, (x == 0) & ~np.eye(12, dtype=bool))
    assert inside.all()
    np.testing.assert_array_equal(held[~free], 1)


def _shares(graph, answer):
    """NumPy: shares of pairs, of graphs, and the mean of shares by kind."""
    truth, unknown = connected(graph), (graph == 0) & ~np.eye(len(graph), dtype=bool)
    right = np.sign(answer) == truth
    kinds = [right[unknown & (truth == kind)] for kind in (1, -1)]
    shares = [np.mean(kind) for kind in kinds if kind.size]
    return np.mean(right), float(right.all()), np.mean(shares) if shares else 1.0


def test_figures_are_numpy_s():
    task, (x, y) = connectivity.make_connectivity(), examples()
    noise = np.random.default_rng(0).normal(size=y.shape)
    strength = np.linspace(0, 1, COUNT)[:, None, None]
    answers = np.float32(y + strength * noise)
    expected = [_shares(*row) for row in zip(x, answers, strict=True)]
    for name, values in zip(task.metrics, np.transpose(expected), strict=True):
        found = toys.jit(jax.vmap(task.metrics[name].of_row))(x, y, answers)
        np.testing.assert_allclose(found, values, rtol=1e-5)
        assert 0 < np.mean(values) < 1
    wrong = toys.jit(jax.vmap(task.residual))(x, answers)
    np.testing.assert_allclose(wrong, [144 * (1 - e[0]) for e in expected], atol=1e-3)


def test_solvers_are_all_right_and_no_better_than_a_coin():
    task, (x, y) = connectivity.make_connectivity(), examples()

    @toys.jit
    @jax.vmap
    def solved(x, y):
        majority = task.solvers["majority class"](x)
        balanced = task.metrics["balanced"].of_row(x, y, majority)
        return task.solvers["repeated squaring"](x), balanced

    squared, balanced = solved(x, y)
    np.testing.assert_array_equal(squared, y)
    unknown = [(graph == 0) & ~np.eye(len(graph), dtype=bool) for graph in x]
    pairs = zip(y, unknown, strict=True)
    both = [len(np.unique(truth[open_])) == 2 for truth, open_ in pairs]
    assert sum(both) > 10
    np.testing.assert_allclose(np.asarray(balanced)[both], 0.5)


def test_corrupted_answers_are_wrong_both_ways_symmetric_and_keep_what_is_known():
    x, y = examples()
    corrupt = toys.jit(jax.vmap(connectivity.make_connectivity().corrupt))
    added, removed, shares = 0, 0, []
    for seed in range(6):
        keys = jax.random.split(jax.random.key(seed), COUNT)
        wrong = np.asarray(corrupt(keys, x, y))
        chex.assert_trees_all_equal_shapes_and_dtypes(wrong, y)
        np.testing.assert_array_equal(wrong, wrong.swapaxes(1, 2))
        assert set(np.unique(wrong)) == {-1.0, 1.0}
        is_flipped = wrong != y
        unknown = (x == 0) & ~np.eye(12, dtype=bool)
        assert not np.any(is_flipped & ~unknown)
        assert np.all(is_flipped.any((1, 2)))
        added += np.sum(is_flipped & (y < 0))
        removed += np.sum(is_flipped & (y > 0))
        shares.append(is_flipped.sum((1, 2)) / unknown.sum((1, 2)))
    # The share is uniform on [0, .5], deviation .144, and each of the pairs' coins.
    share = np.ravel(shares)
    assert abs(np.mean(share) - 0.25) < 5 * 0.16 / np.sqrt(share.size)
    # Alike: in proportion to what there is.
    there = np.sum(unknown & (y < 0)) / np.sum(unknown)
    assert abs(added / (added + removed) - there) < 0.1


def test_a_graph_of_which_all_is_known_has_no_wrong_answer():
    full = 1 - np.eye(4, dtype=np.int8)
    task, y = connectivity.make_connectivity(), np.ones((4, 4), np.float32)
    corrupted = toys.jit(task.corrupt)(jax.random.key(0), full, y)
    np.testing.assert_array_equal(corrupted, y)
    assert toys.jit(task.metrics["balanced"].of_row)(full, y, -y) == 1


def test_a_graph_of_one_node_is_refused_by_name():
    with pytest.raises(ValueError, match="n_harder=1"):
        connectivity.make_connectivity(n_harder=1)


# --- the energy on pairs ----------------------------------------------------------


@functools.cache
def _energy(rounds=3):
    schedule = diffusion.make_schedule("cosine", 4)
    box = connectivity.box_of
    energy = closure.make_closure(schedule, box, channels=5, layers=2, rounds=rounds)
    return schedule, energy, toys.drawn_params(energy)


@functools.cache
def _apply_and_propose():
    return toys.value_and_proposal(_energy()[1])


def _point(n=5, seed=1):
    x, y = examples(n=n)
    y_t = y[seed] + np.random.default_rng(seed).normal(size=(n, n))
    return x[seed], np.float32(y_t)


@pytest.mark.parametrize("n", [5, 9])
def test_the_energy_is_the_same_in_every_order_of_the_nodes(n):
    both, (_, _, params) = _apply_and_propose(), _energy()
    (x, y), t = _point(n), np.int32(2)
    order = np.random.default_rng(3).permutation(n)
    moved = x[order][:, order], y[order][:, order]
    assert np.any(moved[0] != x)
    value, answer = both(params, x, y, t)
    same, found = both(params, *moved, t)
    np.testing.assert_allclose(same, value, rtol=1e-4)
    # The graph alone in another order: it is not an energy that is blind to x.
    assert abs(both(params, moved[0], y, t)[0] - value) > 1e-3 * value
    np.testing.assert_allclose(found, answer[:, order][:, :, order], atol=1e-4)
    np.testing.assert_allclose(answer, answer.swapaxes(1, 2), atol=1e-6)
    assert np.max(np.abs(answer)) <= 1


def test_what_a_product_finds_does_not_grow_with_the_number_of_nodes():
    """Sixteen copies of every node: sums would be sixteen times as large."""
    layer = closure.Layer(channels=3)
    rng = np.random.default_rng(0)
    h = np.float32(rng.normal(size=(4, 4, 3)))
    gain = bias = np.zeros(3, np.float32)
    params = toys.jit(layer.init)(jax.random.key(0), h, gain, bias)
    params = jax.tree.map(lambda leaf: 3 * np.asarray(leaf), params)
    huge = np.tile(h, (16, 16, 1))
    found = np.asarray(toys.jit(layer.apply)(params, huge, gain, bias)) - huge
    assert np.max(np.abs(found)) < 100 * np.max(np.abs(h))
    np.testing.assert_allclose(found[:4, :4], found[4:8, 4:8], rtol=1e-4)


def test_what_is_known_is_put_in_for_y_and_has_no_gradient():
    schedule, energy, params = _energy()
    (x, y), t = _point(), np.int32(1)
    grad = np.asarray(toys.jit(jax.grad(energy, 2))(params, x, y, t))
    known = np.asarray(toys.jit(connectivity.is_known)(x))
    np.testing.assert_array_equal(grad[known], 0)
    assert np.all(grad[~known] != 0)
    other = np.where(known, np.float32(7), y)
    value, proposed = _apply_and_propose()(params, x, y, t)
    np.testing.assert_array_equal(_apply_and_propose()(params, x, other, t)[0], value)
    np.testing.assert_array_equal(proposed[:, known], 1)
    gap = np.float64(y - schedule.a[t] * proposed[-1])[~known]
    expected = np.sum(gap**2) / (2 * np.float64(schedule.s[t]))
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_rounds_go_on_from_each_other():
    _, _, params = _energy()
    (x, y), t = _point(), np.int32(3)
    _, proposed = _apply_and_propose()(params, x, y, t)
    longer = np.asarray(toys.jit(_energy(rounds=4)[1].propose)(params, x, y, t))
    assert (len(proposed), len(longer)) == (3, 4)
    np.testing.assert_allclose(longer[:3], proposed, atol=1e-6)
    assert np.any(longer[3] != longer[2])


def test_the_energy_of_record_is_small_and_bad_sizes_are_refused():
    schedule, box = diffusion.make_schedule("cosine", 4), connectivity.box_of
    energy = closure.make_closure(schedule, box)
    shapes = jax.eval_shape(energy.init, jax.random.key(0))
    assert 10_000 < sum(leaf.size for leaf in jax.tree.leaves(shapes)) < 100_000
    with pytest.raises(ValueError, match="rounds=0"):
        closure.make_closure(schedule, box, rounds=0)
    x, y = np.zeros((3, 3), np.int8), np.ones((4, 4), np.float32)
    with pytest.raises((AssertionError, ValueError, TypeError)):
        jax.eval_shape(energy.apply, shapes, x, y, np.int32(0))


MUTANTS = [
    Mutant(
        "connectivity",
        "links are only ever deleted",
        "ired_jax.tasks.connectivity",
        one("jnp.where(is_wrong, -y, y)", "jnp.where(is_wrong, -1.0, y)"),
        test_corrupted_answers_are_wrong_both_ways_symmetric_and_keep_what_is_known,
    ),
    Mutant(
        "connectivity",
        "a corrupted link is one way",
        "ired_jax.tasks.connectivity",
        one("jnp.inf, drawn + drawn.T)", "jnp.inf, drawn + 2 * drawn.T)"),
        test_corrupted_answers_are_wrong_both_ways_symmetric_and_keep_what_is_known,
    ),
    Mutant(
        "connectivity",
        "a corruption touches edges",
        "ired_jax.tasks.connectivity",
        (
            ("score = jnp.where(is_known(x)", "score = jnp.where(jnp.eye(len(x)) > 0"),
            ("is_wrong = ~is_known(x) & (", "is_wrong = ("),
        ),
        test_corrupted_answers_are_wrong_both_ways_symmetric_and_keep_what_is_known,
    ),
    Mutant(
        "connectivity",
        "a corrupted answer may be the right one",
        "ired_jax.tasks.connectivity",
        one("((score < share) | (score == jnp.min(score)))", "(score < share)"),
        test_corrupted_answers_are_wrong_both_ways_symmetric_and_keep_what_is_known,
    ),
    Mutant(
        "connectivity",
        "edges are not known",
        "ired_jax.tasks.connectivity",
        one("return (x != 0) | jnp.eye", "return (x > 1) | jnp.eye"),
        test_the_diagonal_and_the_edges_are_known_and_nothing_else,
    ),
    Mutant(
        "connectivity",
        "the balanced share counts what is known",
        "ired_jax.tasks.connectivity",
        one("unknown, is_right = ~is_known(x), (", "unknown, is_right = x == x, ("),
        test_figures_are_numpy_s,
    ),
    Mutant(
        "connectivity",
        "the energy knows which node comes first",
        "ired_jax.energies.closure",
        one('"ikc,kjc->ijc", left', '"ikc,kjc->ijc", left.at[0].set(0)'),
        test_the_energy_is_the_same_in_every_order_of_the_nodes,
        {"n": 5},
    ),
    Mutant(
        "connectivity",
        "products are sums that grow with the nodes",
        "ired_jax.energies.closure",
        one("some = -jnp.expm1(-jnp.einsum(", "some = 1e3 * (jnp.einsum("),
        test_what_a_product_finds_does_not_grow_with_the_number_of_nodes,
    ),
    Mutant(
        "connectivity",
        "an answer leads one way",
        "ired_jax.energies.closure",
        one("(logits + logits.T) / 4", "(logits + logits) / 4"),
        test_the_energy_is_the_same_in_every_order_of_the_nodes,
        {"n": 5},
    ),
]
