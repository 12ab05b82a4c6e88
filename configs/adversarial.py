"""Noisy answers after 2 steps of energy descent (q003, q103 with :mlp).

    python -m experiments.train --config=configs/adversarial.py

q201 (:mlp; q207 with --config.energy.head=scalar as well) took 10 steps from noise 1.5:
--config.negatives.descent_steps=10 --config.negatives.noise_scale=1.5.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    config = base.get_config()
    config.negatives.strategy = "adversarial"
    config.negatives.noise_scale = 3.0
    config.loss.contrastive = "logistic"
    config.loss.weight = 0.5
    return base.apply(config, presets)
