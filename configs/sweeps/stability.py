"""What keeps training steady: cosine decay, clipping, averaged parameters?

    python -m experiments.sweep --config=configs/sweeps/stability.py

Defaults: clip 1, average 0.95 at every tenth step; the matrix energy has the cosine,
the MLP a constant rate. ema_decay=0.0 is the last parameters themselves.

What differs from the documents: n = 10, 1,500 steps of 128 rows, five paired seeds, one
change at a time, and no early stop (`train.patience`): the paired runs have the same
length.
"""

from configs.sweeps.base import NETWORKS, Sweep, grid, listed


def get_sweep() -> Sweep:
    changes = {
        **listed("train.lr_schedule", "constant", "cosine"),
        **listed("train.grad_clip", 0.1, 10.0),
        **listed("train.ema_decay", 0.0, 0.995),
    }
    return Sweep("configs/cd_full.py:cpu,study", grid(NETWORKS, changes))
