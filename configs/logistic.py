"""Softplus of the energy gap of Langevin negatives (q206 with :mlp,classic).

    python -m experiments.train --config=configs/logistic.py

tau is 1 nat an element: at 1 nat in all nearly every pair is saturated. q208 is
--config=configs/logistic.py:mlp,classic --config.energy.head=scalar.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    return base.inversion(
        presets,
        {
            "objectives": ("denoising", "contrast"),
            "negatives.strategy": "langevin",
            "loss.contrastive": "logistic",
            "loss.weight": 0.05,
            "train.beta1": 0.0,
            "train.beta2": 0.999,
        },
    )
