"""Answers the user's own inputs with a trained model.

python -m experiments.solve --workdir=runs/cd_full-cpu-seed0 \
    --input=matrices.npy --output=inverses.npy

What cannot be solved is named, and the others are solved; the exit code is 1 if any
input was refused or any answer is not finite, 2 if there is nothing to solve.
"""

import csv
import functools
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from experiments import cli
from experiments.errors import UserError
from experiments.run import workdir
from experiments.run.files import write_bytes
from experiments.run.logs import say
from experiments.score import trained
from experiments.score.solver import lowest_of, solver
from experiments.score.tables import tables
from experiments.views.base import View, view_of
from ired_jax.fields import check, declared, limits_text
from ired_jax.tasks.base import Inference
from ired_jax.types import Tree

LINES_SHOWN = 20
OPTIONS = {
    field.parameter: field
    for field in declared(Inference)
    if field.parameter in ("bounds", "tolerance", "num_steps", "restarts")
}


class Answers(NamedTuple):
    """Answers to N inputs; energies rank answers to one input, not inputs."""

    answer: list[Any]  # as the view holds one; None where refused
    y: Tree  # leaves [N, ...]; NaN where refused
    figures: dict[str, list]  # the view's, [N] each; None where refused
    energy: np.ndarray  # [N] E(x, y, 0)
    steps: np.ndarray  # [N] descent steps taken, over all levels and restarts
    refused: dict[int, str]  # what is wrong with inputs, by their number

    @property
    def not_finite(self) -> list[int]:
        """The numbers of answers that are not finite, refused inputs left out."""
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves((self.y, self.energy))]
        bad = [~np.isfinite(leaf).reshape(len(leaf), -1).all(axis=1) for leaf in leaves]
        return [i for i in np.flatnonzero(np.any(bad, 0)) if i not in self.refused]


def load_solver(
    directory: Path | str,
    checkpoint: str = "last",
    *,
    seed: int | None = None,
    **options: float | None,
) -> Callable[[Sequence[Any]], Answers]:
    """A function from N inputs of a task, as its view reads them, to `Answers`.

    Args:
      directory: run directory.
      checkpoint: `last` or `best`.
      seed: which one, of a run with several; default: its first.
      **options: bounds, tolerance, num_steps, restarts of `Inference`; default, also
        for None: the run's. Answers lie in the box of the task's last split.

    Raises:
      UserError: an option beyond its limits, or no whole checkpoint.
    """
    given = _checked({name: v for name, v in options.items() if v is not None})
    model = trained.load(directory, checkpoint, seed)
    view = view_of(model.config.task.name)

    @functools.cache
    def for_sizes(sizes: tuple):
        config = trained.changed(model.config, dict(sizes))
        experiment = trained.on_task(model, config)
        *_, source = experiment.task.splits.values()
        how = experiment.inference._replace(**given)
        # In the widest box, but of the size that the inputs have.
        like = experiment.example
        answer = solver(experiment, source, how, like=like.y)
        return answer, how, experiment.evaluation.batch_size, like.x

    def solve(inputs: Sequence[Any]) -> Answers:
        sizes = view.sizes(inputs)
        sentences = enumerate(view.check(inputs))
        refused = {i: sentence for i, sentence in sentences if sentence is not None}
        answer, how, batch_size, like = for_sizes(tuple(sizes.items()))
        x = {i: view.to_x(inputs[i]) for i in range(len(inputs)) if i not in refused}
        refused |= {i: _misfit(like) for i in x if _shapes(x[i]) != _shapes(like)}
        good = np.array([i for i in x if i not in refused], int)
        if not good.size:
            raise UserError(f"--input: {_named(refused) or 'holds nothing'}")
        x = [x[i] for i in good]
        parts = []
        for first in range(0, len(good), batch_size):
            # Numbered through the file: each input has start noise of its own.
            index = good[first : first + batch_size]
            rows = jax.tree.map(lambda *a: np.stack(a), *x[first : first + batch_size])
            restarts = range(how.restarts)
            parts.append(lowest_of(answer, model.params, rows, index, restarts))
        parts = jax.tree.map(lambda *a: np.concatenate(a), *parts)
        return _put_together(view, x, parts, good, refused, len(inputs))

    return solve


def _shapes(tree: Tree) -> Tree:
    return jax.tree.map(np.shape, tree)


def _misfit(like: Tree) -> str:
    return f"has not the shape of what the model was trained on, {_shapes(like)}"


def _put_together(
    view: View,
    x: list[Tree],
    parts: tuple[Tree, np.ndarray, np.ndarray],
    good: np.ndarray,
    refused: dict[int, str],
    count: int,
) -> Answers:
    """Answers, energies and steps of the solved inputs at their places among all."""
    y = [jax.tree.map(lambda leaf, i=i: leaf[i], parts[0]) for i in range(len(x))]
    rows = dict(zip(good, zip(x, y, strict=True), strict=True))
    figures = {i: view.describe(*row) for i, row in rows.items()}
    names = figures[good[0]]
    y, energy, steps = (_spread(part, good, count) for part in parts)
    return Answers(
        [view.to_answer(rows[i][1]) if i in rows else None for i in range(count)],
        y,
        {n: [figures.get(i, {}).get(n) for i in range(count)] for n in names},
        energy,
        steps,
        refused,
    )


def _checked(options: dict[str, float]) -> dict[str, float]:
    for name, value in options.items():
        if name not in OPTIONS:
            raise UserError(f"{name}: allowed are {', '.join(OPTIONS)}")
        try:
            check(name, value, OPTIONS[name].kind, OPTIONS[name].spec)
        except ValueError as error:
            raise UserError(str(error)) from error
    return options


def _spread(tree: Tree, rows: np.ndarray, count: int) -> Tree:
    """Leaves [len(rows), ...] at their places among `count`, the others NaN (or 0)."""

    def spread(leaf):
        leaf = np.asarray(leaf)
        empty = np.nan if leaf.dtype.kind == "f" else 0
        whole = np.full((count, *leaf.shape[1:]), empty, leaf.dtype)
        whole[rows] = leaf
        return whole

    return jax.tree.map(spread, tree)


def _named(refused: dict[int, str]) -> str:
    """All sentences in one, the first few where there are many."""
    first = [f"input {i} {sentence}" for i, sentence in list(refused.items())[:5]]
    more = [f"{len(refused) - 5} more cannot be solved"] if len(refused) > 5 else []
    return "; ".join(first + more)


def define(values: flags.FlagValues) -> None:
    for name, meaning in (
        ("workdir", "run directory"),
        ("input", "file of inputs, as the task's view reads it"),
        ("output", "file of answers; figures, energy, steps go beside it as .csv"),
    ):
        flags.DEFINE_string(name, None, meaning, flag_values=values)
        flags.mark_flag_as_required(name, flag_values=values)
    flags.DEFINE_enum(
        "checkpoint", "last", trained.CHECKPOINTS, "which", flag_values=values
    )
    flags.DEFINE_integer("seed", None, "default: the first", flag_values=values)
    for name, (_, field, kind, _) in OPTIONS.items():
        define_one = flags.DEFINE_integer if kind is int else flags.DEFINE_float
        meaning = f"{field.meaning}, {limits_text(field)}; default: the run's"
        define_one(name, None, meaning, flag_values=values)


def main(argv: list[str]) -> None:
    values = cli.parse(argv, define)
    output = Path(values.output)
    if output.suffix == ".csv":
        raise UserError(f"--output={output}: must not be a .csv, that is beside it")
    if output.resolve() == Path(values.input).resolve():
        raise UserError(f"--output={output}: is the input, must be another file")
    config = workdir.read_config(Path(values.workdir))
    view = view_of(config.task.name).needs("read", "write")
    inputs = view.read(values.input)
    options = {name: values[name].value for name in ("seed", *OPTIONS)}
    solve = load_solver(values.workdir, values.checkpoint, **options)
    output = cli.output_path(output)
    answers = solve(inputs)
    good = [i for i in range(len(inputs)) if i not in answers.refused]
    sentences = zip(good, view.warn([inputs[i] for i in good]), strict=True)
    unlike = {i: sentence for i, sentence in sentences if sentence is not None}
    if unlike:
        say(f"look at the figures of these: {_named(unlike)}")
    table = output.with_suffix(".csv")
    view.write(output, answers.y)
    write_bytes(table, _as_csv(answers).encode())
    for part in _tables(answers):
        say(part)
    say(f"answers: {output}; figures, energy and steps of each: {table}")
    if answers.refused:
        print(f"error: {_named(answers.refused)}", file=sys.stderr)
    if answers.not_finite:
        bad = dict.fromkeys(answers.not_finite, "has an answer that is not finite")
        print(f"error: {_named(bad)}", file=sys.stderr)
    if answers.refused or answers.not_finite:
        raise SystemExit(1)


def _columns(answers: Answers) -> dict[str, list]:
    """What is said of each input; None where it was refused."""
    columns = {"energy": answers.energy.tolist(), "steps": answers.steps.tolist()}
    for column in columns.values():
        for row in answers.refused:
            column[row] = None
    return answers.figures | columns


def _as_csv(answers: Answers) -> str:
    text, columns = io.StringIO(), _columns(answers)
    writer = csv.writer(text)
    writer.writerow(["index", *columns])
    for index, cells in enumerate(zip(*columns.values(), strict=True)):
        writer.writerow([index, *cells])
    return text.getvalue()


def _tables(answers: Answers) -> list:
    count = len(answers.answer)
    cells = {
        name: [_cell(value) for value in column[:LINES_SHOWN]]
        for name, column in _columns(answers).items()
    }
    more = f"{count - LINES_SHOWN} more in the .csv file"
    return tables(
        f"{count - len(answers.refused)} answers to {count} inputs",
        [str(index) for index in range(min(count, LINES_SHOWN))],
        cells,
        corner="input",
        caption=more if count > LINES_SHOWN else None,
    )


def _cell(value) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    cli.run(main)
