"""Shortest paths: what is drawn, right and wrong, and the energy on times by nodes."""

import functools
import itertools

import jax
import networkx as nx
import numpy as np
import pytest

from ired_jax import diffusion
from ired_jax.energies import route
from ired_jax.tasks import path
from tests import toys
from tests.mutants import Mutant, one

COUNT = 64
STEPS = 8


@functools.cache
def drawn(split):
    source = path.make_path().splits[split]
    keys = jax.random.split(jax.random.key(0), 400)
    draw = toys.jit(jax.vmap(source.draw, (None, 0)))
    return jax.tree.map(np.asarray, draw(source.data, keys))


def examples(split="val", count=COUNT):
    """x, a problem of leaves [N, ...], and y [N, 8, n]."""
    return jax.tree.map(lambda leaf: leaf[:count], drawn(split))


def problems(x):
    """One by one, with the graph of networkx and its distances to the goal."""
    for graph, start, goal in zip(*x, strict=True):
        of_networkx = nx.from_numpy_array(graph, create_using=nx.DiGraph)
        left = nx.shortest_path_length(of_networkx, target=int(goal))
        yield graph, int(start), int(goal), left


def rights(x, nodes):
    """networkx and plain Python: (first step, whole path) right, of nodes [N, 8]."""
    found = []
    for (graph, start, goal, left), path_of in zip(problems(x), nodes, strict=True):
        moves = list(itertools.pairwise(path_of))
        good = [
            a == b == goal or bool(graph[a, b] and left.get(b, 99) == left.get(a) - 1)
            if a in left
            else False
            for a, b in moves
        ]
        first = graph[start, path_of[1]] and left.get(path_of[1], 99) == left[start] - 1
        whole = path_of[0] == start and all(good) and path_of[-1] == goal
        found.append((float(first), float(whole)))
    return np.transpose(found)


@pytest.mark.parametrize("split, n, far", [("val", 15, (2, 5)), ("ood", 25, (4, 6))])
def test_drawn_paths_are_shortest_and_distances_uniform(split, n, far):
    x, y = examples(split, 400)
    assert x.adjacency.shape == (400, n, n)
    assert y.shape == (400, STEPS, n)
    assert np.all(np.sum(y > 0, -1) == 1)
    nodes = np.argmax(y, -1)
    np.testing.assert_array_equal(rights(x, nodes), 1)
    lengths = [left[start] for _, start, _, left in problems(x)]
    values, counts = np.unique(lengths, return_counts=True)
    np.testing.assert_array_equal(values, np.arange(far[0], far[1] + 1))
    # Binomial: five deviations.
    mean = 400 / len(values)
    assert np.max(np.abs(counts - mean)) < 5 * np.sqrt(mean)


def test_of_equally_short_paths_each_is_drawn():
    """A diamond: two ways of two edges, with one more edge to a dead end."""
    graph = np.zeros((5, 5), np.int8)
    for i, j in [(0, 1), (0, 2), (1, 3), (2, 3), (0, 4)]:
        graph[i, j] = 1
    x = path.Problem(graph, np.int32(0), np.int32(3))
    preference = np.float32(np.random.default_rng(0).random((400, 3, 5)))
    follow = toys.jit(jax.vmap(path._follow, (None, 0)))
    nodes = np.argmax(follow(x, preference), -1)
    ways, counts = np.unique(nodes, axis=0, return_counts=True)
    np.testing.assert_array_equal(ways, [[0, 1, 3, 3], [0, 2, 3, 3]])
    assert abs(counts[0] - 200) < 5 * 10
    answer = toys.jit(functools.partial(path.solve, steps=4))(x)
    np.testing.assert_array_equal(np.argmax(answer, -1), ways[0])


def test_the_first_row_is_known_and_no_other():
    x, y = examples()
    free, inside, held, _ = toys.in_box(path.make_path().train, x, y)
    assert not free[:, 0].any()
    assert free[:, 1:].all()
    assert inside.all()
    np.testing.assert_array_equal(held[:, 0], y[:, 0])


def _answers():
    """Truths, the other shortest paths, near misses and noise."""
    x, y = examples()
    rng = np.random.default_rng(0)
    strength = np.linspace(0, 2, COUNT)[:, None, None]
    return x, y, np.float32(y + strength * rng.normal(size=y.shape))


def test_first_steps_and_paths_are_judged_as_networkx_does():
    x, y, answers = _answers()
    task = path.make_path()
    nodes = np.argmax(answers, -1)
    first, whole = rights(x, nodes)
    found = {
        name: toys.jit(jax.vmap(metric.of_row))(x, y, answers)
        for name, metric in task.metrics.items()
    }
    np.testing.assert_array_equal(found["first_step"], first)
    np.testing.assert_array_equal(found["path"], whole)
    for values in found.values():
        assert 0.1 < np.mean(values) < 0.95
    wrong = toys.jit(jax.vmap(task.residual))(x, answers)
    np.testing.assert_array_equal(wrong == 0, whole)
    assert np.max(wrong) > 3


def test_a_walk_goes_along_edges_to_the_likeliest_neighbour():
    x, y, answers = _answers()
    walk = toys.jit(jax.vmap(path.walk))(x, answers)
    for graph, start, goal, answer, nodes in zip(*x, answers, walk, strict=True):
        here = start
        for row, node in zip(answer[1:], nodes[1:], strict=True):
            if here != goal:
                there = np.flatnonzero(graph[here])
                here = there[np.argmax(row[there])]
            assert node == here
    _, whole = rights(x, np.asarray(walk))
    found = toys.jit(jax.vmap(path.make_path().metrics["walk"].of_row))(x, y, answers)
    np.testing.assert_array_equal(found, whole)


def test_another_path_as_short_is_right_and_a_detour_is_not():
    x, y = examples()
    task = path.make_path()
    solved, arbitrary = (
        np.asarray(toys.jit(jax.vmap(task.solvers[name]))(x))
        for name in ("breadth-first search", "arbitrary edges")
    )
    assert np.any(solved != y)
    is_right = toys.jit(jax.vmap(task.metrics["path"].of_row))
    np.testing.assert_array_equal(is_right(x, y, solved), 1)
    waits = np.concatenate([y[:, :1], y[:, :-1]], axis=1)
    np.testing.assert_array_equal(is_right(x, y, waits), 0)
    first_step = toys.jit(jax.vmap(task.metrics["first_step"].of_row))
    first = [np.mean(first_step(x, y, answer)) for answer in (solved, arbitrary)]
    assert first[0] == 1
    assert 0.1 < first[1] < 0.6


def test_a_path_that_runs_out_of_time_is_wrong():
    chain = path.Problem(np.eye(6, k=1, dtype=np.int8), np.int32(0), np.int32(5))
    for steps, wrong in ((5, 1), (6, 0), (7, 0)):
        answer = toys.jit(functools.partial(path.solve, steps=steps))(chain)
        assert toys.jit(path.wrong_times)(chain, answer) == wrong


def test_a_corrupted_path_is_always_wrong_and_starts_at_the_start():
    x, y = examples()
    task = path.make_path()
    corrupt = toys.jit(jax.vmap(task.corrupt))
    moved = []
    for seed in range(8):
        keys = jax.random.split(jax.random.key(seed), COUNT)
        wrong = np.asarray(corrupt(keys, x, y))
        np.testing.assert_array_equal(wrong[:, 0], y[:, 0])
        assert np.all(np.sum(wrong > 0, -1) == 1)
        assert set(np.unique(wrong)) == {-1.0, 1.0}
        _, whole = rights(x, np.argmax(wrong, -1))
        assert not np.any(whole)
        moved.append(np.any(wrong != y, axis=-1).sum(1))
    # Of seven times, a share uniform on [0, .5] and at least one: about two.
    assert 1.5 < np.mean(moved) < 2.7


def test_a_path_that_stays_right_when_moved_is_put_off_its_goal():
    """A diamond: of its two middle nodes each is as good."""
    graph = np.zeros((4, 4), np.int8)
    for i, j in [(0, 1), (0, 2), (1, 3), (2, 3)]:
        graph[i, j] = 1
    x = path.Problem(graph, np.int32(0), np.int32(3))

    def residual(key, x):
        y = path.solve(x, steps=3)
        return path.wrong_times(x, path.corrupt(key, x, y, most=0.01))

    keys = jax.random.split(jax.random.key(0), 200)
    assert np.min(toys.jit(jax.vmap(residual, (0, None)))(keys, x)) > 0


def test_too_few_nodes_or_times_are_refused_by_name():
    with pytest.raises(ValueError, match="steps=2"):
        path.make_path(steps=2)


# --- the energy on times by nodes -------------------------------------------------


@functools.cache
def _energy(rounds=2):
    task, schedule = path.make_path(), diffusion.make_schedule("cosine", 4)
    sizes = {"channels": 4, "layers": 2, "rounds": rounds}
    energy = route.make_route(task.example, schedule, task.train.box, **sizes)
    params = toys.drawn_params(energy)
    # A sharp answer shows what it follows from; sums over neighbours stay below 1.
    params["head"]["kernel"] *= 20
    for layer in ("stack_0", "stack_1"):
        params[layer]["sent"]["bias"] -= 2
    return schedule, energy, params


@functools.cache
def _apply_and_propose():
    return toys.value_and_proposal(_energy()[1])


def _point(split="val"):
    x, y = examples(split)
    x = jax.tree.map(lambda leaf: leaf[0], x)
    return x, np.float32(y[0] + np.random.default_rng(1).normal(size=y[0].shape))


@pytest.mark.parametrize("split", ["val", "ood"])
def test_the_energy_is_the_same_in_every_order_of_the_nodes(split):
    """The same weights at 15 and at 25 nodes."""
    _, _, params = _energy()
    (x, y), t = _point(split), np.int32(2)
    order = np.random.default_rng(3).permutation(len(x.adjacency))
    new = np.int32(np.argsort(order))
    graph = x.adjacency[order][:, order]
    moved = path.Problem(graph, new[x.start], new[x.goal])
    both = _apply_and_propose()
    value, answer = both(params, x, y, t)
    same, found = both(params, moved, y[:, order], t)
    np.testing.assert_allclose(same, value, rtol=1e-4)
    np.testing.assert_allclose(found, answer[:, :, order], atol=1e-4)
    # It looks at the goal, at the direction of edges, and at the order of times.
    others = (
        (x._replace(goal=x.start), y),
        (x._replace(adjacency=x.adjacency.T), y),
        (x, y[[0, 2, 1, 3, 4, 5, 6, 7]]),
    )
    for other in others:
        assert abs(both(params, *other, t)[0] - value) > 1e-4 * value


def test_what_neighbours_say_does_not_grow_with_their_number():
    layer = route.Layer(channels=3)
    h = np.float32(np.random.default_rng(0).normal(size=(2, 500, 3)))
    few, every = np.zeros((500, 500), np.float32), np.ones((500, 500), np.float32)
    few[0, :4] = 1
    gain = bias = np.zeros(3, np.float32)
    params = toys.jit(layer.init)(jax.random.key(0), h, few, gain, bias)
    apply = toys.jit(layer.apply)
    changes = [
        np.abs(apply(params, h, edges, gain, bias) - h)[:, 0] for edges in (few, every)
    ]
    assert np.max(changes[1]) < 5 * max(np.max(changes[0]), 1)


def test_the_first_row_is_put_in_for_y_and_has_no_gradient():
    schedule, energy, params = _energy()
    (x, y), t = _point(), np.int32(1)
    grad = np.asarray(toys.jit(jax.grad(energy, 2))(params, x, y, t))
    np.testing.assert_array_equal(grad[0], 0)
    assert np.all(grad[1:] != 0)
    other = np.concatenate([np.full_like(y[:1], 7), y[1:]])
    value, proposed = _apply_and_propose()(params, x, y, t)
    np.testing.assert_array_equal(_apply_and_propose()(params, x, other, t)[0], value)
    assert proposed.shape == (2, STEPS, 15)
    np.testing.assert_array_equal(np.argmax(proposed[:, 0], -1), x.start)
    np.testing.assert_allclose(proposed.sum(-1), 2 - 15, atol=1e-4)
    gap = np.float64(y - schedule.a[t] * proposed[-1])[1:]
    expected = np.sum(gap**2) / (2 * np.float64(schedule.s[t]))
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_the_energy_of_record_is_small_and_bad_sizes_are_refused():
    task, schedule = path.make_path(), diffusion.make_schedule("cosine", 4)
    energy = route.make_route(task.example, schedule, task.train.box)
    shapes = jax.eval_shape(energy.init, jax.random.key(0))
    assert 10_000 < sum(leaf.size for leaf in jax.tree.leaves(shapes)) < 100_000
    with pytest.raises(ValueError, match="layers=0"):
        route.make_route(task.example, schedule, task.train.box, layers=0)


MUTANTS = [
    Mutant(
        "path",
        "a step may go anywhere that is nearer",
        "ired_jax.tasks.path",
        one("return (is_edge & (left[node]", "return ((left[node]"),
        test_first_steps_and_paths_are_judged_as_networkx_does,
    ),
    Mutant(
        "path",
        "a path may wait before its goal",
        "ired_jax.tasks.path",
        one("((here == x.goal) & (there == x.goal))", "(here == there)"),
        test_another_path_as_short_is_right_and_a_detour_is_not,
    ),
    Mutant(
        "path",
        "a path may stop before its goal",
        "ired_jax.tasks.path",
        one(" + (nodes[-1] != x.goal)", ""),
        test_a_path_that_runs_out_of_time_is_wrong,
    ),
    Mutant(
        "path",
        "ties go to the first node",
        "ired_jax.tasks.path",
        one("jnp.where(is_next, preference, -1.0)", "is_next"),
        test_of_equally_short_paths_each_is_drawn,
    ),
    Mutant(
        "path",
        "a corrupted path may be as short",
        "ired_jax.tasks.path",
        one("jnp.where(_wrong(x, nodes) > 0, nodes[-1], away)", "nodes[-1]"),
        test_a_path_that_stays_right_when_moved_is_put_off_its_goal,
    ),
    Mutant(
        "path",
        "a corrupted path may begin elsewhere",
        "ired_jax.tasks.path",
        one("jnp.append(False, (score", "jnp.append(True, (score"),
        test_a_corrupted_path_is_always_wrong_and_starts_at_the_start,
    ),
    Mutant(
        "path",
        "a walk leaves the edges",
        "ired_jax.tasks.path",
        one("jnp.where(x.adjacency[node] != 0, row, -jnp.inf)", "row"),
        test_a_walk_goes_along_edges_to_the_likeliest_neighbour,
    ),
    Mutant(
        "path",
        "the goal is known too",
        "ired_jax.tasks.path",
        one(
            "Box(jnp.concatenate([known, -rest])",
            "Box(jnp.concatenate([known, -rest]).at[-1].set(1.0)",
        ),
        test_the_first_row_is_known_and_no_other,
    ),
    Mutant(
        "path",
        "edges lead both ways for the energy",
        "ired_jax.energies.route",
        one(
            "return (adjacency != 0).astype(y.dtype), ends, y",
            "return (adjacency + adjacency.T != 0).astype(y.dtype), ends, y",
        ),
        test_the_energy_is_the_same_in_every_order_of_the_nodes,
        {"split": "val"},
    ),
    Mutant(
        "path",
        "the energy knows which node comes first",
        "ired_jax.energies.route",
        one(
            'jnp.einsum("ij,ljc->lic", edges, ahead)',
            'jnp.einsum("ij,ljc->lic", edges.at[0].set(1), ahead)',
        ),
        test_the_energy_is_the_same_in_every_order_of_the_nodes,
        {"split": "val"},
    ),
    Mutant(
        "path",
        "neighbours are added up without bound",
        "ired_jax.energies.route",
        one("_of_times(-jnp.expm1(-part))", "_of_times(part)"),
        test_what_neighbours_say_does_not_grow_with_their_number,
    ),
]
