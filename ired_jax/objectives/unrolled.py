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

from ired_jax import blocks, boxes, trees
from ired_jax.diffusion import Schedule
from ired_jax.fields import Field
from ired_jax.negatives.base import BoxFn, box_of, q_sample, still
from ired_jax.objectives.base import Context, Metrics, Objective
from ired_jax.objectives.paths import by_gradient, with_own
from ired_jax.types import Array, Energy, Example, Params, Stream, Tree

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
    """Makes the objective."""
    weight = jnp.minimum(schedule.a**-2, max_weight)

    def prepare(
        context: Context, memory: Tree, batch: Example
    ) -> tuple[Tree, Tree, Metrics]:
        count = jax.tree.leaves(batch.y)[0].shape[0]
        t = jax.random.randint(
            context.key(Stream.LEVEL), (count,), 0, schedule.num_levels
        )
        eps = still(box, batch.x, trees.normal(context.key(Stream.NOISE), batch.y))
        y = q_sample(schedule, batch.y, t, eps)
        denoise = partial(
            by_gradient, schedule, loss_energy, box, context.params.energy
        )
        vmap, rows = partial(blocks.vmap, block_rows=block_rows), (batch.x, batch.y, t)
        key, own = context.key(Stream.START), round(own_share * count)
        y = with_own(schedule, denoise, box, vmap, key, rows, y, own)
        return {"x": batch.x, "y0": batch.y, "y": y, "t": t}, memory, {}

    def loss(
        params: Params, own: Params, rows: Tree, context: Context
    ) -> tuple[Array, Metrics]:
        del own, context

        def one(x: Tree, y0: Tree, y: Tree, t: Array) -> Array:
            bounds, h = box_of(box, x), step_size * schedule.temperature[t]
            truth = jax.tree.map(lambda y0: schedule.a[t] * y0, y0)
            errors = []
            for _ in range(steps):
                grad = jax.grad(loss_energy, argnums=2)(params, x, y, t)
                grad = boxes.still(bounds, grad)
                y = jax.tree.map(lambda y, grad: y - h * grad, y, grad)
                gap = trees.squares(trees.subtract(y, truth))
                errors.append(weight[t] * boxes.mean_free(bounds, gap))
            return jnp.stack(errors)

        parts = [rows[name] for name in ("x", "y0", "y", "t")]
        errors = jnp.mean(jax.vmap(one)(*parts), axis=0)
        metrics = dict(zip(METRICS, (errors[0], errors[-1]), strict=True))
        return jnp.mean(errors), metrics

    return Objective(prepare, loss, metrics=METRICS)
