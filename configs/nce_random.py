"""Random wrong answers, told apart by a 2-way cross-entropy (q002, q102 with :mlp).

python -m experiments.train --config=configs/nce_random.py
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    config = base.get_config()
    config.negatives.strategy = "nce_random"
    config.loss.contrastive = "logistic"
    config.loss.weight = 0.5
    return base.apply(config, presets)
