"""Watching an energy think: one input's answer after each level."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.build import Experiment
from experiments.figures import grid
from experiments.score.restarts import row_of
from experiments.score.solver import solver
from experiments.views.base import View
from ired_jax.samplers.inference import SolveInfo
from ired_jax.tasks.base import Inference, Source
from ired_jax.types import Params, Tree

COLUMNS = 4


class Thought(NamedTuple):
    """Of one input, from the smoothest level to the sharpest."""

    x: Tree
    answers: Tree  # y_0 after each level, leaves [T, ...], and after a search one more
    energies: np.ndarray  # [T] E(x, a_t y_0, t), and of what was found by searching
    levels: int  # T


def think(
    experiment: Experiment,
    source: Source,
    how: Inference,
    is_right: Callable | None,
    like: Tree | None = None,
    block: int = 256,
) -> Callable[[Params, Tree, int], Thought]:
    """(params, x, index) -> what leads to the answer that is kept of one input.

    Of several restarts that is the first right one by the check, else the one of least
    energy, as for `experiments.score.restarts`. Answers have the shapes of `like`, by
    default of the source's own; restarts are taken by so many as a `block` has rows.
    """
    traced = solver(experiment, source, how, like=like, trace=True)

    def thought(x: Tree, found: Tree | None, info: SolveInfo) -> Thought:
        answers, energies, levels = info.answers, info.energies, len(info.energies)
        if found is not None:
            answers = jax.tree.map(lambda a, b: np.stack([*a, b]), answers, found)
            energies = np.append(energies, info.energy)
        return Thought(x, answers, energies, levels)

    def right(x: Tree, y: Tree) -> bool:
        return is_right is not None and is_right(x, y) is True

    def of_input(params: Params, x: Tree, index: int) -> Thought:
        kept, least = None, np.nan
        for first in range(0, how.restarts, block):
            count = min(block, how.restarts - first)
            rows = jax.tree.map(lambda leaf, n=count: np.stack([leaf] * n), x)
            numbers = first + np.arange(count)
            found = traced(params, rows, np.full(count, index), numbers)
            found = jax.tree.map(np.asarray, found)
            for place in range(count):
                y, info = row_of(found, place)
                searched = None if experiment.search is None else y
                is_first = kept is None and searched is not None
                if is_first and right(x, row_of(info.answers, -1)):
                    return thought(x, None, info)  # which needed no search
                is_done = right(x, y)
                if is_done or info.energy < least or np.isnan(least):
                    kept, least = thought(x, searched, info), info.energy
                if is_done:
                    return kept
        return kept

    return of_input


def picture(view: View, thought: Thought) -> Figure:
    """The answer after each level, and a search, as the view draws it; its energy."""
    count = len(thought.energies)
    figure, axes = grid(count, columns=min(COLUMNS, count))
    for at, (axis, energy) in enumerate(zip(axes, thought.energies, strict=False)):
        answer = jax.tree.map(lambda leaf, at=at: leaf[at], thought.answers)
        view.draw(axis, thought.x, None, answer)
        level = thought.levels - 1 - at
        name = f"level {level}" if level >= 0 else "after a search"
        axis.set_title(f"{name}, energy {energy:.4g}", fontsize=9)
    return figure
