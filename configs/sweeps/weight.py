"""How much, from when and at which levels do Langevin negatives count?

    python -m experiments.sweep --config=configs/sweeps/weight.py

weight=0.05 is the default, warmed up over 300 steps at levels of 0.2 to 0.8.

What differs from the documents: n = 10, 1,500 steps of 128 rows, five paired seeds, one
change at a time, and a warm-up of a fifth of a shorter run for their 20,000 steps.
"""

from configs.sweeps.base import NETWORKS, Sweep, grid, listed

WINDOWS = {
    f"levels={low}-{high}": {"negatives.level_low": low, "negatives.level_high": high}
    for low, high in ((0.0, 1.0), (0.0, 0.2), (0.8, 1.0))
}


def get_sweep() -> Sweep:
    weights = listed("loss.weight", 0.005, 0.05, 0.5, 5.0)
    warm_ups = listed("loss.warmup", 0, 750)
    points = grid(NETWORKS, {**weights, **warm_ups, **WINDOWS})
    return Sweep("configs/cd_full.py:cpu,study", points)
