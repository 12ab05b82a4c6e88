"""Graphs and paths as a person holds them: read, checked, written, drawn."""

import functools
import json

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments.errors import UserError
from experiments.views import connectivity as pairs_view
from experiments.views import path as path_view
from ired_jax.tasks import connectivity, path
from tests import toys
from tests.mutants import Mutant, one

TWO_PARTS = [[0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
CHAIN = [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
PROBLEM = {"adjacency": CHAIN, "start": 0, "goal": 3}


@functools.cache
def drawn(name):
    """Three examples of a task, NumPy."""
    task = {
        "connectivity": lambda: connectivity.make_connectivity(n=7),
        "path": lambda: path.make_path(n=7, steps=5),
    }[name]()
    keys = jax.random.split(jax.random.key(0), 3)
    draw = toys.jit(jax.vmap(task.train.draw, (None, 0)))
    return jax.tree.map(np.asarray, draw((), keys))


# --- connectivity -----------------------------------------------------------------


def test_graphs_are_read_and_what_is_connected_is_written(tmp_path):
    x, y = drawn("connectivity")
    np.save(tmp_path / "graphs.npy", x.astype(float))
    inputs = pairs_view.read(str(tmp_path / "graphs.npy"))
    assert pairs_view.check(inputs) == [None] * 3
    assert pairs_view.sizes(inputs) == {"task.n": 7}
    np.testing.assert_array_equal([pairs_view.to_x(row) for row in inputs], x)
    pairs_view.write(tmp_path / "out.npy", 0.3 * y)
    written = np.load(tmp_path / "out.npy")
    np.testing.assert_array_equal(written, (y > 0).astype(int))
    assert written.dtype == np.int8
    np.save(tmp_path / "one.npy", x[0])
    assert pairs_view.read(str(tmp_path / "one.npy")).shape == (1, 7, 7)
    loops = x[0] + np.eye(7, dtype=int)
    np.testing.assert_array_equal(pairs_view.to_x(loops), x[0])


@pytest.mark.parametrize(
    "change, says",
    [
        ((0, 2, 2), "has 2 in row 0, column 2, must be 0 or 1"),
        ((0, 2, np.nan), "has nan in row 0, column 2, must be 0 or 1"),
        ((0, 2, 1), "is not symmetric: an edge joins 0 and 2 one way only"),
    ],
)
def test_a_matrix_that_is_no_graph_is_named_and_the_others_are_solved(change, says):
    i, j, value = change
    bad = np.float64(TWO_PARTS)
    bad[i, j] = value
    assert pairs_view.check([np.float64(TWO_PARTS), bad]) == [None, says]


@pytest.mark.parametrize(
    "array, says",
    [
        (np.zeros((2, 3, 4)), "must be (N, n, n)"),
        (np.zeros((0, 3, 3)), "N >= 1"),
        (np.array(["a"]), "real numbers"),
    ],
)
def test_a_file_that_holds_no_square_matrices_is_refused(tmp_path, array, says):
    file = tmp_path / "graphs.npy"
    np.save(file, array)
    with pytest.raises(UserError) as caught:
        pairs_view.read(str(file))
    assert says in str(caught.value)
    file.write_bytes(b"nothing")
    with pytest.raises(UserError, match="not a readable"):
        pairs_view.read(str(file))
    with pytest.raises(UserError, match="no such file"):
        pairs_view.read(str(tmp_path / "none.npy"))


def test_an_answer_is_called_right_where_it_is_checked_and_wrong_where_not():
    x, right = np.int8(TWO_PARTS), -np.ones((4, 4))
    right[:3, :3] = right[3, 3] = 1
    wrong = np.where(np.eye(4, k=3) > 0, 1, right)
    for answer, is_right, count in (
        (right, True, 0),
        (wrong, False, 1),
        (np.nan * right, None, None),
    ):
        assert pairs_view.is_right(x, answer) is is_right
        assert pairs_view.describe(x, answer) == {"wrong pairs": count}


def test_edges_are_black_found_pairs_blue_and_wrong_ones_dashed():
    x, right = np.int8(TWO_PARTS), -np.ones((4, 4))
    right[:3, :3] = right[3, 3] = 1
    lower = np.where(np.eye(4, k=-3) > 0, 1, right)
    for answer, wrong, title in (
        (right, 0, "right"),
        (np.where(right > 0, -1, 1), 4, "16 of 16 pairs wrong"),
        (lower, 1, "1 of 16 pairs wrong"),
    ):
        axis = Figure().subplots()
        pairs_view.draw(axis, x, None, answer)
        styles = [line.get_linestyle() for line in axis.lines]
        assert styles.count("--") == wrong
        black = [line for line in axis.lines if line.get_color() == "black"]
        assert len(black) == 2 + 1  # edges, and the nodes
        assert axis.get_title() == title
    axis = Figure().subplots()
    pairs_view.draw(axis, x, None, np.nan * right)
    assert axis.get_title() == "not finite"


# --- path -------------------------------------------------------------------------


def test_problems_are_read_and_paths_are_written(tmp_path):
    x, y = drawn("path")
    problems = [
        {"adjacency": graph.tolist(), "start": int(start), "goal": int(goal)}
        for graph, start, goal in zip(*x, strict=True)
    ]
    file = tmp_path / "problems.json"
    file.write_text(json.dumps(problems))
    inputs = path_view.read(str(file))
    assert path_view.check(inputs) == [None] * 3
    assert path_view.sizes(inputs) == {"task.n": 7}
    for index, problem in enumerate(inputs):
        found, row = path_view.to_x(problem), jax.tree.map(lambda a, i=index: a[i], x)
        jax.tree.map(np.testing.assert_array_equal, found, row)
        assert path_view.is_right(found, y[index])
        figures = path_view.describe(found, y[index])
        assert figures["edges"] == figures["shortest"] >= 2
    path_view.write(tmp_path / "out.json", np.append(y, np.nan * y[:1], 0))
    *paths, none = json.loads((tmp_path / "out.json").read_text())
    assert none is None
    for nodes, start, goal in zip(paths, x.start, x.goal, strict=True):
        assert (nodes[0], nodes[-1]) == (start, goal)
        assert len(set(nodes)) == len(nodes)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"goal": 0}, "starts at its goal, 0"),
        ({"goal": 4}, "has goal=4, must be a node, 0 to 3"),
        ({"start": True}, "has start=True, must be a node, 0 to 3"),
        ({"start": 3, "goal": 0}, "has no path from 3 to 0"),
        ({"adjacency": CHAIN[:3]}, "has an adjacency that is not a square matrix"),
        ({"adjacency": [[0, 1], [0]]}, "has an adjacency that is not a square matrix"),
        ({"adjacency": np.full((4, 4), 2).tolist()}, "other entries than 0 and 1"),
        ({"adjacency": np.eye(5, k=1).tolist()}, "has 5 nodes, the others of its file"),
        ({"way": 1}, "must have adjacency, start, goal and nothing else"),
    ],
)
def test_a_bad_problem_is_named_and_the_others_are_solved(change, says):
    first, second = path_view.check([PROBLEM, PROBLEM | change])
    assert first is None
    assert says in (second or "")


def test_a_file_that_holds_no_problems_is_refused(tmp_path):
    file = tmp_path / "problems.json"
    deep = "[" * 100_000
    bad = [(text, "not a readable") for text in ("[", deep)]
    for text, says in (*bad, ("[]", "list of"), ("3", "list of")):
        file.write_text(text)
        with pytest.raises(UserError, match=says):
            path_view.read(str(file))
    with pytest.raises(UserError, match="no such file"):
        path_view.read(str(tmp_path / "none.json"))
    for encoding in ("utf-8", "utf-8-sig"):
        file.write_text(json.dumps(PROBLEM), encoding)
        assert path_view.read(str(file)) == [PROBLEM]


@pytest.mark.parametrize(
    "nodes, is_right",
    [
        ([0, 1, 2, 3, 3], True),
        ([0, 1, 1, 2, 3], False),  # waits
        ([0, 1, 3, 3, 3], False),  # no edge
        ([0, 1, 2, 2, 2], False),  # stops
        ([1, 2, 3, 3, 3], False),  # starts elsewhere
        ([0, 1, 2], None),  # the answer has too few times
    ],
)
def test_a_path_is_called_right_where_it_is_checked(nodes, is_right):
    answer = np.asarray(path.encode(np.array(nodes), 4))
    assert path_view.is_right(path_view.to_x(PROBLEM), answer) is is_right


def test_a_longer_way_than_need_be_is_wrong():
    graph = np.array(CHAIN)
    graph[0, 3] = 1
    x = path_view.to_x(PROBLEM | {"adjacency": graph.tolist()})
    answer = np.asarray(path.encode(np.array([0, 1, 2, 3, 3]), 4))
    assert path_view.is_right(x, answer) is False
    assert path_view.describe(x, answer) == {"edges": 3, "shortest": 1}


def test_a_path_is_drawn_in_blue_and_steps_that_are_no_edge_dashed():
    x = path_view.to_x(PROBLEM)
    for nodes, dashed in (([0, 1, 2, 3, 3], 0), ([0, 2, 3, 3, 3], 1)):
        axis = Figure().subplots()
        path_view.draw(axis, x, None, np.asarray(path.encode(np.array(nodes), 4)))
        styles = [line.get_linestyle() for line in axis.lines]
        assert styles.count("--") == dashed
        assert {"start", "goal"} <= {text.get_text() for text in axis.texts}
        assert axis.get_title().startswith("wrong" if dashed else "right")


MUTANTS = [
    Mutant(
        "views",
        "a pair that is wrong one way alone is not drawn",
        "experiments.views.connectivity",
        one(" | (found != right).T", ""),
        test_edges_are_black_found_pairs_blue_and_wrong_ones_dashed,
    ),
    Mutant(
        "views",
        "an answer is right as it says itself",
        "experiments.views.connectivity",
        one("to_answer(answer) != _connected(x)", "to_answer(answer) != (answer > 0)"),
        test_an_answer_is_called_right_where_it_is_checked_and_wrong_where_not,
    ),
    Mutant(
        "views",
        "a one-way edge is let through",
        "experiments.views.connectivity",
        one("if np.any(graph != graph.T):", "if False:"),
        test_a_matrix_that_is_no_graph_is_named_and_the_others_are_solved,
        {"change": (0, 2, 1), "says": "is not symmetric"},
    ),
    Mutant(
        "views",
        "any path to the goal is right",
        "experiments.views.path",
        one("is_path and len(nodes) - 1 == shortest", "is_path"),
        test_a_longer_way_than_need_be_is_wrong,
    ),
    Mutant(
        "views",
        "a problem without a path is let through",
        "experiments.views.path",
        one("if not np.isfinite(_distances(graph)[tuple(ends)]):", "if False:"),
        test_a_bad_problem_is_named_and_the_others_are_solved,
        {"change": {"start": 3, "goal": 0}, "says": "has no path"},
    ),
]
