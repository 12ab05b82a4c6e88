"""Sudokus in files: lines of 81 characters, CSV, and the tensors of published data.

- Text and CSV: of each line the first field of 81 characters is the puzzle, 0 or .
  where empty; a second one, if any, is its solution. Other fields, as a number or a
  difficulty, are passed over, and so is a first line without a board.
- `features.pt` with `labels.pt` beside it, one-hot [N, 9, 9, 9], all 0 where empty: the
  data of SATNet (arXiv 1905.12149). They are read with torch.
"""

import functools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.data import sudoku_search
from experiments.errors import UserError

Rows = dict[str, np.ndarray]  # "puzzle", "solution": int8 [N, 9, 9]
HERE = Path(__file__).parent
FEWEST = 40  # digits or dots of what is meant for a board
BOARD = re.compile(r"(?<![^\s,;\"])[0-9.]{81}(?![^\s,;\"])")
MOST_TRIES = 100_000  # of the search for a solution, half a minute or so


@functools.cache
def published(name: str) -> Rows:
    """The puzzles of `<name>.txt` beside this file and their only solutions."""
    return read(HERE / f"{name}.txt")


def read(path: Path | str) -> Rows:
    """The puzzles of a file and their solutions, which are found where not given.

    Raises:
      UserError: no such file, no board in it, or a row that is no puzzle and its
        solution; it names the file and the row.
    """
    path = Path(path)
    try:
        if path.suffix == ".pt":
            puzzles, answers = (_of_tensor(part) for part in parts(path))
        else:
            puzzles, answers = _of_text(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: there is no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not a readable file") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    if not len(puzzles) or puzzles.shape != answers.shape:
        raise UserError(f"{path}: holds {len(puzzles)} boards, {len(answers)} answers")
    return _checked(path, puzzles, answers)


def digits(boards: Sequence[str]) -> np.ndarray:
    """Boards of 81 characters as digits, int8 [N, 9, 9], 0 where empty."""
    found = np.frombuffer("".join(boards).replace(".", "0").encode(), np.uint8)
    return (found - ord("0")).astype(np.int8).reshape(-1, 9, 9)


def text(board: np.ndarray) -> str:
    """Digits [9, 9] as 81 characters."""
    return "".join(map(str, np.ravel(board)))


def may_be_header(line: str) -> bool:
    """Whether it names columns: a board, with a typo or cut off, has no such line."""
    is_text = any(map(str.isalpha, line))
    return is_text and len(re.findall(r"[0-9.]", line)) < FEWEST


def _of_text(content: str) -> tuple[np.ndarray, np.ndarray]:
    """Puzzles and solutions [N, 9, 9]; a solution that is not given is all 0."""
    puzzles, answers = [], []
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        boards = BOARD.findall(line)
        if not boards and not (number == 1 and may_be_header(line)):
            raise ValueError(f"line {number} holds no board of 81 digits")
        if boards:
            puzzles.append(boards[0])
            answers.append(boards[1] if len(boards) > 1 else "0" * 81)
    return digits(puzzles), digits(answers)


def parts(path: Path | str) -> list[Path]:
    """The files that hold puzzles and solutions: of `features.pt` two.

    Raises:
      ValueError: a .pt of another name.
    """
    path = Path(path)
    if path.suffix != ".pt":
        return [path]
    if "features" not in path.name:
        raise ValueError("must be named features.pt, with labels.pt beside it")
    return [path, path.with_name(path.name.replace("features", "labels"))]


def _of_tensor(path: Path) -> np.ndarray:
    """One-hot [N, 9, 9, 9] of a torch file -> digits [N, 9, 9]."""
    try:
        import torch
    except ImportError as error:
        raise UserError(f"{path}: reading it needs torch, pip install torch") from error
    try:
        hot = torch.load(path, weights_only=True).numpy()
    except FileNotFoundError:
        raise
    except Exception as error:  # torch has no error of its own for it
        raise ValueError("is not a file of one tensor") from error
    if hot.ndim != 4 or hot.shape[1:] != (9, 9, 9):
        raise ValueError(f"is of shape {hot.shape}, must be (N, 9, 9, 9)")
    return (hot.argmax(-1) + 1).astype(np.int8) * (hot.max(-1) > 0)


def _checked(path: Path, puzzles: np.ndarray, answers: np.ndarray) -> Rows:
    """The rows, with the solutions that were not given."""
    answers = answers.copy()
    for row in np.flatnonzero((puzzles > 0).all((1, 2))):
        # Of a line whose puzzle is cut off the solution would be the puzzle.
        raise UserError(f"{path}: board {row + 1} has no empty cell")
    for row in np.flatnonzero((answers == 0).all((1, 2))):
        cells = puzzles[row].ravel().tolist()
        try:
            found = sudoku_search.solutions(cells, 2, most_tries=MOST_TRIES)
        except sudoku_search.TooLong as error:
            said = "has no solution that is found soon: give it, or leave it out"
            raise UserError(f"{path}: board {row + 1} {said}") from error
        if len(found) != 1:
            many = "more than one solution" if found else "no solution"
            raise UserError(f"{path}: board {row + 1} has {many}")
        answers[row] = np.reshape(found[0], (9, 9))
    is_kept = ((puzzles == 0) | (puzzles == answers)).all((1, 2))
    for row in np.flatnonzero(~(is_kept & is_solved(answers))):
        raise UserError(f"{path}: the solution of board {row + 1} is none")
    return {"puzzle": puzzles, "solution": answers}


def is_solved(grids: np.ndarray) -> np.ndarray:
    """Whether each unit of grids [N, 9, 9] has each digit once: [N] bool."""
    blocks = grids.reshape(-1, 3, 3, 3, 3).swapaxes(2, 3).reshape(-1, 9, 9)
    sides = (grids, grids.swapaxes(1, 2), blocks)
    whole = np.arange(1, 10)
    return np.all([(np.sort(s, 2) == whole).all((1, 2)) for s in sides], axis=0)
