"""Pictures of a run: learning curves, energies by level and along chains, answers."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.build import Experiment
from experiments.build_negatives import STEP_MULTIPLE
from experiments.scoring import HELD_OUT_SEED, Scorer
from ired_jax import diffusion
from ired_jax.samplers import langevin
from ired_jax.types import Array, Params, Stream, bind, scaled, stream_key

matplotlib.use("Agg")

CURVES = (  # one panel each: title, names
    ("answer, per element", ("val/task_mse", "ood/task_mse", "train/task_mse")),
    ("noise prediction, per element", ("train/denoise_mse", "val/denoise_mse")),
    ("energy, nats", ("energy_pos", "energy_neg")),
    ("margin, nats", ("margin",)),
    ("gradient at positives, per element", ("grad_norm_pos",)),
    ("shares", ("frac_sat", "filter/kept", "chain/acceptance")),
    ("chain displacement, per element", ("chain/displacement",)),
    ("norms", ("norm/param", "norm/grad", "norm/update")),
)
LOGARITHMIC = ("task_mse", "denoise_mse", "norm/")
NUM_PROFILED = 256  # examples of the energy profiles
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
    """Writes every figure to `directory`/figures."""
    folder = directory / "figures"
    folder.mkdir(exist_ok=True)
    save(learning_curves({"": rows}), folder / "learning_curves.png")
    profile = energy_profile(experiment, params)
    save(energy_by_level(profile), folder / "energy_by_level.png")
    save(energy_along_chains(profile), folder / "energy_along_chains.png")
    save(answers(experiment, scorer, params), folder / "answers.png")


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=110)


def learning_curves(runs: dict[str, list[dict[str, float]]]) -> Figure:
    """One panel a group of metrics; with several runs, a colour each."""
    figure, axes = grid(len(CURVES), columns=4)
    for axis, (title, names) in zip(axes, CURVES, strict=True):
        for label, rows in runs.items():
            for style, name in zip(("-", "--", ":"), names, strict=False):
                points = [(row["step"], row[name]) for row in rows if name in row]
                if points:
                    text = " ".join(filter(None, (label, name)))
                    axis.plot(*zip(*points, strict=True), style, label=text, lw=1.2)
        if any(mark in names[0] for mark in LOGARITHMIC):
            axis.set_yscale("log")
        axis.set_title(title)
        axis.set_xlabel("steps")
        if axis.lines:
            axis.legend(fontsize=7)
    return figure


def energy_profile(experiment: Experiment, params: Params) -> Profile:
    """Positives, and plain Langevin chains from fresh starts, at every level."""
    problem, schedule = experiment.problem, experiment.schedule
    root = stream_key(jax.random.key(HELD_OUT_SEED), 1, Stream.EVAL_NOISE)

    def one(t: Array, index: Array):
        of_level = jax.random.fold_in(root, t)
        keys = jax.random.split(jax.random.fold_in(of_level, index), 4)
        x, y0 = problem.draw(keys[0])
        eps, fresh = (jax.random.normal(key, y0.shape) for key in keys[1:3])
        landscape = scaled(bind(problem.energy, params, x, t), schedule.s[t])
        _, info = langevin.sample(
            keys[3],
            landscape,
            diffusion.q_sample(schedule, y0, t, 1.5 * fresh),
            step_size=diffusion.langevin_step_size(schedule, t, STEP_MULTIPLE),
            temperature=1.0,
            num_steps=NUM_CHAIN_STEPS,
            trace=True,
        )
        y_pos = diffusion.q_sample(schedule, y0, t, eps)
        return landscape(y_pos), info.energy, info.energies

    @jax.jit
    def profile():
        rows, levels = jnp.arange(NUM_PROFILED), jnp.arange(schedule.num_levels)
        return jax.lax.map(lambda t: jax.vmap(partial(one, t))(rows), levels)

    return Profile(*map(np.asarray, profile()))


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


def answers(experiment: Experiment, scorer: Scorer, params: Params) -> Figure:
    """Answers of held-out examples beside the truth, and the error."""
    rows = scorer.rows(params, "val", NUM_ANSWERS)
    figure, axes = grid(3 * NUM_ANSWERS, columns=3)
    for row, (answer, target) in enumerate(zip(rows.answer, rows.target, strict=True)):
        limit = np.abs(target).max()
        error = answer - target
        views = (
            ("truth", target, limit),
            (f"answer, residual {rows.residual[row]:.3g}", answer, limit),
            (f"error, mse {np.mean(error**2):.2g}", error, np.abs(error).max()),
        )
        for axis, (title, values, bound) in zip(axes[3 * row :], views, strict=False):
            image = axis.imshow(
                values.reshape(experiment.task.grid),
                cmap="RdBu",
                vmin=-bound,
                vmax=bound,
            )
            figure.colorbar(image, ax=axis, shrink=0.8)
            axis.set(title=title, xticks=[], yticks=[])
    return figure


def grid(count: int, *, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, row by row."""
    rows = -(-count // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    return figure, axes


def _label(axis: Axes, title: str, x: str) -> None:
    axis.set(title=title, xlabel=x, ylabel="energy, nats")
