"""Tables in .npy or .csv files, NaN or empty where unseen; completed as .npy."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from experiments.errors import UserError
from experiments.views.arrays import in_float32, read_npy, write_npy
from experiments.views.base import reading

SPREADS = (0.1, 1.0)  # of what is seen: .19 in distribution, .64 in the harder set


def read(path: str) -> np.ndarray:
    """Tables [N, n, m] float32, NaN where unseen; one alone [n, m] counts as N = 1.

    Raises:
      UserError: no such file, or not a table of numbers.
    """
    is_text = path.lower().endswith(".csv")
    tables = _numbers(path) if is_text else read_npy(path)
    tables = tables[None] if tables.ndim == 2 else tables
    if tables.ndim != 3 or not tables.size:
        raise UserError(f"--input={path}: shape {tables.shape}, must be (N, n, m)")
    return in_float32(tables)


def _numbers(path: str) -> np.ndarray:
    """The table of a .csv, NaN where a cell is empty; a word is no unseen number."""
    sentence = reading(path, ".csv", (OSError, ValueError, csv.Error))
    with sentence, open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.reader(file))
    # In a table of one column an empty line is an unseen number.
    empty = [""] if max(map(len, rows), default=0) == 1 else []
    rows = [[*(row or empty)] for row in rows if row or empty]
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            try:
                row[j] = float(cell.strip() or "nan")
            except ValueError as error:
                raise UserError(
                    f"--input={path}: has {cell!r} in row {i}, column {j}, must be a"
                    " number, empty where unseen"
                ) from error
    if len({len(row) for row in rows}) > 1:
        raise UserError(f"--input={path}: has rows of different lengths")
    return np.array(rows, ndmin=2)


def check(inputs: np.ndarray) -> list[str | None]:
    """A sentence for each table that has no answer here, None for the others."""
    return [_problem(table) for table in inputs]


def _problem(table: np.ndarray) -> str | None:
    seen = ~np.isnan(table)
    if not seen.any():
        return "has nothing seen, all of it is NaN"
    if np.isinf(table).any():
        return "has values that are infinite in float32"
    return None


def warn(inputs: np.ndarray) -> list[str | None]:
    """Says which tables are unlike all that the model was made for."""
    return [_unlike(table) for table in inputs]


def _unlike(table: np.ndarray) -> str | None:
    spread, (least, most) = np.nanmean(np.square(table, dtype=float)) ** 0.5, SPREADS
    if not least <= spread <= most:
        said = f"has a root mean square of {spread:.2g}, the model is for {least:g}"
        return f"{said} to {most:g} around 0: scale it"
    empty = np.isnan(table).all(axis=1).sum() + np.isnan(table).all(axis=0).sum()
    return f"has {empty} rows or columns with nothing seen: 0 there" if empty else None


def sizes(inputs: np.ndarray) -> dict[str, int]:
    """The fields of a task that holds these inputs."""
    return {"task.n": inputs.shape[1], "task.m": inputs.shape[2]}


def to_x(table: np.ndarray) -> np.ndarray:
    """[n, m] with NaN -> x [2, n, m] float32: values, and 1 where seen."""
    seen = ~np.isnan(table)
    return np.stack([np.where(seen, table, 0), seen]).astype(np.float32)


def write(path: Path, answers: np.ndarray) -> None:
    """Completed tables [N, n, m] as .npy; NaN where there is none."""
    write_npy(path, np.asarray(answers))


def describe(x: np.ndarray, answer: np.ndarray) -> dict[str, Any]:
    """How far the answer is from what is seen; what is unseen nobody can check."""
    gap = (np.float64(answer) - x[0]) * x[1]
    return {
        "share seen": float(np.mean(x[1])),
        "residual": float(np.linalg.norm(gap)),
    }


def draw(axis, x: np.ndarray, truth: np.ndarray | None, answer: np.ndarray) -> None:
    """What is seen, the answer and, where it is known, the truth, side by side."""
    seen = np.where(x[1] > 0, x[0], np.nan)
    shown = {"seen": seen, "answer": answer} | (
        {} if truth is None else {"truth": truth}
    )
    limit = max(float(np.max(np.abs(x[0]))), 1e-12)
    between = np.full((len(answer), 1), np.nan)
    parts = [part for image in shown.values() for part in (image, between)][:-1]
    axis.set_facecolor("lightgrey")
    axis.imshow(np.concatenate(parts, 1), cmap="RdBu", vmin=-limit, vmax=limit)
    axis.set_title(f"{', '.join(shown)}, +-{limit:.2g}", fontsize=8)
    axis.set(xticks=[], yticks=[])
