"""Configs small enough to run in a test."""

import importlib
import pathlib

from ml_collections import ConfigDict

import configs

NAMES = sorted(
    path.stem
    for path in pathlib.Path(configs.__path__[0]).glob("*.py")
    if path.stem not in ("__init__", "base")
)


def get_config(name: str, presets: str = "smoke", **overrides) -> ConfigDict:
    """`name` with presets, smaller still; overrides as `train__num_steps=3`."""
    config = importlib.import_module(f"configs.{name}").get_config(presets)
    config.task.n = 3
    if config.energy.name == "mlp":
        config.energy.width = 8
    if config.energy.name == "matrix":
        config.energy.channels, config.energy.layers = 3, 1
    config.train.lr_warmup = 0
    config.train.batch_size = 8
    config.train.block_rows = 8  # all: to ask how many fit takes a trace of the energy
    config.eval.num_examples = 16
    config.eval.num_examples_running = 8
    config.eval.batch_size = 8
    config.eval.num_steps = 1
    if config.replay.share:
        config.replay.capacity = 8
    config.unlock()
    config.update_from_flattened_dict(
        {name.replace("__", "."): value for name, value in overrides.items()}
    )
    config.lock()
    return config
