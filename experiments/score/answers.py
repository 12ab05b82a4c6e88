"""Answers to a person's own inputs: what is said of them, and what is seen."""

import csv
import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.score.tables import tables
from experiments.score.thinking import Thought
from experiments.views.base import View
from ired_jax.types import Tree

LINES_SHOWN = 20
VERDICTS = {True: "right", False: "wrong", None: "unknown"}


class Answers(NamedTuple):
    """Answers to N inputs; energies rank answers to one input, not inputs."""

    answer: list[Any]  # as the view holds one; None where refused
    y: Tree  # leaves [N, ...]; NaN where refused
    figures: dict[str, list]  # the view's, [N] each; None where refused
    is_right: list[bool | None]  # [N] by the view's check; None: it cannot say
    energy: np.ndarray  # [N] E(x, y, 0)
    steps: np.ndarray  # [N] descent steps taken, over all levels and restarts
    refused: dict[int, str]  # what is wrong with inputs, by their number
    thought: Thought | None = None  # of the input that was watched

    @property
    def wrong(self) -> list[int]:
        """The numbers of answers that the check calls wrong."""
        return [i for i, is_right in enumerate(self.is_right) if is_right is False]

    @property
    def not_finite(self) -> list[int]:
        """The numbers of answers that are not finite, refused inputs left out."""
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves((self.y, self.energy))]
        bad = [~np.isfinite(leaf).reshape(len(leaf), -1).all(axis=1) for leaf in leaves]
        return [i for i in np.flatnonzero(np.any(bad, 0)) if i not in self.refused]


def put_together(
    view: View,
    x: list[Tree],
    parts: tuple[Tree, np.ndarray, np.ndarray],
    good: np.ndarray,
    refused: dict[int, str],
    count: int,
) -> Answers:
    """Answers, energies and steps of the solved inputs at their places among all.

    Args:
      view: of the task.
      x: of the solved inputs.
      parts: y, energy and steps of these, stacked.
      good: their numbers.
      refused: what is wrong with the others, by number.
      count: of all inputs.
    """
    y = [jax.tree.map(lambda leaf, i=i: leaf[i], parts[0]) for i in range(len(x))]
    rows = dict(zip(good, zip(x, y, strict=True), strict=True))
    figures = {i: view.describe(*row) for i, row in rows.items()}
    names, checks = figures[good[0]], view.is_right
    y, energy, steps = (_spread(part, good, count) for part in parts)
    return Answers(
        [view.to_answer(rows[i][1]) if i in rows else None for i in range(count)],
        y,
        {n: [figures.get(i, {}).get(n) for i in range(count)] for n in names},
        [checks(*rows[i]) if checks and i in rows else None for i in range(count)],
        energy,
        steps,
        refused,
    )


def _spread(tree: Tree, rows: np.ndarray, count: int) -> Tree:
    """Leaves [len(rows), ...] at their places among `count`, the others NaN (or 0)."""

    def spread(leaf):
        leaf = np.asarray(leaf)
        empty = np.nan if leaf.dtype.kind == "f" else 0
        whole = np.full((count, *leaf.shape[1:]), empty, leaf.dtype)
        whole[rows] = leaf
        return whole

    return jax.tree.map(spread, tree)


def _columns(answers: Answers) -> dict[str, list]:
    """What is said of each input; None where it was refused."""
    columns = {
        "verdict": [VERDICTS[is_right] for is_right in answers.is_right],
        **answers.figures,
        "energy": answers.energy.tolist(),
        "steps": answers.steps.tolist(),
    }
    for column in columns.values():
        for row in answers.refused:
            column[row] = None
    return columns


def drawn(view: View, x: Mapping[int, Tree], answers: Answers) -> list[str]:
    """The answers to some inputs in characters, with rich's markup."""

    def one(row: int) -> str:
        y = jax.tree.map(lambda leaf: leaf[row], answers.y)
        return f"input {row}\n{view.text(x[row], y)}"

    return [one(row) for row in x]


def as_csv(answers: Answers) -> str:
    """A row for each input, empty where it was refused."""
    text, columns = io.StringIO(), _columns(answers)
    writer = csv.writer(text)
    writer.writerow(["index", *columns])
    for index, cells in enumerate(zip(*columns.values(), strict=True)):
        writer.writerow([index, *cells])
    return text.getvalue()


def tables_of(answers: Answers) -> list:
    """The first few inputs, for a terminal."""
    count = len(answers.answer)
    cells = {
        name: [_cell(value) for value in column[:LINES_SHOWN]]
        for name, column in _columns(answers).items()
    }
    more = f"{count - LINES_SHOWN} more in the .csv file"
    return tables(
        f"answered: {count - len(answers.refused)} of {count}, numbered from 0",
        [str(index) for index in range(min(count, LINES_SHOWN))],
        cells,
        corner="input",
        caption=more if count > LINES_SHOWN else None,
    )


def _cell(value) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
