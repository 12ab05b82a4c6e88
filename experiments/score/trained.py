"""A trained model, read back from its run directory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import flags
from ml_collections import ConfigDict

from experiments import devices, fields
from experiments.build import Experiment, build, make_experiment
from experiments.errors import UserError
from experiments.run import workdir
from experiments.run.checkpoint import Checkpoints
from ired_jax.types import Params

CHECKPOINTS = ("last", "best")


class Trained(NamedTuple):
    """EMA parameters of one checkpoint, and the experiment that they belong to."""

    experiment: Experiment
    config: ConfigDict
    params: Params  # of the energy
    step: int
    seed: int


def define(values: flags.FlagValues) -> None:
    """--workdir, of the run that a command reads, and --checkpoint."""
    flags.DEFINE_string("workdir", None, "run directory", flag_values=values)
    flags.mark_flag_as_required("workdir", flag_values=values)
    flags.DEFINE_enum("checkpoint", "last", CHECKPOINTS, "which", flag_values=values)


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
    like = experiment.abstract_state.ema_params.energy
    with Checkpoints(Path(directory), experiment.task, read_only=True) as checkpoints:
        step, params = checkpoints.restore_ema(like, checkpoint)
    params = experiment.of_seed(params, experiment.seeds.index(seed))
    return Trained(experiment, config, devices.everywhere(params), step, seed)


def changed(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """The config with other values of fields {group.field: value}.

    Raises:
      UserError: a field that there is not, or a value that is not allowed.
    """
    given = fields.flatten(config)
    return fields.nest(fields.replace(make_experiment, given, changes))


def on_task(model: Trained, config: ConfigDict) -> Experiment:
    """The experiment of another config, of another size perhaps, for the same model.

    Raises:
      UserError: the trained parameters do not fit.
    """
    experiment = build(config)
    wanted = jax.eval_shape(experiment.energy.init, jax.random.key(0))
    if _shapes(wanted) != _shapes(model.params):
        (x, y), (own_x, own_y) = (
            [
                sum(leaf.size for leaf in jax.tree.leaves(part))
                for part in e.task.example
            ]
            for e in (experiment, model.experiment)
        )
        raise UserError(
            f"task {config.task.to_dict()}: the trained energy takes x of {own_x} and y"
            f" of {own_y} elements, this task has {x} and {y}"
        )
    return experiment


def _shapes(params: Params) -> list[tuple]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [(path, leaf.shape) for path, leaf in leaves]
