"""Completion of matrices of rank 10 and noise, half seen, by factors that take turns.

    python -m experiments.train --config=configs/completion.py        # not run yet
    python -m experiments.train --config=configs/completion.py:cpu    # minutes

Four numbers are learned, from the error of the proposal after each round. Trained with
few rounds and starts, answered with more: docs/results/completion.md.
"""

from ml_collections import ConfigDict

from configs import base

VALUES = {
    "task.name": "completion",
    "diffusion.num_levels": 1,
    "energy.name": "factors",
    "energy.starts": 8,
    "energy.rounds": 12,
    "objectives": ("proposal",),
    "proposal.own_share": 0.0,
    "train.num_steps": 400,
    "train.batch_size": 32,
    "train.learning_rate": 0.05,
    "train.lr_warmup": 10,
    "train.ema_decay": 0.9,
    "train.ema_every": 1,
    "train.log_every": 20,
    "train.eval_every": 100,
    "eval.num_steps": 0,
    "eval.rounds": 32,
    "eval.num_examples": 2_048,
    "eval.num_examples_running": 128,
    "eval.batch_size": 256,
    "eval.block": 32,
}
CPU = {
    "energy.starts": 4,
    "energy.rounds": 8,
    "train.num_steps": 60,
    "train.batch_size": 16,
    "train.learning_rate": 0.1,
    "train.log_every": 20,
    "train.eval_every": 60,
    "eval.rounds": 32,
    "eval.num_examples": 512,
    "eval.num_examples_running": 64,
}
SMOKE = {
    "task.n": 6,
    "task.rank": 2,
    "energy.factors": 2,
    "energy.starts": 2,
    "energy.rounds": 2,
    "train.num_steps": 20,
    "train.batch_size": 8,
    "eval.rounds": 2,
    "eval.num_examples": 16,
    "eval.num_examples_running": 8,
    "eval.batch_size": 8,
    "eval.block": 8,
}


def get_config(presets: str = "") -> ConfigDict:
    return base.config(presets, VALUES, cpu=CPU, smoke=SMOKE)
