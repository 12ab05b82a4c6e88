"""Softplus of the energy gap of Langevin negatives (q206 with :mlp,classic).

    python -m experiments.train --config=configs/logistic.py

tau is 1 nat an element: at 1 nat in all nearly every pair is saturated. q208 is
--config=configs/logistic.py:mlp,classic --config.energy.head=scalar.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    config = base.get_config()
    config.negatives.strategy = "langevin"
    config.loss.contrastive = "logistic"
    config.loss.weight = 0.05
    config.train.beta1, config.train.beta2 = 0.0, 0.999
    return base.apply(config, presets)
