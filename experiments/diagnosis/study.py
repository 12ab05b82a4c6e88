"""The studies of one split: pairs by level, rankings, lines, and the best of R answers.

Rows in, a dict of figures out, each a mean over x with its standard error. Energies are
compared with the badness of an answer: a metric of which less is better, or minus one
of which more is.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.diagnosis import landscapes
from experiments.run.logs import track
from experiments.score import statistics
from experiments.score.scorer import Scorer, row_metric
from ired_jax.negatives.base import BoxFn
from ired_jax.objectives.contrast import Contrast
from ired_jax.tasks.base import Task
from ired_jax.types import Array, Example, Params, Tree

NUM_PERTURBED = 8
RIGHT_SHARE = 0.1  # of the residual of the answer 0
KINDS = ("positives", "negatives")
BARRIER = 0.1  # nats above both ends of a line: rounding stays below


class Settings(NamedTuple):
    """What the flags say."""

    num_examples: int = 256  # x of each split
    restarts: int = 8  # inference ends of each x
    quantile: float = 0.5  # of the residuals of denoised positives: false negatives
    right: float = 0.0  # residual of a right answer; 0: RIGHT_SHARE of that of 0


class Subject(NamedTuple):
    """What is studied."""

    task: Task
    phase: Contrast
    params: Params
    progress: float  # share of the run done
    badness: Callable  # (x, y, answers): leaves [N, ...] -> [N] float64
    diagnostics: Callable | None = None  # answers, leaves [N, ...] -> {name: [N]}


class Programs(NamedTuple):
    """The array code of a subject, compiled once for all splits and levels."""

    residual: Callable  # (x, answers [N, C, ...]) -> [N, C], NaN without a residual
    energies: Callable  # (x, answers, t) -> [N, C]
    lines: Callable  # (x, ends, t) -> [N, NUM_POINTS]
    pairs: Callable  # (key, rows, t, box) -> landscapes.Pairs


class Answers(NamedTuple):
    """The examples of a split and R answers to each, NumPy; leaves [N, ...]."""

    x: Tree
    truth: Tree
    ends: Tree  # leaves [N, R, ...] y_0
    energy: np.ndarray  # [N, R] at level 0
    badness: np.ndarray  # [N, R]
    box: BoxFn = None


def badness_of(scorer: Scorer, task: Task) -> Callable:
    """(x, y, answers) -> [N]: what the task's metric makes of answers, less is better.

    Raises:
      UserError: the task has no metric of an answer.
    """
    name = row_metric(task)
    sign = 1 if task.metrics[name].better == "low" else -1
    return lambda x, y, answers: sign * scorer.figures(x, y, answers)[name]


def answers_of(
    scorer: Scorer, subject: Subject, split: str, settings: Settings
) -> Answers:
    """The held-out rows and the answers from `restarts` start noises."""
    runs = [
        scorer.rows(subject.params, split, settings.num_examples, restart)
        for restart in track(range(settings.restarts), f"{split}: answers")
    ]
    x, truth = scorer.examples(split, settings.num_examples)
    badness = [subject.badness(x, truth, rows.answer) for rows in runs]
    ends = jax.tree.map(lambda *a: np.stack(a, axis=1), *(r.answer for r in runs))
    energy = np.stack([rows.energy for rows in runs], axis=1)
    box = subject.task.splits[split].box
    return Answers(x, truth, ends, energy, np.stack(badness, axis=1), box)


def programs_of(subject: Subject) -> Programs:
    phase, params, residual = subject.phase, subject.params, subject.task.residual
    if residual is None:
        residual = lambda x, y: jnp.nan  # noqa: E731
    pairs = partial(landscapes.pairs, phase, progress=subject.progress)
    return Programs(
        jax.jit(jax.vmap(jax.vmap(residual, in_axes=(None, 0)))),
        partial(jax.jit(partial(landscapes.candidate_energies, phase)), params),
        partial(jax.jit(partial(landscapes.line_energies, phase)), params),
        partial(jax.jit(pairs, static_argnames="box"), params),
    )


def study(
    subject: Subject,
    programs: Programs,
    answers: Answers,
    settings: Settings,
    key: Array,
    title: str,
) -> dict:
    """One split: {right, levels, lines, best_of, diagnostics of the truth}."""
    schedule, (x, truth) = subject.phase.schedule, answers[:2]
    key, key_moved = jax.random.split(key)
    rows = Example(x, truth)
    moved = landscapes.perturbed(key_moved, rows, answers.box, NUM_PERTURBED)
    nothing = jax.tree.map(lambda leaf: np.zeros_like(leaf)[:, None], truth)
    nothing = float(np.median(programs.residual(x, nothing)))
    right = settings.right or RIGHT_SHARE * nothing
    num_levels = schedule.num_levels
    levels, lines = [], []
    for t in track(range(num_levels), f"{title}: levels"):
        level, of_level = jnp.int32(t), jax.random.fold_in(key, t)
        pairs = programs.pairs(of_level, rows, level, box=answers.box)
        pairs = jax.tree.map(np.asarray, pairs)
        figures = {"level": t, "s": float(schedule.s[t])} | pair_figures(pairs)
        figures |= false_negatives(programs, x, pairs, settings.quantile)
        figures |= rankings(subject, programs, answers, pairs, moved, right, level)
        for kind, denoised in zip(
            KINDS, (pairs.denoised_pos, pairs.denoised_neg), strict=True
        ):
            of_kind = _diagnostics(subject, denoised)
            figures |= {f"{kind} {name}": values for name, values in of_kind.items()}
        levels.append(figures)
        if t in {0, num_levels // 2, num_levels - 1}:
            a = float(schedule.a[t])
            first = jax.tree.map(lambda leaf: leaf[:, 0], answers.ends)
            ends = _times(a, truth), pairs.y, _times(a, first)
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
        "diagnostics": _diagnostics(subject, truth),
    }


def pair_figures(pairs: landscapes.Pairs) -> dict:
    """Gap, saturation, gradients and chains."""
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
    }


def false_negatives(
    programs: Programs, x: Tree, pairs: landscapes.Pairs, quantile: float
) -> dict:
    """The share of negatives that, denoised, are as good as denoised positives."""
    of_pos, of_neg = (
        np.asarray(programs.residual(x, jax.tree.map(lambda a: a[:, None], denoised)))
        for denoised in (pairs.denoised_pos, pairs.denoised_neg)
    )
    threshold = float(np.quantile(of_pos, quantile))
    is_false = np.where(np.isfinite(of_neg[:, 0]), of_neg[:, 0] <= threshold, np.nan)
    return {
        "false_negatives": statistics.summary(is_false),
        "false_negative_threshold": threshold,
    }


def rankings(
    subject: Subject,
    programs: Programs,
    answers: Answers,
    pairs: landscapes.Pairs,
    moved: Tree,
    right: float,
    t: Array,
) -> dict:
    """`ranking_figures` of the ends, the moved truths and the denoised negative."""
    denoised = jax.tree.map(lambda leaf: leaf[:, None], pairs.denoised_neg)
    parts = answers.ends, moved, denoised
    candidates = jax.tree.map(lambda *a: np.concatenate(a, axis=1), *parts)
    energy = np.asarray(programs.energies(answers.x, candidates, t))
    badness = [
        subject.badness(
            answers.x, answers.truth, jax.tree.map(lambda a, i=i: a[:, i], candidates)
        )
        for i in range(energy.shape[1])
    ]
    is_right = np.asarray(programs.residual(answers.x, candidates)) <= right
    count = answers.energy.shape[1]
    figures = ranking_figures(energy, np.stack(badness, axis=1), is_right, count)
    if np.isnan(right):  # without a residual nobody says which are right
        figures["right_share"] = statistics.summary(np.full(len(energy), np.nan))
    return figures


def ranking_figures(
    energy: np.ndarray, badness: np.ndarray, is_right: np.ndarray, count: int
) -> dict:
    """Within each x: energy against badness, over all [N, C], and the first `count`."""
    correlation = statistics.rank_correlation
    of_ends = correlation(energy[:, :count], badness[:, :count])
    return {
        "rank_correlation": statistics.summary(correlation(energy, badness)),
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
        quartiles = np.quantile(energy - truth, (0.25, 0.5, 0.75), axis=0).tolist()
        barriers = statistics.summary(inner > ends + BARRIER)
        figures.append(
            {"level": t, "line": name, "barriers": barriers}
            | dict(zip(("low", "median", "high"), quartiles, strict=True))
        )
    return figures


def best_of_figures(answers: Answers, restarts: int) -> list[dict]:
    """Badness of the one picked out of 1, 2, 4 .. R, and its paired gain over one."""
    figures = []
    for count in (2**k for k in range(restarts.bit_length())):
        best = statistics.best_of(answers.energy, answers.badness, count)
        found = {name: statistics.summary(e) for name, e in best._asdict().items()}
        gains = {
            "gain": statistics.summary(best.random - best.lowest),
            "oracle_gain": statistics.summary(best.random - best.oracle),
        }
        figures.append({"answers": count} | found | gains)
    return figures


def _diagnostics(subject: Subject, answers: Tree) -> dict[str, dict]:
    """Quartiles of the view's own figures of answers."""
    if subject.diagnostics is None:
        return {}
    figures = subject.diagnostics(answers)
    return {name: statistics.quartiles(values) for name, values in figures.items()}


def _times(factor: float, tree: Tree) -> Tree:
    return jax.tree.map(lambda leaf: factor * leaf, tree)
