"""Contrastive divergence with short Langevin chains (q202 with :mlp,classic).

python -m experiments.train --config=configs/cd_langevin.py
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    return base.inversion(
        presets,
        {
            "objectives": ("denoising", "contrast"),
            "negatives.strategy": "langevin",
            "loss.contrastive": "cd",
            "loss.weight": 0.05,
            "train.beta1": 0.0,
            "train.beta2": 0.999,
        },
    )
