"""Do negatives help where training itself is on the harder matrices (c = 0.1)?

    python -m experiments.sweep --config=configs/sweeps/harder.py

`val` and `ood` stay the sets of c = 0.5 and c = 0.1, whatever is trained on. The weight
of `on_trajectory`, 100, is for a network that is right when its negatives begin; where
it is not its energies may run away: points of weight 1 (MLP) and 10 (matrix), and with
the logistic loss, which lets go of a pair that is far apart.

What differs from the documents: n = 10, 1,500 steps of 128 rows, five paired seeds,
both training sets.
"""

from configs.sweeps.base import NETWORKS, Sweep, grid, listed

NAMES = ("none", "adversarial", "cd_full", "on_trajectory")
CONFIGS = {name: {"base": f"configs/{name}.py:cpu,study"} for name in NAMES}


def get_sweep() -> Sweep:
    shifts = listed("train.shift", 0.5, 0.1)
    own = CONFIGS["on_trajectory"]
    gentle = {
        "gentle": {**own, "presets": "mlp", "loss.weight": 1},
        "gentle-matrix": {**own, "loss.weight": 10},
    }
    bounded = {"bounded": {**own, "loss.contrastive": "logistic"}}
    points = grid(CONFIGS, NETWORKS, shifts) | grid(gentle, shifts)
    points |= grid(bounded, NETWORKS, shifts)
    return Sweep("configs/none.py:cpu,study", points)
