"""Where inference leads a model: its own path, for rows that a loss learns from.

A model that has only seen noised truths never sees its own mistakes, and trusts them.
On its own path, noised again at each hand-over, the truth is still what is asked for.

Source: own answers as data as in Ross et al., arXiv 1011.0686.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ired_jax import blocks, boxes, diffusion, trees
from ired_jax.diffusion import Schedule
from ired_jax.negatives.base import BoxFn, box_of, q_sample, still
from ired_jax.objectives.base import Context
from ired_jax.types import Array, Energy, Example, Params, Stream, Tree

Denoise = Callable[[Tree, Tree, Array], Tree]  # (x, y, t) -> y_0, of one row


def by_proposal(energy: Energy, params: Params, x: Tree, y: Tree, t: Array) -> Tree:
    """F after its last round, of an energy that has a network inside.

    Raises:
      AssertionError: it has none.
    """
    assert energy.propose is not None, "this energy has no network inside"
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
    slope = jax.grad(energy, argnums=2)  # type: ignore[arg-type]
    grad = slope(params, x, y, t)
    start = diffusion.predict_start(schedule, y, t, grad)
    return boxes.clip(box_of(box, x), start)


def refuse_without_noise(schedule: Schedule, name: str, own_share: float) -> None:
    """Own rows begin at noise; without it each of them would begin at 0.

    Raises:
      ValueError: own rows of the objective `name` on a schedule without noise.
    """
    if own_share and not np.all(np.asarray(schedule.s) > 0):
        raise ValueError(
            f"{name}.own_share={own_share}: must be 0 where levels have no noise"
        )


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
        return diffusion.q_sample(schedule, y0, level, boxes.still(bounds, eps))

    def step(y: Tree, level: Array):
        below = noised(denoise(x, y, level), level - 1)
        return trees.where(level > t, below, y), None

    known = boxes.hold(bounds, jax.tree.map(jnp.zeros_like, like))
    start = noised(known, jnp.int32(last))
    return jax.lax.scan(step, start, jnp.arange(1, last + 1)[::-1])[0]


def draw(
    schedule: Schedule,
    denoise: Denoise,
    box: BoxFn,
    block_rows: int | None,
    own_share: float,
    context: Context,
    batch: Example,
    parts: int = 1,
) -> tuple[Array, Tree, Tree]:
    """Noised truths, a share of the rows on the own path instead.

    Rows are drawn independently: the first ones of each part are as good as any.

    Returns:
      The levels [B], the noise and y of them, leaves [B, ...]. The noise is what truths
      were noised by, of own rows too, and 0 at known elements.
    """
    count = jax.tree.leaves(batch.y)[0].shape[0]
    t = jax.random.randint(context.key(Stream.LEVEL), (count,), 0, schedule.num_levels)
    eps = trees.normal(context.key(Stream.NOISE), batch.y)
    eps = still(box, batch.x, eps)
    y, own = q_sample(schedule, batch.y, t, eps), round(own_share * (count // parts))
    if own:
        keys = jax.random.split(context.key(Stream.START), parts * own)
        walk = blocks.vmap(partial(own_path, schedule, denoise, box), block_rows)
        rows = blocks.first((batch.x, batch.y, t), parts * own, parts)
        y = _put_first(walk(keys, *rows), y, parts)
    return t, eps, y


def _put_first(rows: Tree, among: Tree, parts: int) -> Tree:
    """`among` with the first rows of each part replaced."""

    def put(new: Array, old: Array) -> Array:
        return jnp.concatenate([new, old[:, new.shape[1] :]], axis=1)

    rows, among = blocks.in_parts((rows, among), parts)
    return blocks.in_one(jax.tree.map(put, rows, among))
