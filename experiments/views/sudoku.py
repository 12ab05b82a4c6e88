"""Boards as lines of 81 characters, row by row; 0 or . where a cell is empty.

What follows a board after a blank, as its solution, is passed over, and so is a line
that begins with #. Of a .csv file each row's first field is the board, a row that names
the columns is passed over.
"""

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from experiments.data import sudoku as puzzles
from experiments.data import sudoku_search
from experiments.data.sudoku import Settings
from experiments.data.sudoku_files import may_be_header
from experiments.errors import UserError
from experiments.run.files import write_bytes
from experiments.views.base import reading
from ired_jax.fields import Part

ALLOWED = "0123456789."
SETTINGS = Settings()
MOST_TRIES = 5_000  # of the search for solutions, a second or so
GIVEN, RIGHT, UNSURE = "black", (0.1, 0.4, 0.9), (0.9, 0.2, 0.1)


def load_data(
    *, settings: Annotated[Settings, Part(Settings)] = SETTINGS
) -> puzzles.Sets:
    """The sets by name -> {"puzzle", "solution"}, int8 [N, 9, 9]."""
    return puzzles.load(settings)


def read(path: str) -> list[str]:
    """The lines of a text file; those without any character are left out.

    Raises:
      UserError: no such file, or no line in it.
    """
    with reading(path, "text"):
        text = Path(path).read_text(encoding="utf-8-sig")
    lines = (line.strip() for line in text.splitlines())
    boards = [_first(line) for line in lines if line and line[0] != "#"]
    if path.lower().endswith(".csv") and boards:
        boards = [re.split("[,;]", line)[0].strip(' "') for line in boards]
        boards = boards[may_be_header(boards[0]) :]
    if not boards:
        raise UserError(f"--input={path}: holds no board")
    return boards


def _first(line: str) -> str:
    """The board of a line that begins with one, else the line."""
    word = line.split()[0]
    return word if len(word) == 81 else line


def check(inputs: Sequence[str]) -> list[str | None]:
    """A sentence for each line that is no board or has no answer; None: it may."""
    return [
        _no_board(line) or _problem(to_x(line)) or _unsolvable(line) for line in inputs
    ]


def warn(inputs: Sequence[str]) -> list[str | None]:
    """Says which boards have several solutions: any of them counts as right."""
    said = "has more than one solution"
    return [said if _num_solutions(line) == 2 else None for line in inputs]


@functools.lru_cache(maxsize=4_096)
def _num_solutions(line: str) -> int | None:
    """0, 1, or 2 for more; None where a search would take too long."""
    cells = to_x(line).ravel().tolist()
    try:
        return len(sudoku_search.solutions(cells, 2, most_tries=MOST_TRIES))
    except sudoku_search.TooLong:
        return None


def _unsolvable(line: str) -> str | None:
    return "has no solution" if _num_solutions(line) == 0 else None


def _no_board(line: str) -> str | None:
    strange = set(line) - set(ALLOWED)
    if strange:
        return f"holds {min(strange)!r}, allowed are digits, and 0 or . where empty"
    return f"has {len(line)} characters, must be 81" if len(line) != 81 else None


def _problem(x: np.ndarray) -> str | None:
    blocks = x.reshape(3, 3, 3, 3).swapaxes(1, 2).reshape(9, 9)
    for name, units in (("row", x), ("column", x.T), ("block", blocks)):
        for number, unit in enumerate(units, start=1):
            digits, counts = np.unique(unit[unit > 0], return_counts=True)
            if np.any(counts > 1):
                return f"{name} {number} has two {digits[np.argmax(counts)]}s"
    for i, j in np.argwhere(x == 0):
        seen = {*x[i], *x[:, j], *blocks[i // 3 * 3 + j // 3]} - {0}
        if len(seen) == 9:
            return f"no digit is left for row {i + 1}, column {j + 1}"
    return None


def to_x(line: str) -> np.ndarray:
    """A board's digits, int8 [9, 9], 0 where empty."""
    return np.array([int(c) if c != "." else 0 for c in line], np.int8).reshape(9, 9)


def write(path: Path, answers: np.ndarray) -> None:
    """The likeliest digits of answers [N, 9, 9, 9], a line of 81 for each.

    A row that is NaN has no answer: its line is of points.
    """
    grids = np.argmax(answers, -1) + 1
    texts = np.where(np.isnan(answers).any(-1), ".", grids.astype(str))
    lines = ("".join(text.ravel()) + "\n" for text in texts)
    write_bytes(Path(path), "".join(lines).encode())


def is_right(x: np.ndarray, answer: np.ndarray) -> bool | None:
    """Whether rows, columns and blocks have each digit and all givens are kept.

    None: it is not finite, and no digit is written where it is NaN.
    """
    is_board = describe(x, answer)["broken rules"] == 0
    return is_board if np.isfinite(answer).all() else None


def describe(x: np.ndarray, answer: np.ndarray) -> dict[str, Any]:
    """How much of one board is wrong: digits missing of a unit, givens not kept."""
    grid = np.argmax(answer, -1) + 1
    blocks = grid.reshape(3, 3, 3, 3).swapaxes(1, 2).reshape(9, 9)
    missing = sum(9 - len(set(unit)) for unit in (*grid, *grid.T, *blocks))
    broken = missing + int(np.sum((x > 0) & (grid != x)))
    return {"broken rules": broken}


def text(x: np.ndarray, answer: np.ndarray) -> str:
    """The board in lines of characters, its givens bold; . where there is no answer."""
    grid, is_none = np.argmax(answer, -1) + 1, np.isnan(answer).any(-1)

    def cell(i: int, j: int) -> str:
        return "." if is_none[i, j] else marks[int(x[i, j] > 0)].format(grid[i, j])

    marks = "{}", "[bold]{}[/]"
    border = "+-------+-------+-------+"
    lines = [border]
    for i in range(9):
        parts = (" ".join(cell(i, j) for j in range(b, b + 3)) for b in (0, 3, 6))
        lines.append(f"| {' | '.join(parts)} |")
        lines += [border] if i % 3 == 2 else []
    return "\n".join(lines)


def draw(axis, x: np.ndarray, truth: np.ndarray | None, answer: np.ndarray) -> None:
    """The board: givens black, answers blue where certain to red where not.

    Certainty is the gap of a cell's two likeliest digits, 2 at most. A digit that is
    not the truth's has a red frame.
    """
    grid, ranked = np.argmax(answer, -1) + 1, np.sort(answer, -1)
    certainty = np.clip((ranked[..., -1] - ranked[..., -2]) / 2, 0, 1)[..., None]
    colours = certainty * np.array(RIGHT) + (1 - certainty) * np.array(UNSURE)
    wrong = grid != (grid if truth is None else np.argmax(truth, -1) + 1)
    for i, j in np.ndindex(9, 9):
        axis.text(
            *(j + 0.5, i + 0.5, str(grid[i, j])),
            color=GIVEN if x[i, j] else tuple(colours[i, j]),
            ha="center",
            va="center",
            bbox={"facecolor": "none", "edgecolor": "red"} if wrong[i, j] else None,
        )
    for line in range(10):
        width = 2.0 if line % 3 == 0 else 0.5
        axis.plot([line, line], [0, 9], color="black", linewidth=width)
        axis.plot([0, 9], [line, line], color="black", linewidth=width)
    axis.set(xlim=(0, 9), ylim=(9, 0), aspect="equal")
    axis.axis("off")
