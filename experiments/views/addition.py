"""Pairs of matrices in .npy files; their sums are written as .npy."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.errors import UserError
from experiments.views.arrays import in_float32, read_npy, write_npy

WIDEST = 5.0  # of the harder set's box, 2 r: a sum beyond it is cut


def read(path: str) -> np.ndarray:
    """Pairs [N, 2, n, n] float32; one alone [2, n, n] counts as N = 1.

    Raises:
      UserError: no such file, or not pairs of square matrices of finite numbers.
    """
    pairs = read_npy(path)
    pairs = pairs[None] if pairs.ndim == 3 else pairs
    shape = pairs.shape
    if len(shape) != 4 or shape[1] != 2 or shape[2] != shape[3] or not pairs.size:
        raise UserError(f"--input={path}: shape {shape}, must be (N, 2, n, n), N >= 1")
    return in_float32(pairs)


def check(inputs: np.ndarray) -> list[str | None]:
    """A sentence for each pair that has no answer here, None for the others."""
    return [_problem(pair) for pair in inputs]


def _problem(pair: np.ndarray) -> str | None:
    if not np.isfinite(pair).all():
        return "has entries that are not finite in float32"
    largest = np.max(np.abs(pair.sum(axis=0)))
    if largest > WIDEST:
        return f"has sums of {largest:.3g}, must be within +-{WIDEST:g}"
    return None


def sizes(inputs: np.ndarray) -> dict[str, int]:
    """The fields of a task that holds these inputs."""
    return {"task.n": inputs.shape[-1]}


def to_x(pair: np.ndarray) -> np.ndarray:
    """[2, n, n] -> x [2 n^2] float32."""
    return np.asarray(pair, np.float32).reshape(-1)


def write(path: Path, answers: Sequence[np.ndarray]) -> None:
    """Sums [N, n^2] as .npy of [N, n, n]."""
    answers = np.asarray(answers)
    n = round(answers.shape[-1] ** 0.5)
    write_npy(path, answers.reshape(-1, n, n))


def describe(x: np.ndarray, answer: np.ndarray) -> dict[str, Any]:
    """How far the answer is from the sum: |A + B - Y|_F."""
    total = np.reshape(x, (2, -1)).astype(np.float64).sum(axis=0)
    return {"residual": float(np.linalg.norm(total - np.ravel(answer)))}


def draw(axis, x: np.ndarray, truth: np.ndarray | None, answer: np.ndarray) -> None:
    """The error of each entry as an image, or the answer where no truth is known."""
    n = round(np.size(answer) ** 0.5)
    shown = answer if truth is None else np.subtract(answer, truth)
    limit = max(float(np.max(np.abs(shown))), 1e-12)
    axis.imshow(np.reshape(shown, (n, n)), cmap="coolwarm", vmin=-limit, vmax=limit)
    name = "answer" if truth is None else "answer - truth"
    axis.set_title(f"{name}, +-{limit:.2g}", fontsize=8)
    axis.axis("off")
