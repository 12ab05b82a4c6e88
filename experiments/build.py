"""Turns a config into library calls: with `build_negatives` the reader of its fields.

A new task or energy is one line in a table here.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from experiments.build_negatives import build_contrast, first_step
from experiments.errors import UserError
from experiments.fields import Fields
from ired_jax import blocks, diffusion, training
from ired_jax.diffusion import Schedule
from ired_jax.energies.matrix import make_matrix
from ired_jax.energies.mlp import make_mlp
from ired_jax.energies.spectral import normalise
from ired_jax.precision import FORMATS, in_precision
from ired_jax.tasks.base import Task
from ired_jax.tasks.inverse import make_inverse
from ired_jax.training import Contrast, Problem, TrainState
from ired_jax.types import Array, Energy


class Evaluation(NamedTuple):
    """How answers are scored."""

    num_examples: int
    num_examples_running: int
    batch_size: int
    num_steps: int
    double_steps: bool
    tolerance: float  # 0: all steps are taken
    bounds: float  # 0: the split's own


class Periods(NamedTuple):
    """The length of a run and what happens when, in steps."""

    num_steps: int
    steps_per_dispatch: int
    log_every: int
    eval_every: int
    patience: int


class Experiment(NamedTuple):
    """All that a config stands for."""

    task: Task
    problem: Problem
    contrast: Contrast | None
    optimizer: optax.GradientTransformation
    step_fn: Callable  # one train step of one seed
    denoise_fn: Callable  # the same without negatives, for the steps before theirs
    contrast_from: int  # the first step with negatives; 0 if there are none
    batch_size: int  # rows of the denoising loss
    periods: Periods
    evaluation: Evaluation
    seeds: tuple[int, ...]

    @property
    def schedule(self) -> Schedule:
        return self.problem.schedule

    def init_state(self) -> TrainState:
        """The first state; several seeds are stacked along a leading axis."""
        make = partial(
            training.init_state,
            problem=self.problem,
            optimizer=self.optimizer,
            contrast=self.contrast,
        )
        if len(self.seeds) == 1:
            return make(jax.random.key(self.seeds[0]))
        return jax.vmap(make)(jnp.stack([jax.random.key(seed) for seed in self.seeds]))

    def dispatch(self, *, with_negatives: bool = True) -> Callable:
        """state -> (state, metrics), `steps_per_dispatch` steps, the state donated."""
        step_fn = self.step_fn if with_negatives else self.denoise_fn
        steps = training.repeat(step_fn, self.periods.steps_per_dispatch)
        steps = steps if len(self.seeds) == 1 else _of_all_seeds(steps)
        return jax.jit(steps, donate_argnums=0)

    def of_seed(self, tree, index: int):
        """The part of a state, or of parameters, that belongs to one seed."""
        if len(self.seeds) == 1:
            return tree
        return jax.tree.map(lambda leaf: leaf[index], tree)


def _of_all_seeds(steps: Callable) -> Callable:
    """stacked states -> (stacked states, metrics [steps, seeds])."""
    if jax.default_backend() != "cpu":
        return jax.vmap(steps, out_axes=(0, 1))

    # The caches of a CPU hold one seed: one after the other is a sixth faster there.
    def in_turn(states: TrainState):
        def one(states: TrainState, index: Array):
            state, metrics = steps(jax.tree.map(lambda leaf: leaf[index], states))
            # In place: `jax.lax.map` would hold all states twice, and copy more.
            put = partial(jax.lax.dynamic_update_index_in_dim, index=index, axis=0)
            return jax.tree.map(put, states, state), metrics

        states, metrics = jax.lax.scan(one, states, jnp.arange(len(states.step)))
        return states, jax.tree.map(jnp.transpose, metrics)

    return in_turn


TASKS = {
    "inverse": lambda read: make_inverse(read("task.n", at_least=1)),
}

ENERGIES = {
    "matrix": lambda read, task: make_matrix(
        channels=read("energy.channels", at_least=1),
        layers=read("energy.layers", at_least=1),
        outputs=read("energy.outputs", at_least=1),
        reach=read("energy.reach", one_of=("products", "direct")),
        answer_layers=read("energy.answer_layers", at_least=0),
    ),
    "mlp": lambda read, task: make_mlp(
        task.x_size,
        task.y_size,
        width=read("energy.width", at_least=1),
        head=read("energy.head", one_of=("squared_norm", "scalar")),
        num_levels=read("diffusion.num_levels", at_least=1),
    ),
}


def build(config: ConfigDict) -> Experiment:
    """Builds everything that a config names.

    Raises:
      UserError: a field whose value cannot work, or that would change nothing.
    """
    read = Fields(config)
    try:
        experiment = _build(read)
    except ValueError as error:  # the library's makers speak in one sentence as well
        raise UserError(str(error)) from error
    read.refuse_unread()
    _refuse_if_too_large(experiment, read)
    return experiment


def build_task(read: Fields) -> Task:
    """The task of a config."""
    return TASKS[read("task.name", one_of=tuple(TASKS))](read)


def build_energy(read: Fields, task: Task) -> Energy:
    """The energy of a config for the sizes of a task, in no precision of its own."""
    energy = ENERGIES[read("energy.name", one_of=tuple(ENERGIES))](read, task)
    return normalise(energy) if read("energy.spectral_norm") else energy


def build_evaluation(read: Fields) -> Evaluation:
    """How a config scores answers."""
    return Evaluation(
        num_examples=read("eval.num_examples", at_least=2),
        num_examples_running=read("eval.num_examples_running", at_least=2),
        batch_size=read("eval.batch_size", at_least=1),
        num_steps=read("eval.num_steps", at_least=0),
        double_steps=read("eval.double_steps"),
        tolerance=read("eval.tolerance", at_least=0),
        bounds=read("eval.bounds", at_least=0),
    )


def _build(read: Fields) -> Experiment:
    task = build_task(read)
    schedule = diffusion.make_schedule(
        read("diffusion.schedule", one_of=("cosine", "linear")),
        read("diffusion.num_levels", at_least=1),
    )
    energy = build_energy(read, task)
    block_rows = _block_rows(read, task, energy)
    problem = Problem(
        task.train.draw,
        task.residual,
        in_precision(energy, "float32"),
        schedule,
        loss_energy=in_precision(energy, read("precision.loss", one_of=tuple(FORMATS))),
        block_rows=block_rows,
    )
    contrast = build_contrast(read, task, schedule, energy, block_rows)
    optimizer, periods = _optimizer(read), _periods(read)
    batch_size, first = read("train.batch_size", at_least=1), read("seed", at_least=0)
    make_step = partial(
        training.make_train_step,
        problem,
        optimizer=optimizer,
        batch_size=batch_size,
        num_steps=periods.num_steps,
        ema=training.Ema(
            read("train.ema_decay", at_least=0, at_most=1),
            read("train.ema_every", at_least=1),
            read("train.ema_warmup", at_least=0),
        ),
    )
    return Experiment(
        task=task,
        problem=problem,
        contrast=contrast,
        optimizer=optimizer,
        step_fn=make_step(contrast=contrast),
        denoise_fn=make_step(contrast=None),
        contrast_from=first_step(read) if contrast else 0,
        batch_size=batch_size,
        periods=periods,
        evaluation=build_evaluation(read),
        seeds=tuple(range(first, first + read("train.num_seeds", at_least=1))),
    )


def _block_rows(read: Fields, task: Task, energy: Energy) -> int | None:
    """The most rows whose energies are computed at once; None: all."""
    rows = read("train.block_rows", at_least=0)
    return rows or blocks.rows_at_once(energy, task.x_size, task.y_size)


def _optimizer(read: Fields) -> optax.GradientTransformation:
    rate = read("train.learning_rate", above=0)
    warmup = read("train.lr_warmup", at_least=0)
    num_steps = read("train.num_steps", at_least=1)
    if read("train.lr_schedule", one_of=("constant", "cosine")) == "cosine":
        after = optax.cosine_decay_schedule(rate, max(num_steps - warmup, 1))
    else:
        after = optax.constant_schedule(rate)
    grow = optax.linear_schedule(0.0, rate, warmup)
    rate = optax.join_schedules([grow, after], [warmup]) if warmup else after
    b1 = read("train.beta1", at_least=0, below=1)
    b2 = read("train.beta2", at_least=0, below=1)
    clip = optax.clip_by_global_norm(read("train.grad_clip", above=0))
    return optax.chain(clip, optax.adam(rate, b1=b1, b2=b2))


def _periods(read: Fields) -> Periods:
    dispatch = read("train.steps_per_dispatch", at_least=1)
    names = ("num_steps", "log_every", "eval_every")
    values = {name: read(f"train.{name}", at_least=1) for name in names}
    for name, value in values.items():
        if value % dispatch:
            raise UserError(
                f"train.{name}={value}: must be a multiple of"
                f" train.steps_per_dispatch={dispatch}"
            )
    return Periods(
        steps_per_dispatch=dispatch,
        patience=read("train.patience", at_least=0),
        **values,
    )


def _refuse_if_too_large(experiment: Experiment, read: Fields) -> None:
    """Refuses what the memory cannot hold, before anything is allocated."""
    state = jax.eval_shape(experiment.init_state)
    batch = read("train.batch_size") * (experiment.task.x_size + experiment.task.y_size)
    leaves = [leaf for leaf in jax.tree.leaves(state) if leaf.dtype != state.key.dtype]
    need = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) + 4 * batch
    have = _memory_bytes()
    if need > have:
        raise UserError(
            f"task.n={read('task.n')}, train.batch_size={read('train.batch_size')},"
            f" replay.capacity={read.values['replay.capacity']}: the run's state needs"
            f" {need / 2**30:.1f} GiB, the device has {have / 2**30:.1f} GiB"
        )


def _memory_bytes() -> int:
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
