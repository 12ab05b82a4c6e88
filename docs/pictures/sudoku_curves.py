"""Draws sudoku_curves.png from docs/results/sudoku.json.

python docs/pictures/sudoku_curves.py
"""

import json
from pathlib import Path

from matplotlib.figure import Figure

HERE = Path(__file__).parent
SPLITS = "val", "hard", "minimal", "top95"
# (study, its curve, whose step time, as what). The state "adds up" or is steady.
CURVES = (
    ("steady study", "own", "own", "the energy"),
    ("steady study", "net", "net", "the same layers, no energy"),
    ("steady study", "denoising", "denoising", "denoising"),
    (None, "own", "own", "adds up: the energy"),
    (None, "net", "net", "adds up: no energy"),
    ("third study", "own-long", "own", "adds up: the energy, a longer schedule"),
    ("third study", "wrong", "wrong", "adds up: the energy, wrong digits as negatives"),
    (
        "second study",
        "answer-own",
        "answer-own",
        "adds up: denoising, answer units, own states",
    ),
    ("third study", "unrolled", "unrolled", "adds up: unrolled descent"),
)


def main() -> None:
    found = json.loads((HERE.parent / "results" / "sudoku.json").read_text())
    times = found["milliseconds of a step, 8 seeds x 32 boards, float32"]
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    axes = figure.subplots(1, len(SPLITS), sharey=True)
    for study, name, of_step, label in CURVES:
        curve = (found[study] if study else found)["curves"][name]
        seconds = [point["step"] * times[of_step] / 1e3 for point in curve]
        for axis, split in zip(axes, SPLITS, strict=True):
            means, errors = zip(*(p[f"{split}/boards"] for p in curve), strict=True)
            style = {"fmt": "o-", "ms": 3, "capsize": 2, "label": label}
            axis.errorbar(seconds, means, errors, **style)
    for axis, split in zip(axes, SPLITS, strict=True):
        axis.set(title=split, xlabel="seconds of steps, H200", ylim=(0, 1.02))
        axis.set_xscale("log")
    axes[0].set_ylabel("boards right, one answer")
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, fontsize=9)
    figure.savefig(HERE / "sudoku_curves.png", dpi=90)


if __name__ == "__main__":
    main()
