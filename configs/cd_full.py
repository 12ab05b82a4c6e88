"""The whole method: Langevin, replay, residual filter, warm-up, level range.

    python -m experiments.train --config=configs/cd_full.py        # n = 20, a GPU
    python -m experiments.train --config=configs/cd_full.py:cpu    # n = 10, two cores

With :mlp,classic it is q204, the earlier form that lost to plain denoising.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    config = base.get_config()
    config.negatives.strategy = "langevin"
    config.negatives.level_low = 0.2
    config.negatives.level_high = 0.8
    config.replay.share = 0.95
    config.filter.mode = "batch_quantile"
    config.loss.warmup = 20_000
    config.loss.contrastive = "cd"
    config.loss.weight = 0.05
    config.train.beta1, config.train.beta2 = 0.0, 0.999
    return base.apply(config, presets)
