"""Answers the user's own inputs with a trained model.

python -m experiments.solve --workdir=runs/cd_full-cpu-seed0 \
    --input=matrices.npy --output=inverses.npy
python -m experiments.solve --workdir=runs/sudoku-cpu-seed0 \
    --input=puzzles.txt --output=answers.txt --restarts=16 --picture=think.png
python -m experiments.solve --workdir=runs/sudoku-cpu-seed0 \
    --input=hard.txt --output=answers.txt --moves=7 --move=assumption

Each answer is right, wrong or unknown by the check of the task's view; searches and
`--restarts` go on only for inputs whose answers are not yet right, and where nothing
can be checked the lowest energy counts. What cannot be solved is named, and the others
are solved; the exit code is 1 if any input was refused or any answer is wrong or not
finite, 2 if there is nothing to solve.
"""

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from rich.text import Text

from experiments import cli, figures
from experiments.errors import UserError
from experiments.parts import MOVES, Evaluation
from experiments.run import workdir
from experiments.run.files import write_bytes
from experiments.run.logs import say
from experiments.score import trained
from experiments.score.answers import Answers, as_csv, drawn, put_together, tables_of
from experiments.score.restarts import until_right
from experiments.score.solver import lowest_of, solver
from experiments.score.thinking import picture, think
from experiments.views.base import View, view_of
from ired_jax.fields import check, declared, limits_text
from ired_jax.samplers.search import MOVE
from ired_jax.tasks.base import Inference
from ired_jax.types import Params, Tree

MOST_DRAWN = 3  # inputs whose answers are drawn in the terminal
OPTIONS = {
    field.parameter: field
    for field in declared(Inference)
    if field.parameter in ("bounds", "tolerance", "num_steps", "restarts")
}


def load_solver(
    directory: Path | str,
    checkpoint: str = "last",
    *,
    seed: int | None = None,
    moves: int | None = None,
    move: str | None = None,
    **options: float | None,
) -> Callable[..., Answers]:
    """A function from N inputs of a task, as its view reads them, to `Answers`.

    Of the input number `watched`, if given, `Answers.thought` has each level.

    Args:
      directory: run directory.
      checkpoint: `last` or `best`.
      seed: which one, of a run with several; default: its first.
      moves, move: of a search from each answer, see `samplers.search`; default: the
        run's.
      **options: bounds, tolerance, num_steps, restarts of `Inference`; default, also
        for None: the run's. Answers lie in the box of the task's last split.

    Raises:
      UserError: an option beyond its limits, or no whole checkpoint.
    """
    given = _checked({name: v for name, v in options.items() if v is not None})
    model = trained.load(directory, checkpoint, seed)
    view = view_of(model.config.task.name)
    searched = {"eval.moves": moves, "eval.move": move}
    searched = {name: v for name, v in searched.items() if v is not None}

    @functools.cache
    def for_sizes(sizes: tuple):
        config = trained.changed(model.config, {**dict(sizes), **searched})
        experiment = trained.on_task(model, config)
        *_, source = experiment.task.splits.values()
        how = experiment.inference._replace(**given)
        # In the widest box, but of the size that the inputs have.
        ways = [experiment] if experiment.search is None else [
            experiment, experiment._replace(search=None)
        ]  # fmt: skip
        answers = [solver(of, source, how, like=experiment.example.y) for of in ways]
        return experiment, source, how, answers

    def solve(inputs: Sequence[Any], watched: int | None = None) -> Answers:
        if not len(inputs):
            raise UserError("--input: holds nothing")
        sizes = view.sizes(inputs)
        sentences = enumerate(view.check(inputs))
        refused = {i: sentence for i, sentence in sentences if sentence is not None}
        experiment, source, how, ways = for_sizes(tuple(sizes.items()))
        like = experiment.example.x
        x = {i: view.to_x(inputs[i]) for i in range(len(inputs)) if i not in refused}
        misfits = ((i, _misfit(x[i], like)) for i in x)
        refused |= {i: sentence for i, sentence in misfits if sentence is not None}
        good = np.array([i for i in x if i not in refused], int)
        if not good.size:
            raise UserError(f"--input: {_named(refused)}")
        if watched is not None and watched not in good:
            why = refused.get(watched, f"must be 0 to {len(inputs) - 1}")
            raise UserError(f"--picture_row={watched}: {why}")
        rows = [x[i] for i in good]
        parts = _in_batches(
            *(view, ways, model.params, rows, good),
            *(range(how.restarts), experiment.evaluation),
        )
        answers = put_together(view, rows, parts, good, refused, len(inputs))
        if watched is None:
            return answers
        more = experiment.example.y, experiment.evaluation.block
        thought = think(experiment, source, how, view.is_right, *more)
        return answers._replace(thought=thought(model.params, x[watched], watched))

    return solve


def _in_batches(
    view: View,
    ways: Sequence[Callable],
    params: Params,
    x: list[Tree],
    index: np.ndarray,
    restarts: Sequence[int],
    evaluation: Evaluation,
) -> tuple[Tree, np.ndarray, np.ndarray]:
    """Answers, energies and steps of all rows, stacked.

    `ways` are how to answer: one, or with a search and without it.
    """
    parts, batch_size = [], evaluation.batch_size
    for first in range(0, len(index), batch_size):
        # Numbered through the file: each input has start noise of its own.
        numbers = index[first : first + batch_size]
        rows = jax.tree.map(lambda *a: np.stack(a), *x[first : first + batch_size])
        arguments = ways[0], params, rows, numbers, restarts
        if view.is_right is None:
            parts.append(lowest_of(*arguments))
        else:
            more = view.is_right, evaluation.block, *ways[1:]
            parts.append(until_right(*arguments, *more))
    return jax.tree.map(lambda *a: np.concatenate(a), *parts)


def _shapes(tree: Tree) -> Tree:
    return jax.tree.map(np.shape, tree)


def _misfit(x: Tree, like: Tree) -> str | None:
    """What keeps x from being answered, whatever the task; None: nothing."""
    if _shapes(x) != _shapes(like):
        return f"has not the shape of what the model was trained on, {_shapes(like)}"
    is_finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(x))
    return None if is_finite else "is not finite"


def _checked(options: dict[str, float]) -> dict[str, float]:
    for name, value in options.items():
        if name not in OPTIONS:
            raise UserError(f"{name}: allowed are {', '.join(OPTIONS)}")
        try:
            check(name, value, OPTIONS[name].kind, OPTIONS[name].spec)
        except ValueError as error:
            raise UserError(str(error)) from error
    return options


def _named(refused: Mapping[int, str]) -> str:
    """All sentences in one, the first few where there are many."""
    first = [f"input {i} {sentence}" for i, sentence in list(refused.items())[:5]]
    more = [f"and so with {len(refused) - 5} more"] if len(refused) > 5 else []
    return "; ".join(first + more)


def define(values: flags.FlagValues) -> None:
    trained.define(values)
    for name, meaning in (
        ("input", "file of inputs, as the task's view reads it"),
        ("output", "file of answers; figures, energy, steps go beside it as .csv"),
    ):
        flags.DEFINE_string(name, None, meaning, flag_values=values)
        flags.mark_flag_as_required(name, flag_values=values)
    flags.DEFINE_string(
        "picture", None, ".png of one answer, level by level", flag_values=values
    )
    flags.DEFINE_integer(
        "picture_row", None, "of which input; default: the first", flag_values=values
    )
    flags.DEFINE_integer("seed", None, "default: the first", flag_values=values)
    flags.DEFINE_integer(
        "moves", None, f"{MOVES.meaning}; default: the run's", flag_values=values
    )
    flags.DEFINE_enum(
        "move", None, [*MOVE.makers], f"{MOVE.field.meaning}; default: the run's",
        flag_values=values,
    )  # fmt: skip
    for name, (_, field, kind, _) in OPTIONS.items():
        define_one = flags.DEFINE_integer if kind is int else flags.DEFINE_float
        meaning = f"{field.meaning}, {limits_text(field)}; default: the run's"
        define_one(name, None, meaning, flag_values=values)


def main(argv: list[str]) -> None:
    values = cli.parse(argv, define)
    output = _output(values)
    config = workdir.read_config(Path(values.workdir))
    view = view_of(config.task.name).needs("read", "write")
    if values.picture:
        view.needs("draw")
    try:
        inputs = view.read(values.input)
    except (OSError, ValueError) as error:  # a view of one's own need not say it
        raise UserError(f"--input={values.input}: {error}") from error
    options = {name: values[name].value for name in ("seed", "moves", "move", *OPTIONS)}
    solve = load_solver(values.workdir, values.checkpoint, **options)
    output, watched = cli.output_path(output), None
    table = cli.output_path(output.with_suffix(".csv"))
    if values.picture:
        cli.output_path(values.picture, "picture")
        can_be = [i for i, said in enumerate(view.check(inputs)) if said is None]
        watched = values.picture_row
        watched = next(iter(can_be), None) if watched is None else watched
    answers = solve(inputs, watched)
    _say_unlike(view, inputs, answers)
    view.write(output, answers.y)
    write_bytes(table, as_csv(answers).encode())
    if view.text is not None and len(inputs) <= MOST_DRAWN:
        good = [i for i in range(len(inputs)) if i not in answers.refused]
        x = {i: view.to_x(inputs[i]) for i in good}
        for text in drawn(view, x, answers):
            say(Text.from_markup(text))  # its digits are not highlighted
    for part in tables_of(answers):
        say(part)
    if answers.thought is not None:
        figures.save(picture(view, answers.thought), values.picture, dpi=150)
        say(f"level by level, input {watched}: {values.picture}")
    say(f"answers: {output}; figures, energy and steps of each: {table}")
    _end(answers)


def _output(values: flags.FlagValues) -> Path:
    """--output; raises UserError where it or the picture cannot be written so."""
    output = Path(values.output)
    if not output.name:
        raise UserError(f"--output={values.output}: must be a file")
    if output.suffix == ".csv":
        raise UserError(f"--output={output}: must not be a .csv, that is beside it")
    if output.resolve() == Path(values.input).resolve():
        raise UserError(f"--output={output}: is the input, must be another file")
    if output.with_suffix(".csv").resolve() == Path(values.input).resolve():
        raise UserError(
            f"--output={output}: its figures would overwrite the input,"
            f" {values.input}, must have another name"
        )
    if values.picture and Path(values.picture).suffix != ".png":
        raise UserError(f"--picture={values.picture}: must be a .png file")
    if values.picture and Path(values.picture).resolve() == output.resolve():
        raise UserError(f"--picture={values.picture}: is the output, must be another")
    if values.picture_row is not None and not values.picture:
        raise UserError("--picture_row: needs a --picture")
    return output


def _say_unlike(view: View, inputs: Sequence[Any], answers: Answers) -> None:
    good = [i for i in range(len(inputs)) if i not in answers.refused]
    sentences = zip(good, view.warn([inputs[i] for i in good]), strict=True)
    unlike = {i: sentence for i, sentence in sentences if sentence is not None}
    if unlike:
        say(f"look at the figures of these: {_named(unlike)}")


def _end(answers: Answers) -> None:
    """Names on stderr what has no good answer, and ends with 1 where there is any."""
    bad = (
        answers.refused,
        dict.fromkeys(answers.not_finite, "has an answer that is not finite"),
        dict.fromkeys(answers.wrong, "has an answer that is wrong"),
    )
    for rows in filter(None, bad):
        print(f"error: {_named(rows)}", file=sys.stderr)
    if any(bad):
        raise SystemExit(1)


if __name__ == "__main__":
    cli.run(main)
