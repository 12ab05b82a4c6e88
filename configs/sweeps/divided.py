"""What dividing the input gradient by the batch did: objective x head x form.

    python -m experiments.sweep --config=configs/sweeps/divided.py

A gradient divided by B trains F = E / B to denoise, and leaves a contrastive loss of
softplus(B dF), a temperature of 1 / B (docs/known_bugs.md, 006). Expected: where pairs
were not saturated they are (frac_sat), and negatives teach nothing, or too much.

What differs from the documents: n = 10, 1,500 steps of 128 rows, chains of 10 steps for
30, five paired seeds, and the network is F, where theirs had to give numbers B times
larger at the same rate. Inference follows grad F; in theirs it was divided by the batch
of the evaluation, whatever that was. No penalty, so that the temperature alone differs.
An hour and a half of one core. Larger: --config.task.n=20 --config.train.num_steps=5000
--config.train.batch_size=2048.

Primary outcome: `val/task_mse`, the divided form of each objective and head beside the
right one, six pairs, corrected by Holm.
"""

from configs.sweeps.base import Sweep, grid

HEADS = {
    "squared_norm": {"presets": "mlp"},
    "scalar": {"presets": "mlp", "energy.head": "scalar"},
    "matrix": {},
}
SHORT = {"loss.penalty": 0.0, "loss.warmup": 300}
OBJECTIVES = {
    name: {"base": f"configs/{name}.py:cpu,classic", **SHORT}
    for name in ("logistic", "nce_random")
}
OBJECTIVES["logistic"] |= {"sampler.num_steps": 10}
FORMS = {"right": {"loss.divided": False}, "divided": {"loss.divided": True}}
SHARED = {
    "train.batch_size": 128,
    "train.num_steps": 1_500,
    "train.eval_every": 500,
    "eval.num_examples": 4_000,
    "eval.num_examples_running": 500,
}


def get_sweep() -> Sweep:
    points = {}
    for name, head in HEADS.items():
        of_head = {name: head}
        points |= grid({"none": {"base": "configs/none.py:cpu"}}, of_head)
        points |= grid(OBJECTIVES, of_head, FORMS)
    return Sweep("configs/none.py:cpu", points, SHARED, hours=4)
