"""A density on the plane by contrastive divergence: each chain starts at the data.

python -m experiments.train --config=configs/density.py:cpu        # KL .03 nats
python -m experiments.train --config=configs/density_pcd.py:cpu    # persistent
"""

from ml_collections import ConfigDict

from configs import base

VALUES = {
    "task.name": "density",
    "energy.name": "density",
    "objectives": ("contrast",),
    "negatives.strategy": "langevin",
    "sampler.num_steps": 20,
    "sampler.step_size": 0.005,  # data are .12 wide: stable below .029
    "sampler.grad_clip": 0.0,
    "sampler.bounds": 3.5,  # the box of the grid that KL is computed on
    "loss.contrastive": "cd",
    "loss.weight": 1.0,
    "train.num_steps": 20_000,
    "train.batch_size": 512,
    "train.learning_rate": 1e-3,
    "train.beta1": 0.0,
    "train.beta2": 0.999,
    "train.eval_every": 1_000,
}
CPU = {"train.num_steps": 3_000, "train.batch_size": 256, "train.eval_every": 500}


def get_config(presets: str = "") -> ConfigDict:
    return base.config(presets, VALUES, cpu=CPU)
