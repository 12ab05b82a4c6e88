"""A margin of 1 nat an element between data and Langevin negatives.

python -m experiments.train --config=configs/hinge.py
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    config = base.get_config()
    config.negatives.strategy = "langevin"
    config.loss.contrastive = "hinge"
    config.loss.weight = 0.05
    config.train.beta1, config.train.beta2 = 0.0, 0.999
    return base.apply(config, presets)
