"""Sudoku: the network inside an energy learns to propose, the energy to judge.

    python -m experiments.train --config=configs/sudoku.py        # a GPU, an hour
    python -m experiments.train --config=configs/sudoku.py:cpu    # two cores, an hour
    python -m experiments.evaluate --workdir=.. --config=configs/sudoku.py:cpu \
        --config.eval.restarts=16

Four levels; the proposal is trained after each of six rounds, at noised truths, at
noise alone and at its own answers. Twelve rounds a level at inference, and :cpu has 384
at the first one, where an answer begins with nothing but noise.
"""

from ml_collections import ConfigDict

from configs import base

VALUES = {
    "task.name": "sudoku",
    "data.num_puzzles": 20_000,
    "data.num_held_out": 2_048,
    "energy.name": "board",
    "energy.steady": True,
    "diffusion.num_levels": 4,
    "objectives": ("proposal",),
    "proposal.error": "categorical",
    "train.num_steps": 20_000,
    "train.batch_size": 64,
    "train.learning_rate": 2e-3,
    "train.lr_warmup": 200,
    "train.ema_decay": 0.9,
    "train.eval_every": 1_000,
    "eval.num_steps": 0,
    "eval.num_examples": 2_048,
    "eval.num_examples_running": 128,
    "eval.batch_size": 128,
    "eval.block": 32,
}
CPU = {
    "train.num_steps": 4_000,
    "train.batch_size": 32,
    "train.log_every": 50,
    "train.eval_every": 2_000,
    "eval.first_rounds": 384,
    "eval.num_examples": 128,
    "eval.num_examples_running": 32,
}
SMOKE = {
    "data.num_puzzles": 64,
    "data.num_held_out": 16,
    "energy.channels": 4,
    "energy.layers": 1,
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
