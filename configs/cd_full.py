"""The whole method: Langevin, replay, residual filter, warm-up, level range.

    python -m experiments.train --config=configs/cd_full.py        # n = 20, a GPU
    python -m experiments.train --config=configs/cd_full.py:cpu    # n = 10, two cores

With :mlp,classic it is q204, the earlier form that lost to plain denoising.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    return base.inversion(
        presets,
        {
            "objectives": ("denoising", "contrast"),
            "negatives.strategy": "langevin",
            "negatives.level_low": 0.2,
            "negatives.level_high": 0.8,
            "replay.share": 0.95,
            "filter.mode": "batch_quantile",
            "loss.contrastive": "cd",
            "loss.weight": 0.05,
            "loss.warmup": 20_000,
            "train.beta1": 0.0,
            "train.beta2": 0.999,
        },
    )
