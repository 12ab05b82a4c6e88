"""Is contrastive shaping worth its time, beside an energy that proposes?

    python -m experiments.sweep --config=configs/sweeps/shaping.py

Sudoku, an energy of 16 channels, eight paired seeds, equal time on a CPU: steps in the
ratio of the seconds that a step takes. Primary outcome: `hard/boards`, one answer,
against `without`; two comparisons. Larger: configs/sweeps/reasoning.py.
"""

from configs.sweeps.base import Sweep
from configs.sweeps.reasoning import SHAPED, WRONG

POINTS = {
    "without": {"train.num_steps": 600},
    "sharpest": {
        **SHAPED, **WRONG, "negatives.level_high": 0.0, "train.num_steps": 440
    },
    "all": {**SHAPED, **WRONG, "negatives.level_high": 1.0, "train.num_steps": 250},
}  # fmt: skip
SHARED = {
    "energy.channels": 16,
    "seed": 10,
    "train.eval_every": 10_000,
    "eval.num_examples": 256,
}


def get_sweep() -> Sweep:
    return Sweep("configs/sudoku.py:cpu", POINTS, SHARED, seeds=8)
