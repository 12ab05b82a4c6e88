"""Shortest paths at 15 nodes, tried at 25: times by nodes, mixed along edges.

python -m experiments.train --config=configs/path.py        # a GPU
python -m experiments.train --config=configs/path.py:cpu    # two cores
"""

from ml_collections import ConfigDict

from configs import base, connectivity

TASK = {
    "task.name": "path",
    "energy.name": "route",
    "proposal.error": "categorical",
}
SMOKE = {k: v for k, v in connectivity.SMOKE.items() if k != "task.n_hardest"}


def get_config(presets: str = "") -> ConfigDict:
    values, smoke = connectivity.VALUES | TASK, {"task.steps": 4} | SMOKE
    return base.config(presets, values, cpu=connectivity.CPU, smoke=smoke)
