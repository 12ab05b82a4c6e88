"""The model's own answers as negatives, in the second half of the run.

    python -m experiments.train --config=configs/on_trajectory.py
    python -m experiments.train --config=configs/on_trajectory.py:cpu   # 2 minutes

States of the inference loop of the two sharpest levels, where an error of the answer
counts most, noised like the positives. The weight may be large: a pair says nothing
once the answer is right. n = 10, sixteen paired seeds: docs/results/inverse.md. Where
answers are wrong when they begin a pair may be pushed apart without end; the logistic
loss lets go of it (--config.loss.contrastive=logistic): docs/results/chains.md.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    return base.inversion(
        presets,
        {
            "objectives": ("denoising", "contrast"),
            "negatives.strategy": "on_trajectory",
            "negatives.level_high": 0.15,
            "loss.contrastive": "cd",
            "loss.weight": 100.0,
            "train.denoise_share": 0.5,
        },
    )
