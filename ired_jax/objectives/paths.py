"""Where inference leads a model: its own path, for rows that a loss learns from.

A model that has only seen noised truths never sees its own mistakes, and trusts them.
On its own path, noised again at each hand-over, the truth is still what is asked for.

Source: own answers as data as in Ross et al., arXiv 1011.0686.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from ired_jax import boxes, diffusion, trees
from ired_jax.diffusion import Schedule
from ired_jax.negatives.base import BoxFn, box_of
from ired_jax.types import Array, Energy, Params, Tree

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


def with_own(
    schedule: Schedule,
    denoise: Denoise,
    box: BoxFn,
    vmap: Callable,
    key: Array,
    rows: tuple[Tree, Tree, Array],
    y: Tree,
    count: int,
) -> Tree:
    """y of the rows (x, y_0, t), the first `count` of them on the own path instead.

    Rows are drawn independently: the first ones are as good as any.
    """
    if not count:
        return y
    walk = partial(own_path, schedule, denoise, box)
    keys = jax.random.split(key, count)
    first = jax.tree.map(lambda leaf: leaf[:count], rows)
    own = vmap(walk)(keys, *first)
    return jax.tree.map(lambda new, old: old.at[:count].set(new), own, y)
