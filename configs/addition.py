"""Addition of matrices with an energy that is quadratic at every element.

    python -m experiments.train --config=configs/addition.py        # n = 20
    python -m experiments.train --config=configs/addition.py:cpu    # half a minute

Denoising alone; mean squared error below 1e-9 on both sets. A hidden network beside
the linear part (energy.width=16) fits as well in distribution, and bends outside of
it: docs/results/addition.md.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    values = {
        "task.name": "addition",
        "diffusion.num_levels": 4,
        "energy.name": "entrywise",
        "energy.width": 0,
        "train.num_steps": 5_000,
        "train.batch_size": 256,
        "train.learning_rate": 0.1,
        "train.eval_every": 1_000,
    }
    cpu = {"train.num_steps": 2_000, "train.batch_size": 64, "train.eval_every": 500}
    return base.config(presets, values, cpu=cpu, smoke={"task.n": 4})
