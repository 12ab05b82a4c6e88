"""Where to cut each element of a chain's gradient: 0.01 to nowhere (0)?

    python -m experiments.sweep --config=configs/sweeps/clip.py

At 0.01 a chain hardly feels the energy; 1 is a standard deviation of its gradient at
data. What differs from the documents: n = 10, 1,500 steps of 128 rows, five paired
seeds, chains in nats; 0.5 and more (5 is the default) and none are new.
"""

from configs.sweeps.base import NETWORKS, Sweep, grid, listed


def get_sweep() -> Sweep:
    clips = listed("sampler.grad_clip", 0.01, 0.03, 0.05, 0.5, 1.0, 2.0, 5.0, 0.0)
    return Sweep("configs/cd_full.py:cpu,study", grid(NETWORKS, clips))
