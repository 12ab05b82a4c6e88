"""The task of `sorting.py` with the commands.

python -m experiments.train --config=examples/sorting_config.py:cpu
"""

from ml_collections import ConfigDict

from configs import base


def get_config(presets: str = "") -> ConfigDict:
    return base.config(
        presets,
        {
            "task.name": "examples.sorting",
            "energy.name": "mlp",
            "energy.width": 128,
            "objectives": ("denoising",),
        },
        smoke={"energy.width": 32},
    )
