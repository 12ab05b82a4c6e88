"""Answers with three times the noise, told apart by a 2-way cross-entropy.

python -m experiments.train --config=configs/nce_noise.py
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    config = base.get_config()
    config.negatives.strategy = "nce_noise"
    config.negatives.noise_scale = 3.0
    config.loss.contrastive = "logistic"
    config.loss.weight = 0.5
    return base.apply(config, presets)
