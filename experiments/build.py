"""Turns a config into library calls.

`make_experiment` is the root of all fields: what a config may hold is found by walking
its signature (see `experiments.fields`). A new task, energy, objective or strategy is a
module of its package and is not named here.
"""

import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, SingleDeviceSharding
from ml_collections import ConfigDict

from experiments import devices, fields
from experiments.errors import UserError
from experiments.parts import (
    MOVES,
    NETWORK,
    OBJECTIVES,
    TASK,
    Data,
    Evaluation,
    Periods,
    first_step_maker,
    known_of_task,
    lead_of,
    make_block_rows,
    make_energy,
    make_optimizer,
    make_periods,
    search_maker,
)
from ired_jax import energies, objectives, tasks, training
from ired_jax.diffusion import Schedule
from ired_jax.fields import Choice, Choices, Field, Names, Package, Part
from ired_jax.objectives.base import Objective
from ired_jax.precision import in_precision, make_loss_energy
from ired_jax.samplers.search import Search
from ired_jax.tasks.base import Inference, Task
from ired_jax.training import Ema, TrainState
from ired_jax.types import Array, Energy, Example, Tree

LAST_SEED = 2**32 - 1_000  # keys have 32 bits of a seed: 2^32 would be 0 again


class Experiment(NamedTuple):
    """All that a config stands for."""

    task: Task
    energy: Energy  # in float32
    schedule: Schedule
    example: Example  # shapes and dtypes of one
    objectives: Mapping[str, Objective]
    phases: tuple[tuple[int, tuple[str, ...]], ...]  # (first step, objectives)
    optimizer: optax.GradientTransformation
    step_fns: tuple[Callable, ...]  # one train step of one seed, for each phase
    draw: Callable  # (data, key, step) -> the examples of that step, jitted
    batch_size: int  # examples of a step
    block_rows: int | None
    periods: Periods
    evaluation: Evaluation
    search: Search | None
    seeds: tuple[int, ...]
    mesh: Mesh | None = None  # the devices of a step; None: one
    shapes: TrainState | None = None  # and dtypes of a state, traced once

    @property
    def train_data(self) -> Tree:
        """The data that every step gets."""
        return self.task.train.data

    @property
    def inference(self) -> Inference:
        return self.task.inference

    @property
    def contrast(self) -> Any:
        """What the contrastive objective is made of; None without one."""
        return getattr(self.objectives.get("contrast"), "spec", None)

    def init_state(self) -> TrainState:
        """The first state; several seeds are stacked along a leading axis."""
        make = partial(
            training.init_state,
            energy=self.energy,
            objectives=self.objectives,
            optimizer=self.optimizer,
            example=self.example,
        )

        def of_seeds() -> TrainState:
            keys = [jax.random.key(seed) for seed in self.seeds]
            return make(*keys) if len(keys) == 1 else jax.vmap(make)(jnp.stack(keys))

        if self.mesh is None:
            return of_seeds()
        return jax.jit(of_seeds, out_shardings=self.placement)()

    @property
    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and placement of a state, without its memory."""
        one = SingleDeviceSharding(jax.local_devices()[0])
        places = (
            self.placement if self.mesh else jax.tree.map(lambda _: one, self.shapes)
        )
        return jax.tree.map(
            lambda leaf, place: leaf.update(sharding=place), self.shapes, places
        )

    @property
    def placement(self) -> TrainState:
        """Where each leaf of the state is, of a run on several devices."""
        return devices.placement(self.shapes, self.mesh, num_seeds=len(self.seeds))

    def phase_at(self, step: int) -> int:
        """The index of the phase that the step after `step` finished ones is in."""
        return max(i for i, (first, _) in enumerate(self.phases) if step >= first)

    def dispatch(self, phase: int = -1) -> Callable:
        """(state, data) -> (state, metrics), jitted, the state donated.

        `steps_per_dispatch` steps of a phase, by default of the last; metrics are
        [steps], with several seeds [steps, seeds].
        """
        steps = training.repeat(self.step_fns[phase], self.periods.steps_per_dispatch)
        steps = steps if len(self.seeds) == 1 else _of_all_seeds(steps)
        if self.mesh is None:
            return jax.jit(steps, donate_argnums=0)
        return devices.jit(steps, self.mesh, self.placement)

    def of_seed(self, tree: Tree, index: int) -> Tree:
        """The part of a state, or of parameters, that belongs to one seed."""
        if len(self.seeds) == 1:
            return tree
        return jax.tree.map(lambda leaf: leaf[index], tree)


def make_experiment(
    *,
    seed: Annotated[
        int,
        Field("root of all random streams of training", at_least=0, at_most=LAST_SEED),
    ] = 0,
    data: Annotated[Tree, Choice(Data(), TASK, "data")] = "inverse",
    task: Annotated[Task, Choice(Package(tasks), TASK)] = "inverse",
    of_task: Annotated[Names, Part(known_of_task)],
    network: Annotated[Energy, Choice(Package(energies), NETWORK)] = "matrix",
    energy: Annotated[Energy, Part(make_energy, "energy")],
    loss_energy: Annotated[Energy, Part(make_loss_energy, "precision")],
    num_seeds: Annotated[
        int,
        Field(
            "seed, seed + 1, .. in one program",
            at_least=1,
            at_most=1_000,
            group="train",
        ),
    ] = 1,
    batch_size: Annotated[
        int, Field("examples of a step, B", at_least=1, group="train")
    ] = 2048,
    block_rows: Annotated[int | None, Part(make_block_rows, "train")],
    periods: Annotated[Periods, Part(make_periods, "train")],
    first_step: Annotated[int, Choice(first_step_maker, OBJECTIVES, "train")] = (
        "denoising",
    ),
    terms: Annotated[
        Mapping[str, Objective], Choices(Package(objectives), OBJECTIVES)
    ] = ("denoising",),
    optimizer: Annotated[optax.GradientTransformation, Part(make_optimizer, "train")],
    ema: Annotated[Ema, Part(Ema, "train")],
    evaluation: Annotated[Evaluation, Part(Evaluation, "eval")],
    search: Annotated[Search | None, Choice(search_maker, MOVES, "eval")] = 0,
) -> Experiment:
    """Puts the parts together."""
    del data, network, loss_energy
    phases = ((0, tuple(terms)),)
    if first_step:
        phases = ((0, (lead_of(terms),)), (first_step, tuple(terms)))
    make_step = partial(
        training.make_train_step,
        task.train,
        optimizer=optimizer,
        batch_size=batch_size,
        num_steps=periods.num_steps,
        ema=ema,
        block_rows=block_rows,
    )
    experiment = Experiment(
        task=task,
        energy=in_precision(energy, "float32"),
        schedule=of_task["schedule"],
        example=of_task["example"],
        objectives=terms,
        phases=phases,
        optimizer=optimizer,
        step_fns=tuple(make_step({k: terms[k] for k in names}) for _, names in phases),
        draw=jax.jit(
            partial(training.draw_examples, task.train, batch_size=batch_size)
        ),
        batch_size=batch_size,
        block_rows=block_rows,
        periods=periods,
        evaluation=evaluation,
        search=search,
        seeds=tuple(range(seed, seed + num_seeds)),
    )
    return experiment._replace(
        mesh=devices.make_mesh(batch_size),
        shapes=jax.eval_shape(experiment.init_state),
    )


def resolve(config: Mapping | ConfigDict) -> dict[str, Any]:
    """Every field of a config, {group.field: value}, of one that holds some or all.

    Raises:
      UserError: a field that it does not have, or a value that is not allowed.
    """
    return fields.resolve(make_experiment, fields.flatten(config))


def build(config: Mapping | ConfigDict) -> Experiment:
    """Builds everything that a config names.

    Raises:
      UserError: a field that there is not, or whose value cannot work.
    """
    values = resolve(config)
    experiment = fields.make(make_experiment, values)
    _refuse_if_too_large(experiment, values)
    return experiment


def _of_all_seeds(steps: Callable) -> Callable:
    """(stacked states, data) -> (stacked states, metrics [steps, seeds])."""
    if jax.default_backend() != "cpu":
        return jax.vmap(steps, in_axes=(0, None), out_axes=(0, 1))

    # The caches of a CPU hold one seed: one after the other is a sixth faster there.
    def in_turn(states: TrainState, data: Tree):
        def one(states: TrainState, index: Array):
            state, metrics = steps(jax.tree.map(lambda leaf: leaf[index], states), data)
            # In place: `jax.lax.map` would hold all states twice, and copy more.
            put = partial(jax.lax.dynamic_update_index_in_dim, index=index, axis=0)
            return jax.tree.map(put, states, state), metrics

        states, metrics = jax.lax.scan(one, states, jnp.arange(len(states.step)))
        return states, jax.tree.map(jnp.transpose, metrics)

    return in_turn


def _refuse_if_too_large(experiment: Experiment, values: fields.Values) -> None:
    """Refuses what the memory cannot hold, before anything is allocated."""
    need = _state_bytes(experiment)
    example = jax.tree.leaves(experiment.example)
    row = sum(leaf.size * leaf.dtype.itemsize for leaf in example)
    need += experiment.batch_size * row
    have = memory_bytes()
    if need > have:
        sizes = ", ".join(
            f"{name}={value}"
            for name, value in values.items()
            if name in ("task.n", "train.batch_size", "replay.capacity")
        )
        raise UserError(
            f"{sizes}: the run's state needs {need / 2**30:.1f} GiB, the device has"
            f" {have / 2**30:.1f} GiB"
        )


def _state_bytes(experiment: Experiment) -> int:
    """What one device holds of the state."""
    state = experiment.shapes
    leaves = jax.tree.leaves(state)
    shapes = [leaf.shape for leaf in leaves]
    if experiment.mesh is not None:
        places = jax.tree.leaves(experiment.placement)
        shapes = [p.shard_shape(s) for p, s in zip(places, shapes, strict=True)]
    return sum(
        math.prod(shape) * leaf.dtype.itemsize
        for shape, leaf in zip(shapes, leaves, strict=True)
        if leaf.dtype != state.key.dtype
    )


def memory_bytes() -> int:
    """What the device offers, or where it does not say, the machine."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
