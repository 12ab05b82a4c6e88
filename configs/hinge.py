"""A margin of .05 nats an element between data and Langevin negatives.

    python -m experiments.train --config=configs/hinge.py

Plain chains are about .07 nats an element apart from the data by their width: pairs
beyond the margin rest. Where none is beyond it, hinge is contrastive divergence.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    config = base.get_config()
    config.negatives.strategy = "langevin"
    config.loss.contrastive = "hinge"
    config.loss.weight = 0.05
    config.loss.margin = 0.05
    config.train.beta1, config.train.beta2 = 0.0, 0.999
    return base.apply(config, presets)
