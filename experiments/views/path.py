"""Problems in a JSON file; paths are written as a JSON list of lists of nodes.

A file is a list of {"adjacency": [[0, 1, ..], ..], "start": 0, "goal": 4}, where
adjacency[i][j] is 1 if an edge leads from i to j. A path is [0, 2, 4], or null.
"""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse.csgraph import shortest_path

from experiments.errors import UserError
from experiments.run.files import write_bytes
from experiments.views.base import draw_graph, reading
from ired_jax.tasks.path import Problem

EDGE, FOUND, WRONG = (0.75, 0.75, 0.75), (0.1, 0.4, 0.9), (0.9, 0.1, 0.1)
PARTS = ("adjacency", "start", "goal")


def read(path: str) -> list[Any]:
    """The problems of a file, as they stand there.

    Raises:
      UserError: no such file, or not a list of problems.
    """
    with reading(path, "JSON", (OSError, ValueError, RecursionError)):
        problems = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    problems = [problems] if isinstance(problems, dict) else problems
    if not isinstance(problems, list) or not problems:
        raise UserError(f"--input={path}: must be a list of problems")
    return problems


def sizes(inputs: Sequence) -> dict[str, int]:
    """The fields of a task that holds these: as many nodes as the first good one."""
    good = (p for p in inputs if _problem(p, None) is None)
    first = next(good, None)
    return {} if first is None else {"task.n": len(first["adjacency"])}


def check(inputs: Sequence) -> list[str | None]:
    """A sentence for each that is no problem or has no path."""
    n = sizes(inputs).get("task.n")
    return [_problem(problem, n) for problem in inputs]


def _problem(problem: Any, n: int | None) -> str | None:
    if not isinstance(problem, dict) or set(problem) != set(PARTS):
        return f"must have {', '.join(PARTS)} and nothing else"
    try:
        graph = np.asarray(problem["adjacency"])
    except ValueError:
        graph = np.zeros(())
    if graph.ndim != 2 or graph.shape[0] != graph.shape[1] or len(graph) < 3:
        return "has an adjacency that is not a square matrix of at least 3 nodes"
    if graph.dtype.kind not in "biuf" or not np.isin(graph, (0, 1)).all():
        return "has an adjacency with other entries than 0 and 1"
    if n is not None and len(graph) != n:
        return f"has {len(graph)} nodes, the others of its file {n}: one size a file"
    ends = [problem["start"], problem["goal"]]
    for name, node in zip(PARTS[1:], ends, strict=True):
        if type(node) is not int or not 0 <= node < len(graph):
            return f"has {name}={node!r}, must be a node, 0 to {len(graph) - 1}"
    if ends[0] == ends[1]:
        return f"starts at its goal, {ends[0]}"
    if not np.isfinite(_distances(graph)[tuple(ends)]):
        return f"has no path from {ends[0]} to {ends[1]}"
    return None


def to_x(problem: dict) -> Problem:
    """The problem as arrays; edges from a node to itself say nothing."""
    graph = np.asarray(problem["adjacency"])
    graph = np.where(np.eye(len(graph), dtype=bool), 0, graph).astype(np.int8)
    return Problem(graph, np.int32(problem["start"]), np.int32(problem["goal"]))


def to_answer(y: np.ndarray) -> list[int]:
    """The node of each time, y [steps, n], up to where it stays for good."""
    nodes = np.argmax(y, axis=-1).tolist()
    while len(nodes) > 1 and nodes[-1] == nodes[-2]:
        nodes.pop()
    return nodes


def write(path: Path, answers: np.ndarray) -> None:
    """Paths of answers [N, steps, n] as a JSON list; null where a row is NaN."""
    paths = [None if np.isnan(y).any() else to_answer(y) for y in answers]
    lines = ",\n ".join(json.dumps(nodes) for nodes in paths)
    write_bytes(Path(path), f"[{lines}]\n".encode())


def is_right(x: Problem, answer: np.ndarray) -> bool | None:
    """Whether it goes along edges from start to goal and no path is shorter.

    None: it is not finite, or an answer has too few times for any path.
    """
    shortest = _shortest(x)
    if not np.isfinite(answer).all() or shortest > len(answer) - 1:
        return None
    nodes = to_answer(answer)
    is_path = nodes[0] == x.start and nodes[-1] == x.goal
    is_path &= all(x.adjacency[a, b] for a, b in itertools.pairwise(nodes))
    return bool(is_path and len(nodes) - 1 == shortest)


def describe(x: Problem, answer: np.ndarray) -> dict[str, Any]:
    """Edges of the answer, and of a shortest path by breadth-first search."""
    edges = len(to_answer(answer)) - 1 if np.isfinite(answer).all() else None
    return {"edges": edges, "shortest": _shortest(x)}


def _shortest(x: Problem) -> int:
    """Edges of a shortest path, -1 where there is none."""
    length = _distances(x.adjacency)[x.start, x.goal]
    return int(length) if np.isfinite(length) else -1


def _distances(graph: np.ndarray) -> np.ndarray:
    return shortest_path(np.asarray(graph, float), unweighted=True)


def draw(axis, x: Problem, truth: np.ndarray | None, answer: np.ndarray) -> None:
    """The graph on a circle, the path in blue; steps that are no edge red and dashed.

    Start and goal are named.
    """
    del truth  # there may be others as short
    n, nodes = len(x.adjacency), to_answer(answer)
    lines = [(i, j, EDGE, 0.5, "-") for i, j in np.argwhere(x.adjacency != 0)]
    for i, j in itertools.pairwise(nodes):
        is_edge = x.adjacency[i, j]
        lines.append((i, j, *((FOUND, 2.0, "-") if is_edge else (WRONG, 2.0, "--"))))
    names = {int(x.start): "start", int(x.goal): "goal"}
    draw_graph(axis, n, lines, names)
    says = {True: "right", False: "wrong", None: "unknown"}[is_right(x, answer)]
    figures = describe(x, answer)
    title = f"{says}: {figures['edges']} edges, {figures['shortest']} would do"
    axis.set_title(title, fontsize=8)
