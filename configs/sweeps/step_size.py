"""How far does an adversarial negative descend: steps of 0.1 to 10 times the level's?

    python -m experiments.sweep --config=configs/sweeps/step_size.py

Denoising alone is the point to compare with. What differs from the documents (q003,
q103): n = 10, 1,500 steps of 128 rows, five paired seeds, and the step size varies;
theirs is 1.
"""

from configs.sweeps.base import NETWORKS, Sweep, grid, listed


def get_sweep() -> Sweep:
    sizes = listed("negatives.descent_step_size", 0.1, 0.3, 1.0, 3.0, 10.0)
    none = {"none": {"base": "configs/none.py:cpu,study"}}
    return Sweep("configs/adversarial.py:cpu,study", grid(NETWORKS, {**none, **sizes}))
