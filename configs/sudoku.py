"""Sudoku: an energy with the game's symmetries, denoising alone.

python -m experiments.train --config=configs/sudoku.py        # a GPU
python -m experiments.train --config=configs/sudoku.py:cpu    # two cores
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    values = {
        "task.name": "sudoku",
        "data.num_puzzles": 20_000,
        "energy.name": "board",
        "train.num_steps": 20_000,
        "train.batch_size": 64,
        "train.learning_rate": 2e-3,
        "train.lr_warmup": 200,
        "train.eval_every": 1_000,
        "eval.num_examples": 512,
        "eval.num_examples_running": 128,
        "eval.batch_size": 128,
    }
    cpu = {
        "data.num_puzzles": 4_000,
        "data.num_held_out": 256,
        "energy.channels": 24,
        "energy.rounds": 2,
        "train.num_steps": 400,
        "train.batch_size": 32,
        "train.log_every": 20,
        "train.eval_every": 100,
        "eval.num_examples": 256,
        "eval.num_examples_running": 64,
        "eval.batch_size": 64,
    }
    smoke = {
        "data.num_puzzles": 64,
        "data.num_held_out": 16,
        "energy.channels": 4,
        "energy.layers": 1,
        "energy.rounds": 2,
        "train.num_steps": 20,
        "train.batch_size": 8,
        "eval.num_examples": 16,
        "eval.num_examples_running": 8,
        "eval.batch_size": 8,
    }
    return base.config(presets, values, cpu=cpu, smoke=smoke)
