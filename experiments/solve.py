"""Answers the user's own inputs with a trained model.

python -m experiments.solve --workdir=runs/cd_full-cpu-seed0 \
    --input=matrices.npy --output=inverses.npy
"""

import csv
import functools
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from absl import flags
from rich.table import Table

from experiments import cli, trained
from experiments.errors import UserError
from experiments.logs import say, write_bytes
from experiments.scoring import solver
from ired_jax.samplers.inference import SolveInfo
from ired_jax.types import Array

SINGULAR = 1e7  # condition number beyond which float32 holds no inverse
LINES_SHOWN = 20
LEAST = {"bounds": 0.0, "tolerance": 0.0, "num_steps": 0, "restarts": 1}


class Answers(NamedTuple):
    """Answers to N matrices; energies rank answers to one matrix, not matrices."""

    inverse: np.ndarray  # [N, n, n] float32
    residual: np.ndarray  # [N] |A Y - I|_F
    energy: np.ndarray  # [N] E(x, y, 0)
    steps: np.ndarray  # [N] descent steps taken, over all levels and restarts


def load_solver(
    directory: Path | str,
    checkpoint: str = "last",
    *,
    seed: int | None = None,
    bounds: float | None = None,
    num_steps: int | None = None,
    tolerance: float | None = None,
    restarts: int | None = None,
) -> Callable[[np.ndarray], Answers]:
    """A function from matrices [N, n, n] to `Answers`, for every n the energy fits.

    Args:
      directory: run directory.
      checkpoint: `last` or `best`.
      seed: which one, of a run with several; default: its first.
      bounds: half-width of the box that holds the inverses; default: the harder set's.
      num_steps: descent steps a level, at most; default: the run's.
      tolerance: root mean square by which an answer may still move where a level's
        descent ends, so that hard matrices get more steps; default: the run's.
      restarts: answers to each matrix, of which that of least energy is kept;
        default: 1.

    Raises:
      UserError: an option beyond its limits, or no whole checkpoint.
    """
    restarts = 1 if restarts is None else restarts
    given = {"bounds": bounds, "num_steps": num_steps, "tolerance": tolerance}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in (given | {"restarts": restarts}).items():
        if not value >= LEAST[name]:
            raise UserError(f"{name}={value}: must be at least {LEAST[name]}")
    model = trained.load(directory, checkpoint, seed)
    evaluation = model.experiment.evaluation._replace(**given)

    @functools.cache
    def for_size(n: int):
        config = model.config.copy_and_resolve_references()
        config.task.n = n
        experiment = trained.on_task(model, config)
        task = experiment.task
        answer = solver(experiment, evaluation, evaluation.bounds or task.ood.bounds)
        return answer, jax.jit(jax.vmap(task.residual))

    def solve(matrices: np.ndarray) -> Answers:
        matrices = np.asarray(matrices)
        check(matrices)
        answer, residual = for_size(matrices.shape[1])
        x = np.asarray(matrices, np.float32).reshape(len(matrices), -1)
        parts = []
        for first in range(0, len(x), evaluation.batch_size):
            rows = x[first : first + evaluation.batch_size]
            index = first + np.arange(len(rows))
            y, energy, steps = _best(
                answer(model.params, rows, index, restart)
                for restart in range(restarts)
            )
            parts.append((y, residual(rows, y), energy, steps))
        y, *figures = map(np.concatenate, zip(*parts, strict=True))
        return Answers(y.reshape(matrices.shape), *figures)

    return solve


def _best(answers: Iterable[tuple[Array, SolveInfo]]):
    """Of several answers to each row that of least energy, and the steps of all."""
    all_y, infos = zip(*answers, strict=True)
    energy = np.stack([info.energy for info in infos])
    kept = np.argmin(energy, axis=0), np.arange(energy.shape[1])
    steps = np.sum([info.steps for info in infos], axis=(0, 2))
    return np.stack(all_y)[kept], energy[kept], steps


def check(matrices: np.ndarray) -> None:
    """Refuses what are not N square matrices with an inverse.

    Raises:
      UserError: wrong type or shape, none, not finite, or singular in float32.
    """
    if not np.issubdtype(matrices.dtype, np.number) or np.iscomplexobj(matrices):
        raise UserError(f"--input: dtype {matrices.dtype}, must be real numbers")
    is_square = matrices.ndim == 3 and matrices.shape[1] == matrices.shape[2]
    if not is_square or not matrices.size:
        raise UserError(
            f"--input: shape {matrices.shape}, must be (N, n, n), N >= 1 and n >= 1"
        )
    finite = np.isfinite(matrices).all(axis=(1, 2))
    if not finite.all():
        raise UserError(f"--input: matrix {np.argmin(finite)} is not finite")
    condition = np.linalg.cond(matrices.astype(np.float64))
    if not (condition < SINGULAR).all():
        worst = int(np.argmax(~(condition < SINGULAR)))
        raise UserError(
            f"--input: matrix {worst} is singular (condition number"
            f" {condition[worst]:.2g}, must be below {SINGULAR:g})"
        )


def _is_symmetric_positive_definite(matrices: np.ndarray) -> np.ndarray:
    """[N, n, n] -> [N] bool, symmetric up to the rounding of float32."""
    a = matrices.astype(np.float64)
    gap = np.abs(a - np.swapaxes(a, 1, 2)).max(axis=(1, 2))
    is_symmetric = gap <= 1e-5 * np.abs(a).max(axis=(1, 2))
    return is_symmetric & (np.linalg.eigvalsh(a)[:, 0] > 0)


def read(path: str) -> np.ndarray:
    """Matrices of a .npy file, [N, n, n]; one alone [n, n] counts as N = 1."""
    try:
        matrices = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"--input={path}: there is no such file") from error
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"--input={path}: is not a readable .npy file") from error
    if not isinstance(matrices, np.ndarray):
        raise UserError(f"--input={path}: holds several arrays, must be one .npy")
    return matrices[None] if matrices.ndim == 2 else matrices


def define(values: flags.FlagValues) -> None:
    for name, meaning in (
        ("workdir", "run directory"),
        ("input", ".npy of matrices, [N, n, n] or [n, n]"),
        ("output", ".npy of inverses; residual, energy, steps go beside it as .csv"),
    ):
        flags.DEFINE_string(name, None, meaning, flag_values=values)
        flags.mark_flag_as_required(name, flag_values=values)
    flags.DEFINE_enum(
        "checkpoint", "last", trained.CHECKPOINTS, "which", flag_values=values
    )
    flags.DEFINE_integer("seed", None, "default: the first", flag_values=values)
    for name, meaning in (
        ("bounds", "box of the inverses' entries; default: the harder set's"),
        ("tolerance", "a level ends where the answer moves less; default: the run's"),
    ):
        flags.DEFINE_float(name, None, meaning, LEAST[name], flag_values=values)
    for name, meaning in (
        ("num_steps", "descent steps a level, at most; default: the run's"),
        ("restarts", "answers to each matrix, the one of least energy is kept"),
    ):
        flags.DEFINE_integer(name, None, meaning, LEAST[name], flag_values=values)


def main(argv: list[str]) -> None:
    values = cli.parse(argv, define)
    output = Path(values.output)
    if output.suffix == ".csv":
        raise UserError(
            f"--output={output}: must be a .npy file, the .csv is beside it"
        )
    if output.resolve() == Path(values.input).resolve():
        raise UserError(f"--output={output}: is the input, must be another file")
    matrices = read(values.input)
    solve = load_solver(
        values.workdir,
        values.checkpoint,
        **{name: values[name].value for name in ("seed", *LEAST)},
    )
    output = cli.output_path(output)
    answers = solve(matrices)
    unlike = np.flatnonzero(~_is_symmetric_positive_definite(matrices))
    if unlike.size:
        say(
            f"{unlike.size} of {len(matrices)} matrices, number {unlike[0]} first, are"
            " not symmetric and positive definite as all that the model has seen:"
            " look at their residuals"
        )
    buffer = io.BytesIO()
    np.save(buffer, answers.inverse)
    table = output.with_suffix(".csv")
    write_bytes(output, buffer.getvalue())
    write_bytes(table, _as_csv(answers).encode())
    say(_table(answers))
    say(f"inverses: {output}; residual, energy and steps of each: {table}")


def _as_csv(answers: Answers) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["index", "residual", "energy", "steps"])
    for index, (_, residual, energy, steps) in enumerate(zip(*answers, strict=True)):
        writer.writerow([index, float(residual), float(energy), steps])
    return text.getvalue()


def _table(answers: Answers) -> Table:
    count = len(answers.residual)
    view = Table(title=f"{count} answers, mean residual {answers.residual.mean():.4g}")
    for column in ("matrix", "residual |A Y - I|", "energy", "steps"):
        view.add_column(column, justify="right")
    for index in range(min(count, LINES_SHOWN)):
        residual, energy = answers.residual[index], answers.energy[index]
        steps = str(answers.steps[index])
        view.add_row(str(index), f"{residual:.4g}", f"{energy:.4g}", steps)
    if count > LINES_SHOWN:
        view.caption = f"{count - LINES_SHOWN} more in the .csv file"
    return view


if __name__ == "__main__":
    cli.run(main)
