"""Answers with three times the noise, told apart by a 2-way cross-entropy.

python -m experiments.train --config=configs/nce_noise.py
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    return base.inversion(
        presets,
        {
            "objectives": ("denoising", "contrast"),
            "negatives.strategy": "noise",
            "negatives.noise_scale": 3.0,
            "loss.contrastive": "logistic",
            "loss.weight": 0.5,
        },
    )
