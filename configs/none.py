"""Denoising alone, the baseline of every comparison (q001, q101 with :mlp).

python -m experiments.train --config=configs/none.py

q209, and q207 by its write-up, is :mlp --config.energy.head=scalar.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    return base.inversion(presets, {"objectives": ("denoising",)})
