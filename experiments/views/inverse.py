"""Matrices in .npy files; their inverses are written as .npy."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.errors import UserError
from experiments.views.arrays import read_npy, write_npy

SINGULAR = 1e7  # condition number beyond which float32 holds no inverse


def read(path: str) -> np.ndarray:
    """Matrices [N, n, n]; one alone [n, n] counts as N = 1.

    Raises:
      UserError: no such file, or not square matrices of real numbers.
    """
    matrices = read_npy(path)
    matrices = matrices[None] if matrices.ndim == 2 else matrices
    sizes(matrices)
    return matrices


def sizes(inputs: Sequence) -> dict[str, int]:
    """The fields of a task that holds these matrices.

    Raises:
      UserError: not [N, n, n] of real numbers.
    """
    matrices = np.asarray(inputs)
    if matrices.dtype.kind not in "fiu":
        raise UserError(f"--input: dtype {matrices.dtype}, must be real numbers")
    shape = matrices.shape
    if len(shape) != 3 or shape[1] != shape[2] or not matrices.size:
        raise UserError(f"--input: shape {shape}, must be (N, n, n), N >= 1 and n >= 1")
    return {"task.n": shape[1]}


def check(inputs: Sequence) -> list[str | None]:
    """A sentence for each matrix that has no inverse in float32."""
    return [_problem(np.asarray(matrix)) for matrix in inputs]


def _problem(matrix: np.ndarray) -> str | None:
    if not np.isfinite(matrix).all():
        return "is not finite"
    with np.errstate(over="ignore"):  # beyond float32 an entry is infinite, or 0
        matrix = matrix.astype(np.float32).astype(np.float64)
    if not np.isfinite(matrix).all():
        return "has entries beyond what float32 holds"
    condition = np.linalg.cond(matrix)
    if condition < SINGULAR:
        return None
    return f"is singular (condition number {condition:.2g}, must be below {SINGULAR:g})"


def warn(inputs: Sequence) -> list[str | None]:
    """Says which matrices are not symmetric, up to float32, and positive definite."""
    a = np.asarray(inputs, np.float64)
    gap = np.abs(a - np.swapaxes(a, 1, 2)).max(axis=(1, 2))
    is_symmetric = gap <= 1e-5 * np.abs(a).max(axis=(1, 2))
    is_like = is_symmetric & (np.linalg.eigvalsh(a)[:, 0] > 0)
    said = "is not symmetric and positive definite as all that the model has seen"
    return [None if like else said for like in is_like]


def to_x(matrix: np.ndarray) -> np.ndarray:
    """[n, n] -> x [n^2] float32."""
    return np.asarray(matrix, np.float32).reshape(-1)


def to_answer(y: np.ndarray) -> np.ndarray:
    """y [n^2] -> the inverse [n, n]."""
    return _square(y[None])[0]


def write(path: Path, answers: np.ndarray) -> None:
    """Inverses [N, n^2] as .npy of [N, n, n]."""
    write_npy(path, _square(answers))


def describe(x: np.ndarray, answer: np.ndarray) -> dict[str, float]:
    """The residual |A Y - I|_F, in float64."""
    a, y = _square(np.stack([x, answer]).astype(np.float64))
    return {"residual": float(np.linalg.norm(a @ y - np.eye(len(a))))}


def diagnostics(answers: np.ndarray) -> dict[str, np.ndarray]:
    """Of answers [N, n^2]: log10 |det|, log10 condition, smallest singular value.

    A singular value below the rounding of the largest counts as that rounding; NaN
    where an answer is not finite.
    """
    matrices = _square(np.asarray(answers, np.float64))
    is_finite, single = np.isfinite(matrices).all(axis=(1, 2)), np.finfo(np.float32)
    matrices = np.where(is_finite[:, None, None], matrices, 0)
    values = np.linalg.svd(matrices, compute_uv=False)
    values = np.maximum(values, single.eps * values[:, :1] + single.tiny)
    values[~is_finite] = np.nan
    return {
        "log det": np.log10(values).sum(axis=1),
        "log cond": np.log10(values[:, 0] / values[:, -1]),
        "min sv": values[:, -1],
    }


def draw(axes, x: np.ndarray, truth: np.ndarray | None, answer: np.ndarray) -> None:
    """The truth, the answer and its error side by side, each half on its own scale.

    Without a truth the answer alone.
    """
    residual = f"residual {describe(x, answer)['residual']:.3g}"
    (shown,) = _square(answer[None])
    scale = max(np.abs(shown if truth is None else truth).max(), 1e-12)
    if truth is None:
        parts, title = [shown / scale], f"answer (+-{scale:.2g})"
    else:
        error, gap = shown - _square(truth[None])[0], np.full((len(shown), 1), np.nan)
        worst = max(np.abs(error).max(), 1e-12)
        parts = [(shown - error) / scale, gap, shown / scale, gap, error / worst]
        title = f"truth, answer (+-{scale:.2g}), error (+-{worst:.2g})"
    axes.imshow(np.concatenate(parts, axis=1), cmap="RdBu", vmin=-1, vmax=1)
    axes.set_title(f"{title}\n{residual}", fontsize=8)
    axes.axis("off")


def _square(rows: np.ndarray) -> np.ndarray:
    """[N, n^2] -> [N, n, n]."""
    n = round(rows.shape[-1] ** 0.5)
    return np.reshape(rows, (len(rows), n, n))
