"""Draws chains.png from docs/results/documents.json.

python docs/pictures/chains.py
"""

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

HERE = Path(__file__).parent
ROWS = {  # study: the field that it varies, {value: what it is called}
    "steps": (
        "num_steps",
        {str(k): f"{k} steps a chain" for k in (1, 3, 5, 20, 30, 60)},
    ),
    "noise": (
        "noise_scale|temperature",
        {
            "0.5": "starts with 0.5",
            "1.0": "starts with 1",
            "3.0": "starts with 3",
            "0.0": "temperature 0",
            "0.01": "temperature 0.01",
            "0.1": "temperature 0.1",
        },
    ),
    "filter": (
        "mode",
        {
            "none": "no filter",
            "running_quantile": "running filter",
            "fixed": "fixed filter",
        },
    ),
    "weight": (
        "weight|warmup|levels",
        {
            "0.005": "a tenth of the weight",
            "0.5": "ten times the weight",
            "5.0": "a hundred times",
            "0": "no warm-up",
            "750": "warm-up of half a run",
            "0.0-1.0": "all levels",
            "0.0-0.2": "the sharpest fifth",
            "0.8-1.0": "the smoothest fifth",
        },
    ),
    "clip": (
        "grad_clip",
        {f"{v}": f"chain clipped at {v:g}" for v in (0.01, 0.03, 0.05, 0.5, 1.0, 2.0)}
        | {"0.0": "not clipped"},
    ),
    "stability": (
        "ema_decay|lr_schedule",
        {
            "0.0": "no average",
            "0.995": "average 0.995",
            "cosine": "rate: a cosine",
            "constant": "rate: constant",
        },
    ),
}
# name in the points: title, what the studies are called
NETWORKS = {
    "mlp": ("reference MLP, which reaches linear regression", "{}"),
    "matrix": ("matrix energy, which inverts", "{}, 32 rows a step"),
}
METRIC = "val/task_mse"


def main() -> None:
    studies = json.loads((HERE.parent / "results" / "documents.json").read_text())
    studies = studies["studies"]
    figure = Figure(figsize=(9, 8.5), layout="constrained")
    axes = figure.subplots(1, len(NETWORKS), sharey=True)
    labels = [text for _, values in ROWS.values() for text in values.values()]
    for axis, (network, (title, named)) in zip(axes, NETWORKS.items(), strict=True):
        default = studies[named.format("steps")][f"{network}-num_steps=10"][METRIC]
        place = -1
        for color, (study, (fields, values)) in enumerate(ROWS.items()):
            points = studies[named.format(study)]
            for value in values:
                place += 1
                names = [f"{network}-{f}={value}" for f in fields.split("|")]
                found = [points[name] for name in names if name in points]
                if found and METRIC in found[0]:
                    _draw(axis, place, found[0][METRIC], default, f"C{color}")
                elif found:
                    axis.annotate(
                        " not finite", (1, place), va="center", color=f"C{color}"
                    )
        axis.axvline(1, color="black", lw=0.8, ls=":")
        axis.set(title=title, xscale="log", xlabel="error over the default's")
        axis.title.set_fontsize(10)
        axis.grid(axis="y", alpha=0.2)
    axes[0].set_xticks([1, 1.5, 2, 2.5], ["1", "1.5", "2", "2.5"])
    axes[0].minorticks_off()
    axes[0].set_yticks(range(len(labels)), labels, fontsize=9)
    axes[0].set_ylim(len(labels) - 0.5, -0.5)
    figure.savefig(HERE / "chains.png", dpi=90)


def _draw(axis, place: int, seeds: list, default: list, color: str) -> None:
    """The ratio, paired over seeds, with its 95 % interval."""
    ratio = np.log(seeds) - np.log(default)
    half = stats.t.ppf(0.975, len(ratio) - 1) * stats.sem(ratio)
    low, middle, high = np.exp(ratio.mean() + half * np.array([-1, 0, 1]))
    axis.plot([low, high], [place, place], color=color, lw=2)
    axis.plot(middle, place, "o", color=color, ms=4)


if __name__ == "__main__":
    main()
