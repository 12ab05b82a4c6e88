"""Pictures of a diagnosis: pairs by level, conditioning, rankings, best of R, lines."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures import grid, save

SPLITS = {"val": "in distribution", "ood": "harder"}
LEVEL = "level t (0: sharpest)"
BY_LEVEL = (  # a panel each: label of the axis, names, is a share, ideal value
    ("energy $U = E / s_t$, nats", ("energy_pos", "energy_neg"), False, None),
    ("gap $U^- - U^+$, nats", ("gap",), False, None),
    ("saturated pairs, share", ("saturation",), True, None),
    ("gradient of E, rms per element", ("grad_norm_pos", "grad_norm_neg"), False, 1.0),
    ("width of negatives, units of $s_t$", ("width",), False, 1.0),
    ("false negatives, share", ("false_negatives",), True, 0.5),
    ("acceptance, share", ("acceptance",), True, None),
    ("displacement, rms per element", ("displacement",), False, None),
)
KINDS = {  # of a name, where a panel has two
    "energy_pos": "positives",
    "energy_neg": "negatives",
    "grad_norm_pos": "positives",
    "grad_norm_neg": "negatives",
    "rank_correlation": "all candidates",
    "rank_correlation_ends": "inference ends",
}
RANKINGS = (
    (
        "rank correlation of energy and error",
        ("rank_correlation", "rank_correlation_ends"),
    ),
    ("AUROC of right against wrong", ("auroc",)),
)
CONDITIONING = (
    ("$\\log_{10}|\\det Y|$", "log10_det", "linear"),
    ("$\\log_{10}$ condition number", "log10_condition", "linear"),
    ("smallest singular value", "smallest_singular_value", "log"),
)
BEST_OF = (("gain", "answer of lowest energy"), ("oracle_gain", "best answer"))
OUTSIDE = {"loc": "outside lower center", "ncols": 4, "fontsize": 8}


def write_all(diagnosis: dict, folder: Path) -> None:
    """Writes `folder`/diagnosis-*.png."""
    pictures = {
        "levels": by_level(diagnosis),
        "ranking": ranking(diagnosis),
        "best-of": best_of(diagnosis),
        "lines": lines(diagnosis),
    }
    if diagnosis["val"]["conditioning"] is not None:
        pictures["conditioning"] = conditioning(diagnosis)
    for name, figure in pictures.items():
        save(figure, folder / f"diagnosis-{name}.png")


def by_level(diagnosis: dict) -> Figure:
    """Pairs by level, mean and 95 % interval over x; trained levels are shaded."""
    figure, axes = grid(len(BY_LEVEL), columns=4)
    for axis, (label, names, is_share, ideal) in zip(axes, BY_LEVEL, strict=True):
        _curves(axis, diagnosis, names)
        _shade(axis, diagnosis)
        if ideal is not None:
            axis.axhline(ideal, color="black", lw=0.8, ls=":", label="ideal")
        if is_share:
            axis.set_ylim(-0.05, 1.05)
        axis.set(xlabel=LEVEL, ylabel=label)
    # The gradient's panel shows every kind of line.
    figure.legend(*axes[3].get_legend_handles_labels(), **OUTSIDE | {"ncols": 6})
    return figure


def ranking(diagnosis: dict) -> Figure:
    """Within one x and level, mean and 95 % interval over x."""
    figure, axes = grid(len(RANKINGS), columns=2)
    for axis, (label, names) in zip(axes, RANKINGS, strict=True):
        _curves(axis, diagnosis, names)
        axis.axhline(1.0, color="black", lw=0.8, ls=":")
        axis.set(xlabel=LEVEL, ylabel=label)
    figure.legend(*axes[0].get_legend_handles_labels(), **OUTSIDE | {"ncols": 2})
    return figure


def best_of(diagnosis: dict) -> Figure:
    """Error of the answer picked out of R over that of one; 95 % interval, paired."""
    figure, axes = grid(len(SPLITS), columns=2)
    for axis, (split, title) in zip(axes, SPLITS.items(), strict=True):
        rows = diagnosis[split]["best_of"]
        counts = [row["answers"] for row in rows]
        for name, label in BEST_OF:
            ratio = [_less(row["random"]["mean"], row[name]) for row in rows]
            _errorbar(axis, counts, ratio, "o-", label=label)
        axis.axhline(1.0, color="black", lw=0.8, ls=":", label="one at random")
        axis.set_xscale("log", base=2)
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.ticklabel_format(axis="y", useOffset=False)
        axis.set(title=title, xlabel="answers R to each x")
    axes[0].set_ylabel("mean squared error, relative")
    figure.legend(*axes[0].get_legend_handles_labels(), **OUTSIDE)
    return figure


def lines(diagnosis: dict) -> Figure:
    """Energy along straight lines: median and quartiles over x, less the truth's."""
    count = len({line["level"] for line in diagnosis["val"]["lines"]})
    figure, axes = grid(len(SPLITS) * count, columns=count)
    for row, (split, title) in enumerate(SPLITS.items()):
        entries = diagnosis[split]["lines"]
        levels = sorted({line["level"] for line in entries})
        for axis, level in zip(axes[row * count :], levels, strict=False):
            for line in (line for line in entries if line["level"] == level):
                share = np.linspace(0, 1, len(line["median"]))
                (drawn,) = axis.plot(share, line["median"], lw=1.5, label=line["line"])
                axis.fill_between(
                    share,
                    line["low"],
                    line["high"],
                    color=drawn.get_color(),
                    alpha=0.2,
                    lw=0,
                )
            axis.set(title=f"{title}, t = {level}", xlabel="share of the line")
        axes[row * count].set_ylabel("U less that of the truth, nats")
    figure.legend(*axes[0].get_legend_handles_labels(), **OUTSIDE)
    return figure


def conditioning(diagnosis: dict) -> Figure:
    """Denoised positives and negatives by level: median and quartiles over x."""
    figure, axes = grid(len(SPLITS) * len(CONDITIONING), columns=len(CONDITIONING))
    for row, (split, title) in enumerate(SPLITS.items()):
        levels = diagnosis[split]["levels"]
        panels = axes[row * len(CONDITIONING) :]
        for axis, (label, name, scale) in zip(panels, CONDITIONING, strict=False):
            for kind in ("positives", "negatives"):
                values = [level["conditioning"][kind][name] for level in levels]
                _band(axis, values, kind)
            truth = diagnosis[split]["conditioning"][name]["median"]
            axis.axhline(truth, color="black", lw=0.8, ls=":", label="truth, median")
            axis.set_yscale(scale)
            axis.set(title=title, xlabel=LEVEL, ylabel=label)
    figure.legend(*axes[0].get_legend_handles_labels(), **OUTSIDE)
    return figure


def _curves(axis: Axes, diagnosis: dict, names: tuple[str, ...]) -> None:
    """A colour a split, a style a name."""
    for index, (split, title) in enumerate(SPLITS.items()):
        levels = diagnosis[split]["levels"]
        for style, name in zip(("o-", "s--"), names, strict=False):
            label = f"{title}, {KINDS[name]}" if name in KINDS else title
            values = [level[name] for level in levels]
            t = np.arange(len(levels)) + 0.1 * index  # so that no bar hides another
            _errorbar(axis, t, values, style, label=label, color=f"C{index}")


def _errorbar(axis: Axes, x, values: list[dict], style: str, **options) -> None:
    """Means with 95 % intervals; what is not defined is left out."""
    mean = [np.nan if v["mean"] is None else v["mean"] for v in values]
    half = [1.96 * (v["stderr"] or 0.0) for v in values]
    axis.errorbar(list(x), mean, half, fmt=style, ms=3, lw=1.2, capsize=2, **options)


def _band(axis: Axes, values: list[dict], label: str) -> None:
    low, middle, high = (
        np.array([np.nan if v[name] is None else v[name] for v in values])
        for name in ("low", "median", "high")
    )
    t = np.arange(len(values))
    (line,) = axis.plot(t, middle, "o-", ms=3, lw=1.2, label=label)
    axis.fill_between(t, low, high, color=line.get_color(), alpha=0.2, lw=0)


def _shade(axis: Axes, diagnosis: dict) -> None:
    if diagnosis["levels_trained"] is not None:
        low, high = diagnosis["levels_trained"]
        axis.axvspan(low - 0.5, high + 0.5, color="grey", alpha=0.12, lw=0)


def _less(whole: float, gain: dict) -> dict:
    """(whole - gain) / whole, its error that of the paired gain alone."""
    stderr = None if gain["stderr"] is None else gain["stderr"] / whole
    return {"mean": 1 - gain["mean"] / whole, "stderr": stderr}
