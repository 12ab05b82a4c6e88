"""How a trained energy answers: each row alone, whatever rows it comes with."""

from collections.abc import Callable, Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.build import Experiment
from ired_jax import boxes, trees
from ired_jax.samplers import inference
from ired_jax.tasks.base import Inference, Source
from ired_jax.types import Array, Box, Landscape, Params, Stream, Tree, stream_key

BLOCK = 256  # rows drawn and solved together, whatever the evaluation batch
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
    trace: bool = False,
) -> Callable:
    """(params, x, index [B], restart () = 0) -> (y_0, SolveInfo), leaves [B, ...].

    Jitted and vmapped; each restart has start noise of its own. `how` is by default the
    experiment's; with `trace` the answer after each level comes along.
    """
    how, like = how or experiment.inference, experiment.task.example.y

    def one(params, restart, x, index):
        root = stream_key(jax.random.key(HELD_OUT_SEED), restart, Stream.EVAL_START)
        box = source.box(x) if source.box else None
        return inference.solve(
            jax.random.fold_in(root, index),
            Landscape(experiment.energy, params, x),
            experiment.schedule,
            like,
            num_steps=how.num_steps,
            double_steps=how.double_steps,
            tolerance=how.tolerance or None,
            noise=how.noise,
            trace=trace,
            bounds=widened(box, how.bounds, like) if how.bounds else box,
        )

    def block(params, restart, rows):
        return jax.vmap(one, in_axes=(None, None, 0, 0))(params, restart, *rows)

    @jax.jit
    def solve(params, x, index, restart=0):
        # Products of other shapes round differently, an accepted step flips on the last
        # bit, and near float accuracy a score would follow its batch: every row is
        # solved among BLOCK rows. What is left is the row's place in its block.
        count, num_blocks = len(index), -(-len(index) // BLOCK)
        take = np.minimum(np.arange(num_blocks * BLOCK), count - 1)
        rows = jax.tree.map(
            lambda leaf: leaf[take].reshape(num_blocks, BLOCK, *leaf.shape[1:]),
            (x, index),
        )
        answers = jax.lax.map(partial(block, params, restart), rows)
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:count], answers)

    return solve


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
