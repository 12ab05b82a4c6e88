"""Does contrastive shaping add anything to an energy that proposes?

    python -m experiments.sweep --config=configs/sweeps/shaping.py

Sudoku, an energy of 16 channels, eight paired seeds, equal steps: a step with negatives
takes 1.7 times the time of one without, at all levels twice, on own answers eight times
(CPU), so shaping is the one that is favoured. Primary outcome: `hard/boards`, one
answer, against `without`; three comparisons. Equal time, larger:
configs/sweeps/reasoning.py.
"""

from configs.sweeps.base import Sweep
from configs.sweeps.reasoning import SHAPED, WRONG

POINTS = {
    "without": {},
    "sharpest": {**SHAPED, **WRONG, "negatives.level_high": 0.0},
    "all": {**SHAPED, **WRONG, "negatives.level_high": 1.0},
    # The model's own answers, in the last fifth: they cost the most.
    "own_late": {
        **SHAPED,
        **WRONG,
        "negatives.strategy": "on_trajectory",
        "train.denoise_share": 0.8,
        "loss.warmup": 0,
    },
}
SHARED = {
    "energy.channels": 16,
    "seed": 10,
    "train.num_steps": 400,
    "train.eval_every": 10_000,
    "eval.first_rounds": 0,  # the same at all levels
    "eval.num_examples": 256,
}


def get_sweep() -> Sweep:
    return Sweep("configs/sudoku.py:cpu", POINTS, SHARED, seeds=8)
