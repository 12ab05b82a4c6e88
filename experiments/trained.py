"""A trained model, read back from its run directory."""

from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from experiments import workdir
from experiments.build import Experiment, build, build_energy, build_task
from experiments.checkpoint import Checkpoints
from experiments.errors import UserError
from experiments.fields import Fields
from ired_jax.precision import in_precision
from ired_jax.types import Params

CHECKPOINTS = ("last", "best")


class Trained(NamedTuple):
    """EMA parameters of one checkpoint, and the experiment that they belong to."""

    experiment: Experiment
    config: ConfigDict
    params: Params
    step: int
    seed: int


def load(
    directory: Path | str, checkpoint: str = "last", seed: int | None = None
) -> Trained:
    """Reads the `last` or the `best` checkpoint of a finished or interrupted run.

    Args:
      directory: run directory.
      checkpoint: `last` or `best`.
      seed: which one, of a run with several; default: its first.

    Raises:
      UserError: not a run directory, an unknown name or seed, or no whole checkpoint.
    """
    if checkpoint not in CHECKPOINTS:
        allowed = ", ".join(CHECKPOINTS)
        raise UserError(f"--checkpoint={checkpoint}: allowed are {allowed}")
    config = workdir.read_config(Path(directory))
    experiment = build(config)
    seed = experiment.seeds[0] if seed is None else seed
    if seed not in experiment.seeds:
        raise UserError(f"--seed={seed}: {directory} has {experiment.seeds}")
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
        jax.eval_shape(experiment.init_state).ema_params,
    )
    with Checkpoints(Path(directory), read_only=True) as checkpoints:
        step, params = checkpoints.restore_ema(like, checkpoint)
    params = experiment.of_seed(params, experiment.seeds.index(seed))
    return Trained(experiment, config, params, step, seed)


def on_task(model: Trained, config: ConfigDict) -> Experiment:
    """The model's experiment on the task of another config, of another size perhaps.

    Raises:
      UserError: the trained parameters do not fit that size.
    """
    task, own = build_task(Fields(config)), model.experiment.task
    energy = in_precision(build_energy(Fields(model.config), task), "float32")
    wanted = jax.eval_shape(energy.init, jax.random.key(0))
    if _shapes(wanted) != _shapes(model.params):
        raise UserError(
            f"task.n={config.task.n}: the trained energy takes x of {own.x_size} and y"
            f" of {own.y_size} elements, this task has {task.x_size} and {task.y_size}"
        )
    problem = model.experiment.problem._replace(
        draw=task.train.draw, residual=task.residual, energy=energy
    )
    return model.experiment._replace(task=task, problem=problem)


def _shapes(params: Params) -> list[tuple]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [(path, leaf.shape) for path, leaf in leaves]
