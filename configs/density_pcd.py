"""A density on the plane by persistent contrastive divergence.

    python -m experiments.train --config=configs/density_pcd.py:cpu    # KL .44 nats

Chains go on from a ring of earlier ones. At the learning rate of `density` and without
a penalty on energies they run away from the data after 1,500 steps: KL .46, then 269.
"""

from ml_collections import ConfigDict

from configs import base, density


def get_config(presets: str = "") -> ConfigDict:
    values = density.VALUES | {
        "replay.share": 0.95,
        "replay.num_buckets": 1,
        "sampler.grad_clip": 30.0,
        "loss.penalty": 0.02,
        "train.learning_rate": 5e-4,
    }
    return base.config(presets, values, cpu=density.CPU)
