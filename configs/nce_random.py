"""Random wrong answers, told apart by a 2-way cross-entropy (q002, q102 with :mlp).

python -m experiments.train --config=configs/nce_random.py
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    return base.inversion(
        presets,
        {
            "objectives": ("denoising", "contrast"),
            "negatives.strategy": "random",
            "loss.contrastive": "logistic",
            "loss.weight": 0.5,
        },
    )
