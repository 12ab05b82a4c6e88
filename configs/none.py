"""Denoising alone, the baseline of every comparison (q001, q101 with :mlp).

python -m experiments.train --config=configs/none.py

q209 is --config=configs/none.py:mlp --config.energy.head=scalar.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    return base.apply(base.get_config(), presets)
