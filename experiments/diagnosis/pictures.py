"""Pictures of a diagnosis: pairs by level, rankings, best of R, lines, diagnostics."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures import grid, save

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
KINDS_OF_ANSWERS = ("positives", "negatives")
BEST_OF = (("gain", "answer of lowest energy"), ("oracle_gain", "best answer"))
OUTSIDE = {"loc": "outside lower center", "ncols": 4, "fontsize": 8}


def write_all(diagnosis: dict, folder: Path, stem: str) -> None:
    """Writes `folder`/<stem>-*.png."""
    pictures = {
        "levels": by_level(diagnosis),
        "ranking": ranking(diagnosis),
        "best-of": best_of(diagnosis),
        "lines": lines(diagnosis),
    }
    if any(split["diagnostics"] for split in diagnosis["splits"].values()):
        pictures["diagnostics"] = diagnostics(diagnosis)
    for name, figure in pictures.items():
        save(figure, folder / f"{stem}-{name}.png")


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
    """What picking one answer out of R gains over a random one; 95 %, paired."""
    figure, axes = grid(len(diagnosis["splits"]), columns=2)
    for axis, (title, split) in zip(axes, diagnosis["splits"].items(), strict=False):
        counts = [row["answers"] for row in split["best_of"]]
        for name, label in BEST_OF:
            gains = [row[name] for row in split["best_of"]]
            _errorbar(axis, counts, gains, "o-", label=label)
        axis.axhline(0.0, color="black", lw=0.8, ls=":", label="one at random")
        axis.set_xscale("log", base=2)
        axis.set_xticks(counts, [str(count) for count in counts])
        one = split["best_of"][0]["random"]["mean"]
        axis.set(title=f"{title}: {one:.3g} of one", xlabel="answers R to each x")
    axes[0].set_ylabel(f"gain in {diagnosis['metric']}")
    figure.legend(*axes[0].get_legend_handles_labels(), **OUTSIDE)
    return figure


def lines(diagnosis: dict) -> Figure:
    """Energy along straight lines: median and quartiles over x, less the truth's."""
    splits = diagnosis["splits"]
    found = [line["level"] for split in splits.values() for line in split["lines"]]
    levels = sorted(set(found))
    figure, axes = grid(len(splits) * len(levels), columns=len(levels))
    panels = [(title, level) for title in splits for level in levels]
    for axis, (title, level) in zip(axes, panels, strict=True):
        for line in (e for e in splits[title]["lines"] if e["level"] == level):
            share = np.linspace(0, 1, len(line["median"]))
            (drawn,) = axis.plot(share, line["median"], lw=1.5, label=line["line"])
            sides = {"color": drawn.get_color(), "alpha": 0.2, "lw": 0}
            axis.fill_between(share, line["low"], line["high"], **sides)
        axis.set(title=f"{title}, t = {level}", xlabel="share of the line")
        if level == levels[0]:
            axis.set_ylabel("U less that of the truth, nats")
    figure.legend(*axes[0].get_legend_handles_labels(), **OUTSIDE)
    return figure


def diagnostics(diagnosis: dict) -> Figure:
    """Denoised positives and negatives by level: median and quartiles over x."""
    splits = diagnosis["splits"]
    names = list(next(iter(splits.values()))["diagnostics"])
    figure, axes = grid(len(splits) * len(names), columns=len(names))
    panels = [(title, name) for title in splits for name in names]
    for axis, (title, name) in zip(axes, panels, strict=True):
        levels = splits[title]["levels"]
        for kind in KINDS_OF_ANSWERS:
            _band(axis, [level[f"{kind} {name}"] for level in levels], kind)
        truth = splits[title]["diagnostics"][name]["median"]
        axis.axhline(truth, color="black", lw=0.8, ls=":", label="truth, median")
        axis.set(title=title, xlabel=LEVEL, ylabel=name)
    figure.legend(*axes[0].get_legend_handles_labels(), **OUTSIDE)
    return figure


def _curves(axis: Axes, diagnosis: dict, names: tuple[str, ...]) -> None:
    """A colour a split, a style a name."""
    for index, (title, split) in enumerate(diagnosis["splits"].items()):
        levels = split["levels"]
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
