"""Shortest paths at 15 nodes, tried at 25: times by nodes, mixed along edges.

python -m experiments.train --config=configs/path.py        # a GPU
python -m experiments.train --config=configs/path.py:cpu    # two cores
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    values = {
        "task.name": "path",
        "energy.name": "route",
        "objectives": ("proposal",),
        "proposal.error": "categorical",
        "train.num_steps": 5_000,
        "train.batch_size": 64,
        "train.learning_rate": 2e-3,
        "train.ema_decay": 0.95,
        "train.eval_every": 1_000,
        "eval.num_examples": 2_048,
        "eval.num_examples_running": 256,
        "eval.batch_size": 256,
        "eval.block": 64,
    }
    cpu = {
        "train.num_steps": 1_000,
        "train.batch_size": 32,
        "train.log_every": 50,
        "train.eval_every": 250,
        "eval.num_examples": 512,
        "eval.num_examples_running": 128,
        "eval.batch_size": 256,
    }
    smoke = {
        "task.n": 5,
        "task.steps": 4,
        "task.n_harder": 6,
        "energy.channels": 4,
        "energy.layers": 1,
        "energy.rounds": 2,
        "eval.rounds": 2,
        "eval.block": 8,
        "train.num_steps": 20,
        "train.batch_size": 8,
        "eval.num_examples": 16,
        "eval.num_examples_running": 8,
        "eval.batch_size": 8,
    }
    return base.config(presets, values, cpu=cpu, smoke=smoke)
