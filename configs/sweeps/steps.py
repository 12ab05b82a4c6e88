"""How many Langevin steps does a negative need: K of 1 to 60?

    python -m experiments.sweep --config=configs/sweeps/steps.py

What differs from the documents: n = 10, 1,500 steps of 128 rows, five paired seeds,
steps and temperature in nats (their chains: configs/cd_full.py:cpu,classic), and K goes
on to 30 and 60.
"""

from configs.sweeps.base import NETWORKS, Sweep, grid, listed


def get_sweep() -> Sweep:
    steps = listed("sampler.num_steps", 1, 3, 5, 10, 20, 30, 60)
    return Sweep("configs/cd_full.py:cpu,study", grid(NETWORKS, steps))
