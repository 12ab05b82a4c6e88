"""Which training makes an energy reason, and does it beat the same layers without one?

    python -m experiments.sweep --config=configs/sweeps/reasoning.py

Sudoku, eight paired seeds, equal time: steps in the ratio of the seconds that a step
took on an H200, eight seeds of 32 boards together (docs/results/sudoku.json). Primary
outcome: `hard/boards`, one answer of 48 rounds, against `own`; corrected by Holm. The
short schedules are for many rounds: `judge --rounds`, and `eval.first_rounds` of 384.
"""

from configs.sweeps.base import Sweep

NET = {"presets": "net", "eval.rounds": 48}
GRADIENT = {"eval.denoise": "gradient"}
WRONG = {"loss.contrastive": "logistic", "negatives.strategy": "corrupted"}
SHAPED = {"objectives": ("proposal", "contrast")}


def _denoising(**fields) -> dict:
    named = {f"denoising.{name}": value for name, value in fields.items()}
    return {"objectives": ("denoising",), **GRADIENT, **named}


POINTS = {
    # The network inside proposes, on its own answers too: the recommended training.
    "own": (4_000, {}),
    "no_own": (5_200, {"proposal.own_share": 0.0}),
    "net": (5_040, NET),
    "short": (1_000, {}),
    "short_net": (1_260, NET),
    # Contrastive shaping beside it: wrong digits, at the sharpest level or at all, and
    # the model's own answers.
    "wrong": (2_000, {**SHAPED, **WRONG, "negatives.level_high": 0.0}),
    "wrong_all": (1_200, {**SHAPED, **WRONG, "negatives.level_high": 1.0}),
    "mined": (400, SHAPED | WRONG | {"negatives.strategy": "on_trajectory"}),
    # The energy's own gradient, from the start.
    "denoising": (1_920, _denoising()),
    "answer": (1_920, _denoising(max_weight=1e4)),
    "answer_own": (1_440, _denoising(max_weight=1e4, own_share=0.5)),
    "unrolled": (
        800,
        {"objectives": ("unrolled",), "unrolled.max_weight": 1e4, **GRADIENT},
    ),
    "published": (
        880,
        {**_denoising(), **WRONG} | {"objectives": ("denoising", "contrast")},
    ),
}


def get_sweep() -> Sweep:
    points = {
        name: {**fields, "train.num_steps": steps, "train.eval_every": steps // 80 * 10}
        for name, (steps, fields) in POINTS.items()
    }
    shared = {
        "seed": 10,
        "train.log_every": 10,
        "eval.first_rounds": 0,  # the same at all levels
        "eval.num_examples": 512,
        "eval.num_examples_running": 512,
    }
    return Sweep("configs/sudoku.py:cpu", points, shared, seeds=8)
