"""Where inference leads a model: its own path, for rows that a loss learns from.

A model that has only seen noised truths never sees its own mistakes, and trusts them.
On its own path, noised again at each hand-over, the truth is still what is asked for.

Source: own answers as data as in Ross et al., arXiv 1011.0686.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from ired_jax import blocks, boxes, diffusion, trees
from ired_jax.diffusion import Schedule
from ired_jax.negatives.base import BoxFn, box_of, still
from ired_jax.objectives.base import Context
from ired_jax.types import Array, Energy, Example, Params, Stream, Tree

Denoise = Callable[[Tree, Tree, Array], Tree]  # (x, y, t) -> y_0, of one row


def by_proposal(energy: Energy, params: Params, x: Tree, y: Tree, t: Array) -> Tree:
    """F after its last round, of an energy that has a network inside."""
    return jax.tree.map(lambda leaf: leaf[-1], energy.propose(params, x, y, t))


def by_gradient(
    schedule: Schedule,
    energy: Energy,
    box: BoxFn,
    params: Params,
    x: Tree,
    y: Tree,
    t: Array,
) -> Tree:
    """The denoised answer of any energy, in its box."""
    grad = jax.grad(energy, argnums=2)(params, x, y, t)
    start = diffusion.predict_start(schedule, y, t, grad)
    return boxes.clip(box_of(box, x), start)


def own_path(
    schedule: Schedule,
    denoise: Denoise,
    box: BoxFn,
    key: Array,
    x: Tree,
    like: Tree,
    t: Array,
) -> Tree:
    """The y that inference arrives with at level t, of one row.

    From noise at level T-1, with fresh noise at each hand-over. Known elements, those
    of `like`, are a_t times their values.
    """
    bounds, last = box_of(box, x), schedule.num_levels - 1

    def noised(y0: Tree, level: Array) -> Tree:
        eps = trees.normal(jax.random.fold_in(key, level), like)
        eps = boxes.still(bounds, eps)
        a, s = schedule.a[level], schedule.s[level]
        return jax.tree.map(lambda y0, eps: a * y0 + s * eps, y0, eps)

    def step(y: Tree, level: Array):
        below = noised(denoise(x, y, level), level - 1)
        return trees.where(level > t, below, y), None

    known = boxes.hold(bounds, jax.tree.map(jnp.zeros_like, like))
    start = noised(known, jnp.int32(last))
    return jax.lax.scan(step, start, jnp.arange(1, last + 1)[::-1])[0]


def draw(
    schedule: Schedule, box: BoxFn, context: Context, batch: Example
) -> tuple[Array, Tree]:
    """A level for each row, [B], and its noise, none at known elements."""
    count = jax.tree.leaves(batch.y)[0].shape[0]
    t = jax.random.randint(context.key(Stream.LEVEL), (count,), 0, schedule.num_levels)
    return t, still(box, batch.x, trees.normal(context.key(Stream.NOISE), batch.y))


def with_own(
    schedule: Schedule,
    denoise: Denoise,
    box: BoxFn,
    block_rows: int | None,
    share: float,
    context: Context,
    batch: Example,
    t: Array,
    y: Tree,
    parts: int = 1,
) -> Tree:
    """y of a batch at levels t, a share of its rows on the own path instead.

    Rows are drawn independently: the first ones of each part are as good as any.
    """
    count = parts * round(share * (len(t) // parts))
    if not count:
        return y
    keys = jax.random.split(context.key(Stream.START), count)
    walk = blocks.vmap(partial(own_path, schedule, denoise, box), block_rows)
    own = walk(keys, *blocks.first((batch.x, batch.y, t), count, parts))
    return _put_first(own, y, parts)


def _put_first(rows: Tree, among: Tree, parts: int) -> Tree:
    """`among` with the first rows of each part replaced."""

    def put(new: Array, old: Array) -> Array:
        return jnp.concatenate([new, old[:, new.shape[1] :]], axis=1)

    rows, among = blocks.in_parts((rows, among), parts)
    return blocks.in_one(jax.tree.map(put, rows, among))
