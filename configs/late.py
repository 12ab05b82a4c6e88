"""Late shaping: denoising alone, then a short phase with a small, clamped weight.

    python -m experiments.train --config=configs/late.py

After Energy Matching (arXiv 2504.10612), which trains 145,000 steps without and 2,000
with contrastive divergence.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    config = base.get_config()
    config.negatives.strategy = "langevin"
    config.loss.contrastive = "cd"
    config.loss.weight = 1e-3
    config.loss.clamp = 1.0
    config.train.denoise_share = 0.9
    return base.apply(config, presets)
