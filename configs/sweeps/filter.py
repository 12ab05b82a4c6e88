"""Does dropping negatives that are right help: filter off, on, fixed, running?

    python -m experiments.sweep --config=configs/sweeps/filter.py

The fixed thresholds are those of `experiments.calibrate` at its median, after 1,500
steps of denoising alone (configs/none.py:cpu, and :cpu,mlp), a level each.

What differs from the documents: n = 10, 1,500 steps of 128 rows, five paired seeds, and
the filter looks at the denoised negative with a threshold for each level; theirs saw
noise.
"""

from configs.sweeps.base import NETWORKS, Sweep, grid, listed

THRESHOLDS = {
    "matrix": (
        *(0.05416, 0.09757, 0.2932, 0.4007, 0.622),
        *(0.5511, 0.7864, 0.6378, 1.35, 25.21),
    ),
    "mlp": (
        *(7.848, 8.027, 8.198, 8.687, 9.831),
        *(12.05, 16.51, 26.6, 59.02, 210.0),
    ),
}


def get_sweep() -> Sweep:
    modes = listed("filter.mode", "none", "batch_quantile", "running_quantile")
    fixed = {
        f"{name}-mode=fixed": {
            **NETWORKS[name],
            "filter.mode": "fixed",
            "filter.thresholds": thresholds,
        }
        for name, thresholds in THRESHOLDS.items()
    }
    return Sweep("configs/cd_full.py:cpu,study", {**grid(NETWORKS, modes), **fixed})
