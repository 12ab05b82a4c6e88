"""Sudoku by the published energy, its denoising and its descent, to compare with.

    python -m experiments.train --config=configs/sudoku_published.py
    python -m experiments.train --config=configs/sudoku_published.py:cpu

Convolutions, the noise predicted by the gradient, ten levels, up to twenty steps at
each and no noise between them, as arXiv 2406.11179 and its released code have it, but
for the contrastive term (`objectives`). Puzzles, and how many are seen, are those of
configs/sudoku.py: the released run is up to 1,300,000 steps long. On two cores the
network is small, and has no board right (docs/results/sudoku.md); the full size has not
been run.
"""

from ml_collections import ConfigDict

from configs import base, sudoku

VALUES = {
    "task.name": "sudoku",
    "data.num_puzzles": 20_000,
    "data.num_held_out": 2_048,
    "energy.name": "convolutional",
    "diffusion.num_levels": 10,
    "objectives": ("denoising",),
    "train.num_steps": 20_000,
    "train.batch_size": 64,
    "train.learning_rate": 1e-4,
    "train.lr_schedule": "constant",
    "train.lr_warmup": 0,
    "train.eval_every": 5_000,
    "eval.num_steps": 20,
    "eval.noise": False,
    "eval.num_examples": 512,  # an answer is 200 steps of 20 GFLOP or more
    "eval.num_examples_running": 128,
    "eval.batch_size": 128,
    "eval.block": 32,
}
CPU = {
    "energy.channels": 32,
    "train.num_steps": 4_000,
    "train.batch_size": 32,
    "train.learning_rate": 1e-3,
    "train.log_every": 50,
    "train.eval_every": 2_000,
    "eval.num_steps": 5,
    "eval.num_examples": 128,
    "eval.num_examples_running": 32,
}
SMOKE = {"energy.blocks": 2, "eval.num_steps": 1} | sudoku.SMOKE


def get_config(presets: str = "") -> ConfigDict:
    return base.config(presets, VALUES, cpu=CPU, smoke=SMOKE)
