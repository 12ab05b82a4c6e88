"""Unrolled descent: steps on the energy are to lead to the answer.

    y_(k+1) = y_k - m s_t grad_y E(x, y_k, t),    k = 0 .. K-1
    mean over rows and k = 1 .. K of w_t |y_k - a_t y_0|^2,    w_t = min(1 / a_t^2, w)

The gradient flows through all K steps: the landscape is shaped by where it leads. With
K = 1 and m = 1 this is denoising with its errors in units of the answer. Rows begin at
noised truths and on the model's own path.

Source: arXiv 2206.15448 (K steps, the last one carries gradient); arXiv 2507.02092 (all
of them do).
"""

from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp

from ired_jax import boxes, trees
from ired_jax.diffusion import Schedule
from ired_jax.fields import Field
from ired_jax.negatives.base import BoxFn, box_of
from ired_jax.objectives import paths
from ired_jax.objectives.base import Context, Objective
from ired_jax.types import Array, Energy, Example, Params, Tree

METRICS = {
    "unrolled/first": ("per element", "squared error of y_1, weighted"),
    "unrolled/last": ("per element", "squared error of y_K, weighted"),
}


def make_unrolled(
    schedule: Schedule,
    loss_energy: Energy,
    box: BoxFn,
    block_rows: int | None = None,
    *,
    steps: Annotated[int, Field("K, of the descent", at_least=1)] = 2,
    step_size: Annotated[
        float, Field("m, in units of s_t: 1 is denoising", above=0)
    ] = 1.0,
    max_weight: Annotated[
        float, Field("w, the most that a level's loss weighs", above=0)
    ] = 10.0,
    own_share: Annotated[
        float, Field("rows on the model's own path", at_least=0, at_most=1)
    ] = 0.5,
) -> Objective:
    """Makes the objective.

    Raises:
      ValueError: own rows on a schedule without noise.
    """
    paths.refuse_without_noise(schedule, "unrolled", own_share)
    by_gradient = partial(paths.by_gradient, schedule, loss_energy, box)
    weight = jnp.minimum(schedule.a**-2, max_weight)
    one = partial(_descent, schedule, loss_energy, box, weight, steps, step_size)

    def prepare(context: Context, memory: Tree, batch: Example):
        """{x, y0, y, t}: where the descent of each row begins."""
        denoise = partial(by_gradient, context.params.energy)
        own = schedule, denoise, box, block_rows, own_share
        t, _, y = paths.draw(*own, context, batch)
        return {"x": batch.x, "y0": batch.y, "y": y, "t": t}, memory, {}

    def loss(params: Params, own: Params, rows: Tree, context: Context):
        del own, context
        parts = [rows[name] for name in ("x", "y0", "y", "t")]
        errors = jnp.mean(jax.vmap(partial(one, params))(*parts), axis=0)
        metrics = dict(zip(METRICS, (errors[0], errors[-1]), strict=True))
        return jnp.mean(errors), metrics

    return Objective(prepare, loss, metrics=METRICS)


def _descent(
    schedule: Schedule,
    energy: Energy,
    box: BoxFn,
    weight: Array,
    steps: int,
    step_size: float,
    params: Params,
    x: Tree,
    y0: Tree,
    y: Tree,
    t: Array,
) -> Array:
    """w_t |y_k - a_t y_0|^2 of one row after each step: [K]."""
    bounds, h = box_of(box, x), step_size * schedule.temperature[t]
    truth = jax.tree.map(lambda y0: schedule.a[t] * y0, y0)
    slope = jax.grad(energy, argnums=2)  # type: ignore[arg-type]
    errors = []
    for _ in range(steps):
        grad = boxes.still(bounds, slope(params, x, y, t))
        y = jax.tree.map(lambda y, grad: y - h * grad, y, grad)
        gap = trees.squares(trees.subtract(y, truth))
        errors.append(weight[t] * boxes.mean_free(bounds, gap))
    return jnp.stack(errors)
