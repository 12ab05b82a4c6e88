"""Draws sudoku_work.png from docs/results/sudoku.json.

python docs/pictures/sudoku_work.py
"""

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

HERE = Path(__file__).parent
SPLITS = {"hard": "22 to 28 givens", "top95": "95 published hard ones"}
# study: what it is called, rounds of an answer with those that rank it
LINES = {
    "12 rounds a level, 512 boards of hard": ("energy, 12 rounds a level", 60),
    "24 and 8 rounds, 17 answers are 960 rounds, 512 boards of hard": (
        "energy, 24 rounds, then 8 a level",
        56,
    ),
    "384 and 12 rounds, 256 boards of hard": (
        "energy, 384 rounds, then 12 a level",
        432,
    ),
    "net, 48 rounds, 20 answers are 960 rounds": ("no energy, 48 rounds", 48),
}


def main() -> None:
    found = json.loads((HERE.parent / "results" / "sudoku.json").read_text())
    studies = found["steady study"]["boards right of so many answers, each seed"]
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes = figure.subplots(1, len(SPLITS))
    for axis, (split, meaning) in zip(axes, SPLITS.items(), strict=True):
        for study, (label, rounds) in LINES.items():
            answers = sorted(map(int, studies[study][split]))
            seeds = np.array([studies[study][split][str(n)] for n in answers])
            work, mean = [rounds * n for n in answers], seeds.mean(1)
            half = stats.t.ppf(0.975, seeds.shape[1] - 1) * stats.sem(seeds, axis=1)
            (line,) = axis.plot(work, mean, "o-", ms=3, label=label)
            band = {"alpha": 0.15, "color": line.get_color(), "lw": 0}
            axis.fill_between(work, mean - half, mean + half, **band)
        axis.set(
            title=f"{split}: {meaning}", xscale="log", xlabel="rounds, all answers"
        )
        ticks = [48, 96, 192, 384, 768, 1536]
        axis.set_xticks(ticks, map(str, ticks))
        axis.minorticks_off()
    axes[0].set_ylabel("boards right, the answer that ranks first")
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2, fontsize=9)
    figure.savefig(HERE / "sudoku_work.png", dpi=90)


if __name__ == "__main__":
    main()
