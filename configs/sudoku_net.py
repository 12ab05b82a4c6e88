"""The same layers without an energy: a recurrent net that answers from noise.

    python -m experiments.train --config=configs/sudoku_net.py:cpu    # 10 min, a core

What every energy here is held against: as many weights, the same puzzles and time. One
level, noise alone as its first state; trained after each of six rounds. At inference
as many rounds as the energy's levels have together, restarts from other noise, and of
several answers the one that it is surest of.
"""

from ml_collections import ConfigDict

from configs import base, sudoku

NET = {
    "diffusion.num_levels": 1,
    "proposal.noise_share": 1.0,
    "proposal.own_share": 0.0,
    "eval.rounds": 48,
    "eval.choose": "doubt",
}


def get_config(presets: str = "") -> ConfigDict:
    values = sudoku.VALUES | NET
    smoke = sudoku.SMOKE | {"eval.rounds": 4}
    return base.config(presets, values, cpu=sudoku.CPU, smoke=smoke)
