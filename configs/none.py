"""Denoising alone, the baseline of every comparison (q001, q101; q209: scalar head).

python -m experiments.train --config=configs/none.py
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    return base.apply(base.get_config(), presets)
