"""The small parts of a run that no library module makes: optimizer, periods, blocks."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.errors import UserError
from experiments.score import records
from experiments.views.base import view_of
from ired_jax import blocks, diffusion, tasks, trees
from ired_jax.energies.spectral import normalise
from ired_jax.fields import Field, Names, Package
from ired_jax.samplers.search import Search, make_search
from ired_jax.tasks.base import Task, refuse_misfits
from ired_jax.types import Energy, Example

TASK = Field("a module of ired_jax/tasks, or one's own", group="task", name="name")
NETWORK = Field(
    "a module of ired_jax/energies, or one's own", group="energy", name="name"
)
MOVES = Field(
    "of a search from each answer; 0: none",
    at_least=0,
    group="eval",
    name="moves",
    other=2,
)
OBJECTIVES = Field(
    "what is lowered, modules of ired_jax/objectives or one's own",
    group="",
    name="objectives",
    other=("denoising", "contrast"),
)


class Evaluation(NamedTuple):
    """On how many rows answers are scored."""

    num_examples: Annotated[
        int, Field("held-out rows of the final figures", at_least=2, on_resume=True)
    ] = 20_000
    num_examples_running: Annotated[
        int, Field("of those, during training", at_least=2)
    ] = 2_048
    batch_size: Annotated[
        int, Field("any; the result does not depend on it", at_least=1, on_resume=True)
    ] = 2_048
    block: Annotated[
        int,
        Field(
            "rows drawn and solved together, whatever the batch; moves last bits",
            at_least=1,
            on_resume=True,
        ),
    ] = 256


class Periods(NamedTuple):
    """The length of a run and what happens when, in steps."""

    num_steps: int
    steps_per_dispatch: int
    log_every: int
    eval_every: int
    patience: int


def search_maker(moves: int) -> Callable[..., Search] | None:
    """A search after inference, if it has any moves."""
    return make_search if moves else None


class Data(Mapping):
    """The readers of finite data sets: `load_data` of a task's view, if it has one."""

    def __iter__(self) -> Iterator[str]:
        return iter(Package(tasks))

    def __len__(self) -> int:
        return len(Package(tasks))

    def __getitem__(self, name: str) -> Callable | None:
        """None: the task draws its data.

        Raises:
          KeyError: there is no such task.
        """
        Package(tasks)[name]
        return view_of(name).load_data


def known_of_task(task: Task) -> Names:
    """What makers may ask for by name, of a task's own making.

    Raises:
      UserError: a task that has not what every task has; PartError: one whose parts
        give what their places do not take.
    """
    refuse_misfits(task)
    _refuse_unfinished(task)
    example, inference = task.example, task.inference
    schedule = diffusion.make_schedule(inference.schedule, inference.num_levels)
    y_size = trees.size(example.y)
    return Names(
        example=example,
        x_size=trees.size(example.x),
        y_size=y_size,
        num_elements=y_size,
        schedule=schedule,
        num_levels=schedule.num_levels,
        inference=inference,
        source=task.train,
        box=task.train.box,
        residual=task.residual,
        corrupt=task.corrupt,
        assume=task.assume,
    )


def _refuse_unfinished(task: Task) -> None:
    if not task.splits:
        raise UserError("task.name: splits is empty, must have a source at least")
    for name, figure in {**task.metrics, **task.evaluators}.items():
        if figure.better not in records.BETTER:
            allowed = " or ".join(records.BETTER)
            raise UserError(
                f"task.name: better={figure.better!r} of {name}, must be {allowed}"
            )
    if task.primary not in records.kinds(task):
        allowed = ", ".join(records.kinds(task))
        raise UserError(
            f"task.name: primary={task.primary!r}, must be one of {allowed}"
        )


def make_energy(
    network: Energy,
    example: Example,
    *,
    spectral_norm: Annotated[
        bool, Field("every weight matrix over its largest singular value")
    ] = False,
) -> Energy:
    """The energy that is trained.

    Args:
      network: what the maker gave; its shapes are looked at, nothing is computed.
      example: one of the task, x and y without a batch.

    Raises:
      UserError: it is one of other examples than the task's.
    """
    try:
        params = jax.eval_shape(network.init, jax.random.key(0))
        jax.eval_shape(lambda *row: network(*row, jnp.int32(0)), params, *example)
    except (AssertionError, ValueError) as error:  # chex.assert_shape, or unpacking
        what = str(error).splitlines()[0].rpartition("check: ")[2]
        sentence = "energy.name: it does not take the examples of this task.name"
        raise UserError(f"{sentence}: {what}") from error
    return normalise(network) if spectral_norm else network


def make_block_rows(
    energy: Energy,
    example: Example,
    *,
    block_rows: Annotated[
        int,
        Field(
            "rows at once of losses and chains; 0: a CPU's cache, or all",
            at_least=0,
            other=3,
        ),
    ] = 0,
) -> int | None:
    """The most rows whose energies are computed at once; None: all."""
    return block_rows or blocks.rows_at_once(energy, example)


def make_periods(
    *,
    num_steps: Annotated[
        int, Field("length of the run", at_least=1, other=1_000)
    ] = 100_000,
    steps_per_dispatch: Annotated[
        int, Field("scanned in one call; divides the other three", at_least=1, other=1)
    ] = 10,
    log_every: Annotated[
        int,
        Field(
            "steps between lines of metrics.jsonl",
            at_least=1,
            on_resume=True,
            other=1_000,
        ),
    ] = 500,
    eval_every: Annotated[
        int,
        Field(
            "steps between evaluations, each saves a checkpoint",
            at_least=1,
            on_resume=True,
            other=1_000,
        ),
    ] = 5_000,
    patience: Annotated[
        int,
        Field(
            "evaluations without a better task.primary to stop; 0: never",
            at_least=0,
            on_resume=True,
        ),
    ] = 0,
) -> Periods:
    """The length and the rhythm of a run.

    Raises:
      ValueError: a period that is not a multiple of steps_per_dispatch.
    """
    periods = {"num_steps": num_steps, "log_every": log_every, "eval_every": eval_every}
    for name, value in periods.items():
        if value % steps_per_dispatch:
            raise ValueError(
                f"train.{name}={value}: must be a multiple of"
                f" train.steps_per_dispatch={steps_per_dispatch}"
            )
    return Periods(num_steps, steps_per_dispatch, log_every, eval_every, patience)


def first_step_maker(names: tuple[str, ...]) -> Callable[..., int]:
    """Objectives beside denoising or a proposal may begin later than it."""
    return make_first_step if lead_of(names) and len(names) > 1 else start_at_once


def lead_of(names: Collection[str]) -> str | None:
    """The objective that a run may begin with alone."""
    return next((name for name in ("denoising", "proposal") if name in names), None)


def make_first_step(
    periods: Periods,
    *,
    denoise_share: Annotated[
        float,
        Field(
            "of the run with denoising (else the proposal) alone, first",
            at_least=0,
            below=1,
        ),
    ] = 0.0,
) -> int:
    """The step at which the other objectives begin: a whole number of dispatches.

    Raises:
      ValueError: it is the end of the run.
    """
    dispatch, num_steps = periods.steps_per_dispatch, periods.num_steps
    first = round(denoise_share * num_steps / dispatch) * dispatch
    if first == num_steps:
        what = f"train.denoise_share={denoise_share}: must leave steps to the others"
        raise ValueError(f"{what} ({dispatch} of {num_steps} at least)")
    return first


def start_at_once() -> int:
    """All objectives from the first step on."""
    return 0


def make_optimizer(
    periods: Periods,
    *,
    learning_rate: Annotated[float, Field("of Adam, at its maximum", above=0)] = 3e-3,
    lr_schedule: Annotated[
        str, Field("cosine: to 0 at the end of the run", one_of=("constant", "cosine"))
    ] = "cosine",
    lr_warmup: Annotated[
        int, Field("steps over which the rate grows from 0", at_least=0)
    ] = 100,
    beta1: Annotated[
        float, Field("of Adam; 0 for Langevin runs", at_least=0, below=1)
    ] = 0.9,
    beta2: Annotated[
        float, Field("of Adam; 0.999 for Langevin runs", at_least=0, below=1)
    ] = 0.99,
    grad_clip: Annotated[float, Field("of the global norm", above=0)] = 1.0,
) -> optax.GradientTransformation:
    """Adam on clipped gradients."""
    rate, warmup = learning_rate, lr_warmup
    if lr_schedule == "cosine":
        after = optax.cosine_decay_schedule(rate, max(periods.num_steps - warmup, 1))
    else:
        after = optax.constant_schedule(rate)
    grow = optax.linear_schedule(0.0, rate, warmup)
    rate = optax.join_schedules([grow, after], [warmup]) if warmup else after
    clip = optax.clip_by_global_norm(grad_clip)
    return optax.chain(clip, optax.adam(rate, b1=beta1, b2=beta2))
