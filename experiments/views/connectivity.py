"""Undirected graphs in .npy files; what is connected is written as .npy of 0 and 1."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse.csgraph import connected_components

from experiments.errors import UserError
from experiments.views.arrays import read_npy, write_npy
from experiments.views.base import draw_graph

EDGE, FOUND, WRONG = "black", (0.1, 0.4, 0.9), (0.9, 0.1, 0.1)


def read(path: str) -> np.ndarray:
    """Adjacency matrices [N, n, n]; one alone [n, n] counts as N = 1.

    Raises:
      UserError: no such file, or not square matrices of real numbers.
    """
    graphs = read_npy(path, "fiub")
    graphs = graphs[None] if graphs.ndim == 2 else graphs
    shape = graphs.shape
    if len(shape) != 3 or shape[1] != shape[2] or shape[1] < 2 or not graphs.size:
        raise UserError(
            f"--input={path}: shape {shape}, must be (N, n, n), N >= 1 and n >= 2"
        )
    return graphs


def sizes(inputs: Sequence) -> dict[str, int]:
    """The fields of a task that holds these graphs."""
    return {"task.n": np.shape(inputs)[-1]}


def check(inputs: Sequence) -> list[str | None]:
    """A sentence for each matrix that is no undirected graph."""
    return [_problem(np.asarray(graph)) for graph in inputs]


def _problem(graph: np.ndarray) -> str | None:
    strange = ~((graph == 0) | (graph == 1))
    if strange.any():
        i, j = np.argwhere(strange)[0]
        return f"has {graph[i, j]:g} in row {i}, column {j}, must be 0 or 1"
    if np.any(graph != graph.T):
        i, j = np.argwhere(graph != graph.T)[0]
        return f"is not symmetric: an edge joins {i} and {j} one way only"
    return None


def to_x(graph: np.ndarray) -> np.ndarray:
    """[n, n] -> x int8 [n, n]; edges from a node to itself say nothing."""
    return np.where(np.eye(len(graph), dtype=bool), 0, graph).astype(np.int8)


def to_answer(y: np.ndarray) -> np.ndarray:
    """y [n, n] -> 1 where connected, else 0: int8."""
    return (np.asarray(y) > 0).astype(np.int8)


def write(path: Path, answers: np.ndarray) -> None:
    """Answers [N, n, n] as .npy of 0 and 1; a row that is NaN has none: 0."""
    write_npy(path, to_answer(answers))


def is_right(x: np.ndarray, answer: np.ndarray) -> bool | None:
    """Whether the answer is what the graph's components say; None: not finite."""
    wrong = describe(x, answer)["wrong pairs"]
    return None if wrong is None else wrong == 0


def describe(x: np.ndarray, answer: np.ndarray) -> dict[str, Any]:
    """How many of the n^2 pairs are not as the graph's components say."""
    if not np.isfinite(answer).all():
        return {"wrong pairs": None}
    return {"wrong pairs": int(np.sum(to_answer(answer) != _connected(x)))}


def _connected(x: np.ndarray) -> np.ndarray:
    _, part = connected_components(np.asarray(x) != 0, directed=False)
    return part[:, None] == part[None, :]


def draw(axis, x: np.ndarray, truth: np.ndarray | None, answer: np.ndarray) -> None:
    """The graph on a circle: edges black, pairs found blue; wrong ones red and dashed.

    A wrong pair is one that the graph connects and the answer does not, or the reverse.
    """
    del truth  # the graph says it
    found, right = to_answer(answer) > 0, _connected(x)
    known = (np.asarray(x) != 0) | np.eye(len(x), dtype=bool)
    lines = []
    is_wrong = (found != right) | (found != right).T  # answers need not be symmetric
    for i, j in np.argwhere(np.triu((right | is_wrong) & ~known, 1)):
        style = (WRONG, 1.4, "--") if is_wrong[i, j] else (FOUND, 0.5, "-")
        lines.append((i, j, *style))
    lines += [(i, j, EDGE, 2.0, "-") for i, j in np.argwhere(np.triu(x != 0, 1))]
    draw_graph(axis, len(x), lines)
    wrong = describe(x, answer)["wrong pairs"]
    title = f"{wrong} of {np.size(x)} pairs wrong" if wrong else "right"
    axis.set_title("not finite" if wrong is None else title, fontsize=8)
