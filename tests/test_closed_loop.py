"""Closed loop: steps along edges, as many as are needed, a plan for each."""

from types import SimpleNamespace

import jax
import networkx as nx
import numpy as np
import pytest

from examples import closed_loop
from experiments.build import build
from experiments.score.trained import Trained
from tests import tiny
from tests.mutants import Mutant, one

N, ROWS = 9, 12


def _problems():
    rng = np.random.default_rng(0)
    rows = []
    while len(rows) < ROWS:
        a = (rng.random((N, N)) < 0.25) & ~np.eye(N, dtype=bool)
        graph = nx.from_numpy_array(a.astype(int), create_using=nx.DiGraph)
        start, goal = rng.choice(N, 2, replace=False)
        if nx.has_path(graph, start, goal):
            rows.append((graph, a, start, goal))
    graphs, a, start, goal = zip(*rows, strict=True)
    return graphs, np.array(a), np.array(start), np.array(goal)


def _knows(graphs, goal):
    """A plan that prefers what is nearer to the goal."""
    left = np.full((ROWS, N), 99.0)
    for i, graph in enumerate(graphs):
        for node, steps in nx.shortest_path_length(graph, target=int(goal[i])).items():
            left[i, node] = steps
    return lambda here: -left


def test_who_knows_the_way_is_there_in_the_least_number_of_steps_and_stays():
    graphs, a, start, goal = _problems()
    length = closed_loop.lengths(a, start, goal)
    expected = [
        nx.shortest_path_length(g, int(s), int(t))
        for g, s, t in zip(graphs, start, goal, strict=True)
    ]
    np.testing.assert_array_equal(length, expected)
    assert len(set(length)) > 1
    places = closed_loop.walk(_knows(graphs, goal), a, start, goal, most=length.max())
    is_there = places == goal[:, None]
    np.testing.assert_array_equal(is_there.argmax(1), length)
    assert np.all(is_there[:, -1])


def test_every_step_is_an_edge_and_planned_where_the_walker_is():
    _, a, start, goal = _problems()
    seen, rng = [], np.random.default_rng(1)

    def plan(here):
        seen.append(here)
        return rng.random((ROWS, N))

    places = closed_loop.walk(plan, a, start, goal, most=4)
    np.testing.assert_array_equal(np.stack(seen, 1), places[:, :-1])
    for i in range(ROWS):
        for here, there in zip(places[i], places[i, 1:], strict=False):
            assert a[i, here, there] or here == there == goal[i] or not a[i, here].any()


def test_an_untrained_energy_has_a_share_between_0_and_1():
    experiment = build(tiny.get_config("path", energy__rounds=1, eval__rounds=1))
    params = jax.jit(experiment.energy.init)(jax.random.key(0))
    model = Trained(experiment, None, params, 0, 0)
    found = closed_loop.figures(model, 8)
    assert set(found) == set(experiment.task.splits)
    for parts in found.values():
        assert 0 <= parts["closed loop"] <= 1
        assert parts["steps"] >= 1


def test_a_model_of_another_task_is_refused(monkeypatch, capsys):
    config = SimpleNamespace(task=SimpleNamespace(name="inverse"))
    model = SimpleNamespace(config=config)
    monkeypatch.setattr(closed_loop.trained, "load", lambda _: model)
    with pytest.raises(SystemExit, match="2"):
        closed_loop.main(["--workdir=run"])
    assert "--workdir=run: must be of the task path" in capsys.readouterr().err


MUTANTS = [
    Mutant(
        "closed loop",
        "a step need not be an edge",
        "examples.closed_loop",
        one("adjacency[rows, here] > 0", "adjacency[rows, here] >= 0"),
        test_every_step_is_an_edge_and_planned_where_the_walker_is,
    ),
    Mutant(
        "closed loop",
        "a walker goes on from the goal",
        "examples.closed_loop",
        one("np.where(here == goal, here, ", "np.where(here < 0, here, "),
        test_who_knows_the_way_is_there_in_the_least_number_of_steps_and_stays,
    ),
    Mutant(
        "closed loop",
        "the plan is that of the start",
        "examples.closed_loop",
        one("plan(here), -np.inf", "plan(places[0]), -np.inf"),
        test_every_step_is_an_edge_and_planned_where_the_walker_is,
    ),
]
