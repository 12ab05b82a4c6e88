"""The studies of one split: pairs by level, rankings, lines, and the best of R answers.

Rows in, a dict of figures out, each a mean over x with its standard error.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import diagnosis, statistics
from experiments.logs import track
from experiments.scoring import Scorer
from ired_jax.training import Contrast, Problem
from ired_jax.types import Array, Params

NUM_PERTURBED = 8
RIGHT_SHARE = 0.1  # of the residual of the answer 0
BARRIER = 0.1  # nats above both ends of a line: rounding stays below


class Settings(NamedTuple):
    """What the flags say."""

    num_examples: int = 256  # x of each split
    restarts: int = 8  # inference ends of each x
    quantile: float = 0.5  # of the residuals of denoised positives: false negatives
    right: float = 0.0  # residual of a right answer; 0: RIGHT_SHARE of that of 0


class Subject(NamedTuple):
    """What is studied."""

    problem: Problem
    contrast: Contrast
    params: Params
    progress: float  # share of the run done
    grid: tuple[int, int]


class Programs(NamedTuple):
    """The array code of a subject, compiled once for all splits and levels."""

    residual: Callable  # (x [N, Dx], answers [N, C, D]) -> [N, C]
    energies: Callable  # (x, answers, t) -> [N, C]
    lines: Callable  # (x, ends, t) -> [N, NUM_POINTS]
    pairs: Callable  # (key, rows, t, bounds) -> diagnosis.Pairs


class Answers(NamedTuple):
    """The examples of a split and R answers to each, NumPy."""

    x: np.ndarray  # [N, Dx]
    truth: np.ndarray  # [N, D]
    ends: np.ndarray  # [N, R, D] y_0
    energy: np.ndarray  # [N, R] at level 0
    error: np.ndarray  # [N, R] mean square over elements
    bounds: float


def answers_of(
    scorer: Scorer, params: Params, split: str, settings: Settings, bounds: float
) -> Answers:
    """The held-out draws and the answers from `restarts` start noises."""
    count = settings.num_examples
    runs = [
        scorer.rows(params, split, count, restart)
        for restart in track(range(settings.restarts), f"{split}: answers")
    ]
    x, truth = scorer.examples(split, count)
    ends, energy, error = (
        np.stack([getattr(rows, name) for rows in runs], axis=1)
        for name in ("answer", "energy", "squared_error")
    )
    bounds = scorer.evaluation.bounds or bounds
    return Answers(x, truth, ends, energy, error, bounds)


def programs_of(subject: Subject) -> Programs:
    problem, params = subject.problem, subject.params
    residual = jax.vmap(jax.vmap(problem.residual, in_axes=(None, 0)))
    energies = jax.jit(partial(diagnosis.candidate_energies, problem))
    lines = jax.jit(partial(diagnosis.line_energies, problem))
    pairs = partial(diagnosis.pairs, problem, subject.contrast)
    pairs = jax.jit(partial(pairs, progress=subject.progress))
    return Programs(
        jax.jit(residual),
        partial(energies, params),
        partial(lines, params),
        partial(pairs, params),
    )


def study(
    subject: Subject,
    programs: Programs,
    answers: Answers,
    settings: Settings,
    key: Array,
    title: str,
) -> dict:
    """One split: {right, levels, lines, best_of, conditioning of the truth}."""
    schedule, x = subject.problem.schedule, answers.x
    key, key_moved = jax.random.split(key)
    moved = diagnosis.perturbed(key_moved, answers.truth, NUM_PERTURBED)
    nothing = programs.residual(x, np.zeros_like(answers.truth)[:, None])
    right = settings.right or RIGHT_SHARE * float(np.median(nothing))
    num_levels = schedule.num_levels
    levels, lines = [], []
    for t in track(range(num_levels), f"{title}: levels"):
        rows, level = (x, answers.truth), jnp.int32(t)
        of_level = jax.random.fold_in(key, t)
        pairs = programs.pairs(of_level, rows, level, bounds=answers.bounds)
        pairs = jax.tree.map(np.asarray, pairs)
        parts = [answers.ends, moved, pairs.denoised_neg[:, None]]
        candidates = np.concatenate(parts, axis=1)
        energy = np.asarray(programs.energies(x, candidates, level))
        is_right = np.asarray(programs.residual(x, candidates)) <= right
        levels.append(
            {"level": t, "s": float(schedule.s[t])}
            | pair_figures(pairs, settings.quantile, subject.grid)
            | ranking_figures(energy, candidates, is_right, answers)
        )
        if t in {0, num_levels // 2, num_levels - 1}:
            a = float(schedule.a[t])
            ends = a * answers.truth, pairs.y, a * answers.ends[:, 0]
            along = [
                np.asarray(programs.lines(x, (ends[i], ends[j]), level))
                for i, j in ((0, 1), (0, 2), (1, 2))
            ]
            lines += line_figures(t, along)
    return {
        "right": right,
        "levels": levels,
        "lines": lines,
        "best_of": best_of_figures(answers, settings.restarts),
        "conditioning": _conditioning(answers.truth, subject.grid),
    }


def pair_figures(
    pairs: diagnosis.Pairs, quantile: float, grid: tuple[int, int]
) -> dict:
    """Gap, saturation, gradients, chains, false negatives and conditioning."""
    threshold = float(np.quantile(pairs.residual_pos, quantile))
    return {
        "energy_pos": statistics.summary(pairs.u_pos),
        "energy_neg": statistics.summary(pairs.u_neg),
        "gap": statistics.summary(pairs.u_neg - pairs.u_pos),
        "saturation": statistics.summary(pairs.saturated),
        "grad_norm_pos": statistics.root_summary(pairs.grad_pos),
        "grad_norm_neg": statistics.root_summary(pairs.grad_neg),
        "width": statistics.root_summary(pairs.width),
        "acceptance": statistics.summary(pairs.acceptance),
        "displacement": statistics.summary(pairs.displacement),
        "false_negatives": statistics.summary(pairs.residual_neg <= threshold),
        "false_negative_threshold": threshold,
        "conditioning": {
            "positives": _conditioning(pairs.denoised_pos, grid),
            "negatives": _conditioning(pairs.denoised_neg, grid),
        },
    }


def ranking_figures(
    energy: np.ndarray, candidates: np.ndarray, is_right: np.ndarray, answers: Answers
) -> dict:
    """Within each x: energy against error, over all candidates and inference ends."""
    error = np.mean((candidates - answers.truth[:, None]) ** 2, axis=2)
    count, correlation = answers.ends.shape[1], statistics.rank_correlation
    of_ends = correlation(energy[:, :count], error[:, :count])
    return {
        "rank_correlation": statistics.summary(correlation(energy, error)),
        "rank_correlation_ends": statistics.summary(of_ends),
        "auroc": statistics.summary(statistics.auroc(energy, is_right)),
        "right_share": statistics.summary(is_right.mean(axis=1)),
    }


def line_figures(t: int, along: list[np.ndarray]) -> list[dict]:
    """Quartiles over x of U less that of the truth, along the three lines."""
    names = ("truth to chain", "truth to answer", "chain to answer")
    truth = along[0][:, :1]
    figures = []
    for name, energy in zip(names, along, strict=True):
        inner, ends = energy[:, 1:-1].max(axis=1), energy[:, [0, -1]].max(axis=1)
        low, median, high = np.quantile(energy - truth, (0.25, 0.5, 0.75), axis=0)
        figures.append(
            {
                "level": t,
                "line": name,
                "low": low.tolist(),
                "median": median.tolist(),
                "high": high.tolist(),
                "barriers": statistics.summary(inner > ends + BARRIER),
            }
        )
    return figures


def best_of_figures(answers: Answers, restarts: int) -> list[dict]:
    """Errors of the answer picked out of 1, 2, 4 .. R, and the paired gain over one."""
    figures = []
    for count in (2**k for k in range(restarts.bit_length())):
        best = statistics.best_of(answers.energy, answers.error, count)
        errors = {name: statistics.summary(e) for name, e in best._asdict().items()}
        gains = {
            "gain": statistics.summary(best.random - best.lowest),
            "oracle_gain": statistics.summary(best.random - best.oracle),
        }
        figures.append({"answers": count} | errors | gains)
    return figures


def _conditioning(answers: np.ndarray, grid: tuple[int, int]) -> dict | None:
    """Only a square answer has a determinant."""
    if grid[0] != grid[1]:
        return None
    return statistics.conditioning(answers.reshape(-1, *grid))
