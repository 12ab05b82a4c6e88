"""Addition of matrices with an entrywise energy: denoising alone is exact here.

python -m experiments.train --config=configs/addition.py        # n = 20
python -m experiments.train --config=configs/addition.py:cpu    # two minutes
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    values = {
        "task.name": "addition",
        "energy.name": "entrywise",
        "train.num_steps": 5_000,
        "train.batch_size": 256,
        "train.learning_rate": 1e-2,
        "train.eval_every": 1_000,
    }
    cpu = {"train.num_steps": 2_000, "train.batch_size": 64, "train.eval_every": 500}
    return base.config(presets, values, cpu=cpu, smoke={"task.n": 4})
