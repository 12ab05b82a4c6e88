"""70 % noisy answers, 30 % adversarial ones (q304 with :mlp).

python -m experiments.train --config=configs/mixed.py
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    return base.inversion(
        presets,
        {
            "objectives": ("denoising", "contrast"),
            "negatives.strategy": "mixed",
            "negatives.noise_scale": 3.0,
            "loss.contrastive": "logistic",
            "loss.weight": 0.5,
        },
    )
