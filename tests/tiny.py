"""Configs small enough to run in a test."""

import importlib
import pathlib

import jax
import numpy as np
from ml_collections import ConfigDict

import configs
from experiments import fields
from experiments.build import make_experiment

NAMES = sorted(
    path.stem
    for path in pathlib.Path(configs.__path__[0]).glob("*.py")
    if path.stem not in ("__init__", "base")
)
SIZES = {  # where a config has them
    "task.n": 3,
    "task.n_harder": 4,
    "task.n_hardest": 5,
    "energy.width": 8,
    "energy.channels": 3,
    "energy.layers": 1,
    "train.lr_warmup": 0,
    "train.batch_size": 8,
    "train.block_rows": 8,  # all: to ask how many fit takes a trace of the energy
    "replay.capacity": 8,
    "eval.num_examples": 16,
    "eval.num_examples_running": 8,
    "eval.batch_size": 8,
    "eval.num_steps": 1,
}


def get_config(name: str, presets: str = "smoke", **overrides) -> ConfigDict:
    """Every field of `name` with presets, smaller still; as `train__num_steps=3`."""
    config = importlib.import_module(f"configs.{name}").get_config(presets)
    changes = {name.replace("__", "."): value for name, value in overrides.items()}
    return resized(fields.flatten(config), changes)


def resized(given: fields.Values, changes: fields.Values) -> ConfigDict:
    """Every field of a config with changes, and with these sizes where it has them."""
    values = fields.replace(make_experiment, given, changes)
    sizes = {k: v for k, v in SIZES.items() if k in values and k not in changes}
    return fields.nest(fields.replace(make_experiment, values, sizes)).unlock()


def drawn_state(experiment):
    """A first state whose parameters NumPy draws: no initialiser is compiled."""
    like, rng = experiment.shapes, np.random.default_rng(0)

    def draw(leaf):
        return np.float32(rng.normal(0, 0.3, leaf.shape))

    def zeros(leaf):
        return np.zeros(leaf.shape, leaf.dtype)

    params, rest = jax.tree.map(draw, like.params), (like.opt_state, like.memory)
    opt_state, memory = jax.tree.map(zeros, rest)
    key = jax.random.key(experiment.seeds[0])
    return like._replace(
        step=np.int32(0),
        key=key,
        params=params,
        ema_params=params,
        opt_state=opt_state,
        memory=memory,
    )
