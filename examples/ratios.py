"""Draws what contrastive shaping is worth, from the studies of docs/results.

    python -m examples.ratios --output=docs/pictures/ratios.png

The numbers are those of docs/results/inverse.json; docs/results/inverse.md has the
commands that make them.
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt

NUMBERS = Path(__file__).parents[1] / "docs" / "results" / "inverse.json"
SPLITS = {"val": (-0.14, "in distribution", "C0"), "ood": (0.14, "harder", "C1")}


def draw(path: str) -> None:
    studies = json.loads(NUMBERS.read_text())["studies"]
    figure, axis = plt.subplots(figsize=(7, 2.4), dpi=100)
    for place, study in enumerate(studies):
        for split, (shift, name, color) in SPLITS.items():
            ratio, low, high = study[split]
            axis.plot([low, high], [place + shift] * 2, color=color, lw=2)
            label = name if place == 0 else None
            axis.plot(ratio, place + shift, "o", color=color, ms=5, label=label)
    axis.axvline(1, color="gray", lw=1, ls="--")
    axis.set(xscale="log", xlabel="error over that of denoising alone, 95 % interval")
    axis.set_yticks(range(len(studies)), [study["label"] for study in studies])
    axis.set_xticks([0.03, 0.1, 0.3, 1, 2], ["0.03", "0.1", "0.3", "1", "2"])
    axis.invert_yaxis()
    axis.legend(frameon=False, fontsize=8)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", default="docs/pictures/ratios.png")
    draw(parser.parse_args(argv).output)


if __name__ == "__main__":
    main()
