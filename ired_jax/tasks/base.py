"""What every task says: its examples, what an answer is worth, and how it is found."""

from collections.abc import Callable, Mapping
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp

from ired_jax import boxes
from ired_jax.fields import Field
from ired_jax.types import (
    Array,
    Box,
    Example,
    PartError,
    Tree,
    alike,
    is_float,
    is_number,
    told,
)


class Source(NamedTuple):
    """Examples: fresh draws, or a finite set whose arrays are an argument of programs.

    Attributes:
      draw: (data, key) -> Example, one for training, augmentation included.
      box: x -> Box of y_0; None: all of R^D.
      data: arrays, never a constant of a compiled program; () for fresh draws.
      size: rows of a finite set; None: endless.
      at: (data, index ()) -> Example, a row of a finite set as it stands.
    """

    draw: Callable[[Tree, Array], Example]
    box: Callable[[Tree], Box] | None = None
    data: Tree = ()
    size: int | None = None
    at: Callable[[Tree, Array], Example] | None = None

    @classmethod
    def fresh(
        cls, draw: Callable[[Array], Example], box: Callable[[Tree], Box] | None
    ) -> "Source":
        """Draws without end by key -> Example, which needs no data."""
        return cls(lambda data, key: draw(key), box)

    @property
    def example(self) -> Example:
        """Shapes and dtypes of one example."""
        return jax.eval_shape(self.draw, self.data, jax.random.key(0))


class Metric(NamedTuple):
    """A figure of one answer: (x, truth, answer) -> ()."""

    of_row: Callable[[Tree, Tree, Tree], Array]
    better: Literal["low", "high"]
    unit: str
    version: int = 1  # one more whenever the same answer gets another figure


ModelFn = Callable[[Tree, Tree, Array], Array]  # an energy, trained: (x, y, t) -> ()


class Evaluator(NamedTuple):
    """A figure of a whole model: (energy_fn, key) -> (), energy_fn (x, y, t) -> ().

    `trivial` are energies to be beaten, by name, for the final table.
    """

    of_model: Callable[[ModelFn, Array], Array]
    better: Literal["low", "high"]
    unit: str
    version: int = 1
    trivial: Mapping[str, ModelFn] = {}


class Inference(NamedTuple):
    """How an answer is found: the levels, and what is done at each."""

    schedule: Annotated[
        str,
        Field(
            "levels: noise (cosine; linear: more than 20 levels), or data alone",
            one_of=("cosine", "linear", "clean"),
            group="diffusion",
        ),
    ] = "cosine"
    num_levels: Annotated[
        int,
        Field(
            "T, landscapes from smooth to sharp",
            at_least=1,
            at_most=10_000,
            group="diffusion",
        ),
    ] = 10
    num_steps: Annotated[
        int, Field("accepted descent steps a level", at_least=0, at_most=1_000_000)
    ] = 5
    double_steps: Annotated[
        bool, Field("double the step from a level's second on (released code)")
    ] = False
    tolerance: Annotated[
        float,
        Field("a level ends at rms(s_t grad E) below it; 0: all steps", at_least=0),
    ] = 0.0
    noise: Annotated[bool, Field("fresh noise at each hand-over to the next level")] = (
        False
    )
    restarts: Annotated[
        int,
        Field(
            "answers to each x, the lowest energy is kept",
            at_least=1,
            at_most=1_000_000,
        ),
    ] = 1
    bounds: Annotated[
        float, Field("half-width of the answers' box; 0: the task's own", at_least=0)
    ] = 0.0


class Task(NamedTuple):
    """A task: what is learned from what, and what an answer is worth.

    Attributes:
      train: what training draws from.
      splits: what is scored, by name; the first is held out of the training law, the
        last one's box is that of answers to a user's own inputs.
      metrics: figures of an answer, by name: logged as `split/name`.
      primary: the logged name that the best checkpoint, early stop, tables and
        comparisons go by, such as `val/task_mse` or an evaluator's name.
      inference: how answers are found.
      residual: (x, y) -> (), 0 where y is right, without the truth; for the filter.
      corrupt: (key, x, y) -> a wrong answer; known elements stay.
      round: y -> the nearest answer that could be right, where answers are discrete:
        what energies of answers are taken at. None: y itself.
      assume: (key, x, y) -> x with a part of the answer y as known, drawn by how
        doubtful it is; for a search. None: nothing can be.
      evaluators: figures of a whole model, by logged name.
      solvers: classical and trivial answers x -> y, for the final table.
      fitted: of `experiments.score.baselines.FITTED`, also for the table.
    """

    train: Source
    splits: Mapping[str, Source]
    metrics: Mapping[str, Metric]
    primary: str
    inference: Inference = Inference()
    residual: Callable[[Tree, Tree], Array] | None = None
    corrupt: Callable[[Array, Tree, Tree], Tree] | None = None
    round: Callable[[Tree], Tree] | None = None
    assume: Callable[[Array, Tree, Tree], Tree] | None = None
    evaluators: Mapping[str, Evaluator] = {}
    solvers: Mapping[str, Callable[[Tree], Tree]] = {}
    fitted: tuple[str, ...] = ("constant mean", "linear regression")

    @property
    def example(self) -> Example:
        """Shapes and dtypes of one example that training draws; splits may differ."""
        return self.train.example


def refuse_misfits(task: Task) -> None:
    """Looks at what the parts of a task give, by their shapes: nothing is computed.

    Raises:
      PartError: splits without names, a `train` that draws no `Example` or a y that is
        not of floats, one whose box is none or of other shapes than y, or a metric that
        is none or gives more than a number.
    """
    if not isinstance(task.splits, Mapping):
        raise PartError(
            f"task: splits is {told(task.splits)}, must map names to Sources"
        )
    for name, source in {"train": task.train, **task.splits}.items():
        if not isinstance(source, Source):
            raise PartError(f"task: {name} is {told(source)}, must be a Source")
    if not isinstance(example := task.example, Example):
        raise PartError(f"task: draw gives {told(example)}, must give Example(x, y)")
    x, y = example
    for leaf in jax.tree.leaves(y):
        if not is_float(leaf):
            raise PartError(f"task: draw gives {told(leaf)} for y, must give floats")
    if task.train.box is not None:
        _refuse_box(task.train.box, x, y)
    for name, metric in task.metrics.items():
        if not isinstance(metric, Metric):
            raise PartError(
                f"task: metric {name!r} is {told(metric)}, must be a Metric"
            )
        value = jax.eval_shape(metric.of_row, x, y, y)
        if not is_number(value):
            raise PartError(
                f"task: metric {name!r} gives {told(value)} for one answer, must give a"
                " number, of shape ()"
            )


def refuse_misfits_of_splits(task: Task) -> None:
    """The same of what a run meets only later: wrong answers, residuals, baselines.

    Raises:
      PartError: a `corrupt`, `round` or solver that gives no answer like y, a residual
        that is more than a number, or a split of other shapes than training's beside
        baselines that are fitted to it.
    """
    key = jax.random.key(0)
    for split, source in task.splits.items():
        x, y = source.example
        if task.fitted and task.metrics and not alike((x, y), tuple(task.example)):
            raise PartError(
                f"task: split {split!r} draws {told((x, y))}, training"
                f" {told(tuple(task.example))}: baselines that are fitted need them"
                " alike, give fitted=()"
            )
        if source.box is not None:
            _refuse_box(source.box, x, y)
        answers: dict[str, tuple[Callable, tuple]] = {
            f"solver {name!r}": (solve, (x,)) for name, solve in task.solvers.items()
        }
        if task.corrupt is not None:
            answers["corrupt"] = task.corrupt, (key, x, y)
        if task.round is not None:
            answers["round"] = task.round, (y,)
        for name, (give, given) in answers.items():
            answer = jax.eval_shape(give, *given)
            if jax.tree.map(jnp.shape, answer) != jax.tree.map(jnp.shape, y):
                raise PartError(
                    f"task: {name} gives {told(answer)}, must give an answer like y,"
                    f" {told(y)}"
                )
        if task.residual is not None:
            residual = jax.eval_shape(task.residual, x, y)
            if not is_number(residual):
                raise PartError(
                    f"task: residual gives {told(residual)} for one answer, must give a"
                    " number, of shape ()"
                )


def _refuse_box(box: Callable[[Tree], Box], x: Tree, y: Tree) -> None:
    given = jax.eval_shape(box, x) if callable(box) else box
    if callable(box) and given is None:
        return
    if not callable(box) or not isinstance(given, Box):
        raise PartError(f"task: box is {told(given)}, must be a function x -> Box")
    try:
        fits = alike(jax.eval_shape(boxes.clip, given, y), y)
    except (TypeError, ValueError):  # of sides that cannot be set beside y
        fits = False
    if not fits:
        raise PartError(
            f"task: box has sides {told(tuple(given))}, must be like y, {told(y)}, or"
            " numbers"
        )


def held_out(source: Source, data: Tree, key: Array, index: Array) -> Example:
    """Row `index` of a finite set, or the draw of that number; data: `source.data`."""
    if source.at is None:
        return source.draw(data, jax.random.fold_in(key, index))
    return source.at(data, index)


def mean_squared_error(x: Tree, truth: Array, answer: Array) -> Array:
    """mean_i (answer_i - truth_i)^2, per element: ()."""
    del x
    return ((answer - truth) ** 2).mean()
