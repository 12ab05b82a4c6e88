"""Does Adam's momentum hurt where negatives come from the model: beta1 of 0 to 0.9?

    python -m experiments.sweep --config=configs/sweeps/beta1.py

Denoising alone stands beside it, so that what beta1 does to any run can be told apart.
What differs from the documents: n = 10, 1,500 steps of 128 rows, five paired seeds,
beta2 the same throughout.
"""

from configs.sweeps.base import NETWORKS, Sweep, grid, listed

CONFIGS = {n: {"base": f"configs/{n}.py:cpu,study"} for n in ("none", "cd_full")}


def get_sweep() -> Sweep:
    points = grid(CONFIGS, NETWORKS, listed("train.beta1", 0.0, 0.5, 0.9))
    return Sweep("configs/none.py:cpu,study", points, shared={"train.beta2": 0.999})
