"""How much noise: at the start of a chain, and in its steps?

    python -m experiments.sweep --config=configs/sweeps/noise.py

A temperature of 0.01 is the documents' noise multiplier of 0.1; noise_scale=1.5 is the
default, at temperature 1.

What differs from the documents: n = 10, 1,500 steps of 128 rows, five paired seeds, one
change at a time.
"""

from configs.sweeps.base import NETWORKS, Sweep, grid, listed


def get_sweep() -> Sweep:
    start = listed("negatives.noise_scale", 0.5, 1.0, 1.5, 3.0)
    chain = listed("sampler.temperature", 0.0, 0.01, 0.1)
    return Sweep("configs/cd_full.py:cpu,study", grid(NETWORKS, {**start, **chain}))
