"""How a trained energy answers: each row alone, whatever rows it comes with."""

from collections.abc import Callable, Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments import devices
from experiments.build import Experiment
from ired_jax import boxes, diffusion, trees
from ired_jax.samplers import inference
from ired_jax.samplers.inference import SolveInfo
from ired_jax.samplers.search import metropolis
from ired_jax.tasks.base import Inference, Source
from ired_jax.types import (
    Array,
    Box,
    Landscape,
    Params,
    Stream,
    Tree,
    stream_key,
)

HELD_OUT_SEED = 2406_11179  # of the fixed draws that every run is scored on


def widened(box: Box | None, half_width: Array | float, y: Tree) -> Box | float:
    """A box of that half-width around what is known of y: for one y."""
    mask = boxes.free(box, y)
    if mask is None:
        return half_width
    low, high = (boxes.hold(box, jax.tree.map(partial(jnp.full_like, fill_value=v), y))
                 for v in (-half_width, half_width))  # fmt: skip
    return Box(low, high)


def solver(
    experiment: Experiment,
    source: Source,
    how: Inference | None = None,
    *,
    like: Tree | None = None,
    trace: bool = False,
) -> Callable:
    """(params, x, index [B], restart = 0) -> (y_0, SolveInfo), leaves [B, ...].

    Jitted and vmapped; each restart, () or [B], has start noise of its own. `how` is by
    default the experiment's; answers have the shapes of `like`, by default of the
    source's own; `trace` also gives the answer after each level. The energy of the
    information is what answers to one x are ranked by.
    """
    how = how or experiment.inference
    like = source.example.y if like is None else like
    answer = partial(_answer, experiment, source.box, how, like, trace)
    block_size = experiment.evaluation.block

    def block(params, rows):
        return jax.vmap(answer, in_axes=(None, 0, 0, 0))(params, *rows)

    @devices.share_out
    def blocks(params, rows):
        return jax.lax.map(partial(block, params), rows)

    @jax.jit
    def solve(params, x, index, restart=0):
        # Products of other shapes round differently, an accepted step flips on the last
        # bit, and near float accuracy a score would follow its batch: every row is
        # solved among as many rows. What is left is the row's place in its block.
        # Each device has as many blocks.
        count, at_once = len(index), block_size * jax.device_count()
        num_blocks = -(-count // at_once) * jax.device_count()
        take = np.minimum(np.arange(num_blocks * block_size), count - 1)
        rows = jax.tree.map(
            lambda leaf: leaf[take].reshape(num_blocks, block_size, *leaf.shape[1:]),
            (jnp.broadcast_to(restart, count), x, index),
        )
        answers = blocks(params, rows)
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:count], answers)

    return solve


def _answer(
    experiment: Experiment,
    box: Callable | None,
    how: Inference,
    like: Tree,
    trace: bool,
    params: Params,
    restart: Array,
    x: Tree,
    index: Array,
) -> tuple[Tree, SolveInfo]:
    """The answer to one row, and after it a search if there is one."""
    energy = experiment.energy.answering or experiment.energy
    schedule, search = experiment.schedule, experiment.search
    root = stream_key(jax.random.key(HELD_OUT_SEED), restart, Stream.EVAL_START)
    rounded = experiment.task.round or (lambda y: y)

    def bounds_of(x: Tree) -> Box | Array | float | None:
        bounds = box(x) if box else None
        return widened(bounds, how.bounds, like) if how.bounds else bounds

    def descend(key: Array, x: Tree, y: Tree, level: int | None = None):
        return inference.solve_from(
            y,
            Landscape(energy, params, x),
            schedule,
            num_steps=how.num_steps,
            double_steps=how.double_steps,
            tolerance=how.tolerance or None,
            noise=how.noise,
            key=key,
            bounds=bounds_of(x),
            trace=trace,
            denoise=energy.denoise and partial(energy.denoise, params, x),
            level=level,
        )

    def score(y0: Tree) -> Array:
        if energy.score is not None:
            return energy.score(params, x, y0)
        y = jax.tree.map(lambda leaf: schedule.a[0] * leaf, rounded(y0))
        return energy(params, x, y, jnp.int32(0))

    def move(key: Array, y0: Tree) -> Tree:
        level, assume = search.move
        if assume is not None:
            key, key_part = jax.random.split(key)
            return descend(key, assume(key_part, x, y0), trees.normal(key, like))[0]
        eps = boxes.still(bounds_of(x), trees.normal(key, y0))
        y = diffusion.q_sample(schedule, rounded(y0), jnp.int32(level), eps)
        return descend(key, x, y, level)[0]

    key = jax.random.fold_in(root, index)
    y0, info = descend(key, x, trees.normal(key, like))
    if energy.score is not None or experiment.task.round is not None:
        info = info._replace(energy=score(y0))
    if search is not None:
        options = {"num_moves": search.moves, "temperature": search.temperature}
        y0, found = metropolis(key, score, move, y0, **options)
        info = info._replace(energy=found.energy)
    return y0, info


def lowest_of(
    solve: Callable, params: Params, x: Tree, index: np.ndarray, restarts: Iterable[int]
) -> tuple:
    """Of each row's answers the one of least energy: (y_0, energy [B], steps [B]).

    `restarts` are the numbers of the start noises; steps are those of all of them.
    """
    kept, steps = None, 0
    for restart in restarts:
        answer, info = solve(params, x, index, restart)
        steps = steps + np.sum(info.steps, axis=1)
        if kept is None:
            kept = answer, info.energy
        else:
            lower = (info.energy < kept[1]) | jnp.isnan(kept[1])
            kept = trees.where(lower, (answer, info.energy), kept)
    return *kept, steps
