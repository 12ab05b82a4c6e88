"""Pictures of a run: learning curves, energies by level and along chains, answers."""

import itertools
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments import devices
from experiments.build import Experiment
from experiments.errors import UserError
from experiments.run import files, workdir
from experiments.score import records
from experiments.score.scorer import Scorer
from experiments.score.solver import HELD_OUT_SEED, widened
from experiments.views.base import View, view_of
from ired_jax import boxes, diffusion, trees
from ired_jax.negatives.langevin import STEP_MULTIPLE
from ired_jax.samplers import langevin
from ired_jax.types import Array, Box, Params, Stream, Tree, bind, scaled, stream_key

matplotlib.use("Agg")

Panels = list[tuple[str, tuple[str, ...]]]  # title, names
CURVES: Panels = [
    ("noise prediction, per element", ("train/denoise_mse", "val/denoise_mse")),
    ("energy, nats", ("energy_pos", "energy_neg")),
    ("margin, nats", ("margin",)),
    ("gradient at positives, per element", ("grad_norm_pos",)),
    ("shares", ("frac_sat", "filter/kept", "chain/acceptance", "chain/clipped")),
    ("chain displacement, per element", ("chain/displacement",)),
    ("norms", ("norm/param", "norm/grad", "norm/update")),
]
LOGARITHMIC = ("_mse", "norm/")
# Of the names of a panel: a task may have any number of splits.
STYLES = ("-", "--", ":", "-.", (0, (6, 2)), (0, (3, 1, 1, 1, 1, 1)))
UNDRAWN = re.compile(r"train/loss|pred_norm|replay/size|filter/q.*")
NUM_CHAIN_STEPS = 40
NUM_ANSWERS = 3


class Profile(NamedTuple):
    """Energies in nats at each level, NumPy."""

    positive: np.ndarray  # [T, N]
    negative: np.ndarray  # [T, N] after a chain from a fresh start
    along: np.ndarray  # [T, N, K + 1] of that chain


def write_all(
    experiment: Experiment,
    scorer: Scorer,
    params: Params,
    rows: list[dict[str, float]],
    directory: Path,
) -> None:
    """Writes every figure to `directory`/figures: all processes answer, one writes."""
    drawn = _drawn(
        experiment, scorer, params, rows, workdir.read_config(directory).task
    )
    if devices.is_writer():
        folder = directory / "figures"
        files.make_folder(folder)
        for name, figure in drawn.items():
            save(figure, folder / f"{name}.png")


def _drawn(experiment, scorer, params, rows, task) -> dict[str, Figure]:
    """The figures by name; `task` are its fields."""
    panels = panels_of(records.kinds(experiment.task))
    drawn = {"learning_curves": learning_curves({"": rows}, panels)}
    if experiment.energy.propose is None:  # else no Langevin chain is meant to walk it
        profile = energy_profile(experiment, params)
        drawn["energy_by_level"] = energy_by_level(profile)
        drawn["energy_along_chains"] = energy_along_chains(profile)
    view = view_of(task.name)
    if view.draw is not None and experiment.task.metrics:
        drawn["answers"] = answers(view, scorer, params)
    if view.draw_model is not None:
        drawn["landscape"], axes = grid(2, columns=2)
        view.draw_model(axes, task, lambda *at: experiment.energy(params, *at))
    return drawn


def save(figure: Figure, path: Path, dpi: int = 110) -> None:
    """Writes a picture; raises UserError where it cannot."""
    try:
        figure.savefig(path, dpi=dpi)
    except OSError as error:
        raise UserError(f"{path} could not be written: {error.strerror}") from error


def panels_of(names: Iterable[str]) -> Panels:
    """A panel a metric of a task, its splits in it."""
    panels = {}
    for name in names:
        if not name.endswith("/denoise_mse"):
            panels.setdefault(name.rpartition("/")[2], []).append(name)
    return [(metric, tuple(of_metric)) for metric, of_metric in panels.items()]


def learning_curves(runs: dict[str, list[dict[str, float]]], panels: Panels) -> Figure:
    """One panel a group of metrics that is there; a colour a run, a style a metric."""
    there = {name for rows in runs.values() for row in rows for name in row}
    own = [(name, (name,)) for name in other_metrics(there)]
    panels = [panel for panel in (*panels, *CURVES, *own) if there & {*panel[1]}]
    figure, axes = grid(max(len(panels), 1), columns=4)
    for axis, (title, names) in zip(axes, panels, strict=False):
        names = [name for name in names if name in there]
        for line, name in zip(itertools.cycle(STYLES), names, strict=False):
            style = {"linestyle": line, "lw": 1.2}
            axis.plot([], [], **style, label=name, color="black")
            for colour, rows in enumerate(runs.values()):
                points = [(row["step"], row[name]) for row in rows if name in row]
                if points:
                    xy = zip(*points, strict=True)
                    axis.plot(*xy, **style, color=f"C{colour}")
        if any(mark in names[0] for mark in LOGARITHMIC):
            axis.set_yscale("log")
        axis.set_title(title)
        axis.set_xlabel("steps")
        if len(names) > 1:
            axis.legend(fontsize=7)
    if len(runs) > 1:
        lines = [Line2D([], [], color=f"C{i}", label=n) for i, n in enumerate(runs)]
        figure.legend(handles=lines, loc="outside lower center", ncols=2)
    return figure


def other_metrics(there: Collection[str]) -> list[str]:
    """Metrics of train steps that no panel names, as of one's own objectives."""
    named = {name for _, names in CURVES for name in names}
    of_steps = {name for name in there if f"{name}/min" in there}
    return sorted(name for name in of_steps - named if not UNDRAWN.fullmatch(name))


def energy_profile(experiment: Experiment, params: Params) -> Profile:
    """Positives, and plain Langevin chains from fresh starts, at every level."""
    schedule, source = experiment.schedule, experiment.task.train
    root = stream_key(jax.random.key(HELD_OUT_SEED), 1, Stream.EVAL_NOISE)

    def one(data, t: Array, index: Array):
        of_level = jax.random.fold_in(root, t)
        keys = jax.random.split(jax.random.fold_in(of_level, index), 4)
        x, y0 = source.draw(data, keys[0])
        box = None if source.box is None else source.box(x)
        eps, fresh = (boxes.still(box, trees.normal(key, y0)) for key in keys[1:3])
        fresh = jax.tree.map(lambda leaf: 1.5 * leaf, fresh)
        scale = diffusion.temperature(schedule, t)
        landscape = scaled(bind(experiment.energy, params, x, t), scale)
        _, info = langevin.sample(
            keys[3],
            landscape,
            diffusion.q_sample(schedule, y0, t, fresh),
            step_size=diffusion.langevin_step_size(schedule, t, STEP_MULTIPLE),
            temperature=1.0,
            num_steps=NUM_CHAIN_STEPS,
            bounds=_of_known(box, schedule.a[t], y0),
            trace=True,
        )
        y_pos = diffusion.q_sample(schedule, y0, t, eps)
        return landscape(y_pos), info.energy, info.energies

    @jax.jit
    def profile(data):
        rows = jnp.arange(experiment.evaluation.block)
        levels = jnp.arange(schedule.num_levels)
        of_rows = jax.vmap(one, in_axes=(None, None, 0))
        return jax.lax.map(lambda t: of_rows(data, t, rows), levels)

    return Profile(*map(np.asarray, profile(source.data)))


def _of_known(box: Box | None, a: Array, y: Tree) -> Box | None:
    """a_t times what is known of y, and no sides elsewhere; None if all is free."""
    if boxes.free(box, y) is None:
        return None
    return boxes.scale(widened(box, jnp.inf, y), a)


def energy_by_level(profile: Profile) -> Figure:
    """Mean energy of positives and negatives, and the quartiles, by level."""
    figure, (axis,) = grid(1)
    levels = np.arange(len(profile.positive))
    for name, energy in (("positives", profile.positive), ("chains", profile.negative)):
        low, middle, high = np.quantile(energy, (0.25, 0.5, 0.75), axis=1)
        (line,) = axis.plot(levels, middle, "o-", ms=3, label=name)
        axis.fill_between(levels, low, high, color=line.get_color(), alpha=0.2)
    _label(axis, "energy of positives and negatives", "level t (0: sharpest)")
    axis.legend()
    return figure


def energy_along_chains(profile: Profile) -> Figure:
    """Mean energy after each step of a chain from a fresh start, a line a level."""
    figure, (axis,) = grid(1)
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(profile.along)))
    for t, (energy, colour) in enumerate(zip(profile.along, colours, strict=True)):
        axis.plot(energy.mean(axis=0), color=colour, label=f"t = {t}", lw=1.2)
    _label(axis, "energy along Langevin chains, from 1.5 s_t", "step")
    axis.legend(fontsize=7, ncols=2)
    return figure


def answers(view: View, scorer: Scorer, params: Params) -> Figure:
    """Held-out examples of each split as the task's view draws them."""
    figure, axes = grid(NUM_ANSWERS * len(scorer.splits), columns=NUM_ANSWERS)
    for index, split in enumerate(scorer.splits):
        rows = scorer.rows(params, split, NUM_ANSWERS)
        x, _ = scorer.examples(split, NUM_ANSWERS)
        panels = axes[index * NUM_ANSWERS :]
        for row, axis in zip(range(len(rows.energy)), panels, strict=False):
            trees_of_row = (x, rows.truth, rows.answer)
            view.draw(axis, *jax.tree.map(lambda a, i=row: a[i], trees_of_row))
    return figure


def grid(count: int, *, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, row by row."""
    rows = -(-count // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for spare in axes[count:]:
        spare.set_axis_off()
    return figure, axes


def _label(axis: Axes, title: str, x: str) -> None:
    axis.set(title=title, xlabel=x, ylabel="energy, nats")
