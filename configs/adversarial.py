"""Noisy answers after 2 steps of energy descent (q003, q103 with :mlp).

    python -m experiments.train --config=configs/adversarial.py

Records of two more differ. q201 (:mlp) is this 2-step baseline, or took 10 steps from
noise 1.5: --config.negatives.descent_steps=10 --config.negatives.noise_scale=1.5. q207
(:mlp --config.energy.head=scalar) is denoising alone by its write-up (configs/none.py),
and those 10 steps by its config.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    return base.inversion(
        presets,
        {
            "objectives": ("denoising", "contrast"),
            "negatives.strategy": "adversarial",
            "negatives.noise_scale": 3.0,
            "loss.contrastive": "logistic",
            "loss.weight": 0.5,
        },
    )
