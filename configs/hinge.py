"""A margin of .05 nats an element between data and Langevin negatives.

    python -m experiments.train --config=configs/hinge.py

Plain chains are about .07 nats an element apart from the data by their width: pairs
beyond the margin rest. Where none is beyond it, hinge is contrastive divergence.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    return base.inversion(
        presets,
        {
            "objectives": ("denoising", "contrast"),
            "negatives.strategy": "langevin",
            "loss.contrastive": "hinge",
            "loss.margin": 0.05,
            "loss.weight": 0.05,
            "train.beta1": 0.0,
            "train.beta2": 0.999,
        },
    )
