"""Connectivity at 12 nodes, tried at 18 and 32: learned products on pairs of nodes.

python -m experiments.train --config=configs/connectivity.py        # a GPU
python -m experiments.train --config=configs/connectivity.py:cpu    # two cores
"""

from ml_collections import ConfigDict

from configs import base

VALUES = {
    "task.name": "connectivity",
    "energy.name": "closure",
    "objectives": ("proposal",),
    "proposal.error": "binary",
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
CPU = {
    "train.num_steps": 1_000,
    "train.batch_size": 32,
    "train.log_every": 50,
    "train.eval_every": 250,
    "eval.num_examples": 512,
    "eval.num_examples_running": 128,
    "eval.batch_size": 256,
}
SMOKE = {
    "task.n": 5,
    "task.n_harder": 6,
    "task.n_hardest": 7,
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


def get_config(presets: str = "") -> ConfigDict:
    return base.config(presets, VALUES, cpu=CPU, smoke=SMOKE)
