"""The model's own answers as negatives: states of the inference loop, noised.

    python -m experiments.train --config=configs/on_trajectory.py

A pair counts as long as its gap is below 1 nat an element: an answer that is already
told apart rests, one that is right says nothing.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    config = base.get_config()
    config.negatives.strategy = "on_trajectory"
    config.loss.contrastive = "cd"
    config.loss.weight = 0.05
    config.loss.clamp = 1.0
    return base.apply(config, presets)
