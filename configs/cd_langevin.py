"""Contrastive divergence with short Langevin chains (q202 with :mlp,classic).

python -m experiments.train --config=configs/cd_langevin.py
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    config = base.get_config()
    config.negatives.strategy = "langevin"
    config.loss.contrastive = "cd"
    config.loss.weight = 0.05
    config.train.beta1, config.train.beta2 = 0.0, 0.999
    return base.apply(config, presets)
