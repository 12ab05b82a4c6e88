"""What dividing the input gradient by the batch did: objective x head x form.

    python -m experiments.sweep --config=configs/sweeps/divided.py

A gradient divided by B trains F = E / B to denoise, and leaves a contrastive loss of
softplus(B dF), a temperature of 1 / B (docs/known_bugs.md, 006). Expected: where pairs
were not saturated they are (frac_sat), and negatives teach nothing, or too much.

What differs from the documents: n = 10, five paired seeds, and the network is F, where
theirs had to give numbers B times larger at the same rate. Inference follows grad F; in
theirs it was divided by the batch of the evaluation, whatever that was. No penalty, so
that the temperature alone differs.
"""

from configs.sweeps.base import Sweep, grid

HEADS = {
    "matrix": {},
    "squared_norm": {"presets": "mlp"},
    "scalar": {"presets": "mlp", "energy.head": "scalar"},
}
OBJECTIVES = {
    name: {"base": f"configs/{name}.py:cpu,classic", "loss.penalty": 0.0}
    for name in ("nce_random", "adversarial", "logistic")
}
FORMS = {"right": {"loss.divided": False}, "divided": {"loss.divided": True}}


def get_sweep() -> Sweep:
    alone = grid({"none": {"base": "configs/none.py:cpu"}}, HEADS)
    points = {**alone, **grid(OBJECTIVES, HEADS, FORMS)}
    return Sweep("configs/none.py:cpu", points)
