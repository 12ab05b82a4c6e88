"""Into how many rings does replay part the levels: 8, 16 or 32?

    python -m experiments.sweep --config=configs/sweeps/buckets.py

With ten levels 10, 16 and 32 leave the others empty and are one run bit for bit, so
that only 8 can differ: it mixes levels. `classic`, since more rings than levels are
refused elsewhere. What differs from the documents: n = 10, 1,500 steps of 128 rows,
five paired seeds, rings of 2,000 rows; 10 is new.
"""

from configs.sweeps.base import NETWORKS, Sweep, grid, listed


def get_sweep() -> Sweep:
    buckets = listed("replay.num_buckets", 8, 10, 16, 32)
    return Sweep("configs/cd_full.py:cpu,study,classic", grid(NETWORKS, buckets))
