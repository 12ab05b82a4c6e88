"""Do negatives help: the experiments q001 to q304, by their numbers.

    python -m experiments.sweep --config=configs/sweeps/documents.py

q101 to q103 are q001 to q003 again. Of q207 there are two records: denoising alone with
the scalar head, which is q209, and 10 adversarial steps with it, which is the point
q207. Of q205, q301 to q303, q401 and q402 no config is on record. Reference MLP: the
documents' own; the matrix energy has no heads.

What differs from the documents: n = 10 and 1,500 steps of 128 rows, five paired seeds
for ten (--config.train.num_seeds=10), the step of a negative's descent is not doubled,
and gradients are those of each row (the divided form: divided.py).
"""

from configs.sweeps.base import NETWORKS, Sweep, grid

BOTH = {
    "q101": {"base": "configs/none.py:cpu,study"},
    "q102": {"base": "configs/nce_random.py:cpu,study"},
    "q103": {"base": "configs/adversarial.py:cpu,study"},
    "q201": {
        "base": "configs/adversarial.py:cpu,study",
        "negatives.descent_steps": 10,
        "negatives.noise_scale": 1.5,
    },
    "q202": {"base": "configs/cd_langevin.py:cpu,study,classic"},
    "q203": {"base": "configs/cd_langevin_replay.py:cpu,study,classic"},
    "q204": {"base": "configs/cd_full.py:cpu,study,classic"},
    "q206": {"base": "configs/logistic.py:cpu,study,classic"},
    "q304": {"base": "configs/mixed.py:cpu,study"},
}
SCALAR = {
    name: {**BOTH[like], "presets": "mlp", "energy.head": "scalar"}
    for name, like in {"q207": "q201", "q208": "q206", "q209": "q101"}.items()
}


def get_sweep() -> Sweep:
    return Sweep("configs/none.py:cpu,study", {**grid(BOTH, NETWORKS), **SCALAR})
