"""Draws explosion.png from docs/results/documents.json.

python docs/pictures/explosion.py
"""

import json
from pathlib import Path

from matplotlib.figure import Figure

HERE = Path(__file__).parent
CURVES = {  # color and line, label
    "classic-penalty=0-mlp": ("C0-", "the documents' form, no penalty"),
    "unclipped-penalty=0-mlp": ("C0--", "the same, chains not clipped"),
    "classic-penalty=0.1-mlp": ("C1-", "the documents' form, penalty 0.1"),
    "unclipped-penalty=0.1-mlp": ("C1--", "the same, chains not clipped"),
    "nats-mlp": ("C2-", "in nats"),
}
PANELS = {
    "grad_norm_pos": "norm of the gradient at data, 1 is right",
    "train/denoise_mse": "denoising error, 1 is an answer of nothing",
}


def main() -> None:
    curves = json.loads((HERE.parent / "results" / "documents.json").read_text())
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, len(PANELS))
    for axis, (metric, title) in zip(axes, PANELS.items(), strict=True):
        for name, (line, label) in CURVES.items():
            rows = curves["curves"][name]
            steps = [row["step"] for row in rows]
            values = [row[metric] for row in rows]
            axis.plot(steps, values, line, marker="o", ms=4, label=label)
        axis.axhline(1, color="black", lw=0.8, ls=":")
        axis.set(title=title, xlabel="step", yscale="log", ylim=(0.02, 30))
        axis.title.set_fontsize(10)
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, fontsize=9)
    figure.savefig(HERE / "explosion.png", dpi=90)


if __name__ == "__main__":
    main()
