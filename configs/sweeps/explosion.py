"""Do energies explode without a penalty, and shrink with it (q204)?

    python -m experiments.sweep --config=configs/sweeps/explosion.py

The documents' form has energies of either sign pushed apart without end, and a penalty
of 0.1 on their squares that is lower for a flat energy than for one that denoises.
Expected: `grad_norm_pos`, near 1 for a right denoiser, grows, shrinks, and stays.
Their chains are clipped at 0.01 and hardly move (`clip.py`): unclipped is new.

What differs from the documents: n = 10, 1,500 steps of 128 rows, five paired seeds.
"""

from configs.sweeps.base import NETWORKS, Sweep, grid

CLASSIC = {"base": "configs/cd_full.py:cpu,study,classic"}
UNCLIPPED = {**CLASSIC, "sampler.grad_clip": 0.0}
FORMS = {
    "classic-penalty=0": {**CLASSIC, "loss.penalty": 0.0},
    "classic-penalty=0.1": {**CLASSIC, "loss.penalty": 0.1},
    "unclipped-penalty=0": {**UNCLIPPED, "loss.penalty": 0.0},
    "unclipped-penalty=0.1": {**UNCLIPPED, "loss.penalty": 0.1},
    "nats": {},
}


def get_sweep() -> Sweep:
    return Sweep("configs/cd_full.py:cpu,study", grid(FORMS, NETWORKS))
