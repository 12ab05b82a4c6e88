"""70 % noisy answers, 30 % adversarial ones (q304 with :mlp).

python -m experiments.train --config=configs/mixed.py
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    config = base.get_config()
    config.negatives.strategy = "mixed"
    config.negatives.noise_scale = 3.0
    config.loss.contrastive = "logistic"
    config.loss.weight = 0.5
    return base.apply(config, presets)
