"""Denoising: the gradient of the energy predicts the noise."""

from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from ired_jax import blocks, boxes, diffusion, trees
from ired_jax.diffusion import Schedule
from ired_jax.fields import Field
from ired_jax.negatives.base import BoxFn, box_of, q_sample, still
from ired_jax.objectives.base import Context, Metrics, Objective
from ired_jax.objectives.paths import by_gradient, with_own
from ired_jax.types import Array, Energy, Example, Params, Stream, Tree

METRICS = {
    "train/denoise_mse": ("per element", "noise prediction, raw parameters"),
    "grad_norm_pos": ("per element", "root mean square of grad_y E at positives"),
    "pred_norm": ("per element", "root mean square of the denoised y_0"),
}


def make_denoising(
    schedule: Schedule,
    loss_energy: Energy,
    box: BoxFn,
    block_rows: int | None = None,
    *,
    max_weight: Annotated[
        float,
        Field(
            "errors in units of the answer: a level weighs (s/a)^2, at most this; 0: of"
            " the noise, all weigh 1",
            at_least=0,
        ),
    ] = 0.0,
    own_share: Annotated[
        float,
        Field("rows on the model's own path, noised again", at_least=0, at_most=1),
    ] = 0.0,
) -> Objective:
    """mean w_t |grad_y E(x, y_t, t) - eps|^2 over rows and free elements.

    Its minimiser is grad_y E = E[eps | y_t, x]: p_t is proportional to exp(-E / s_t).
    On the own path eps is what the truth would have had to be noised by.

    Source: arXiv 2406.11179, eq. 5; arXiv 2006.11239, eq. 14; weights of levels as in
    arXiv 2303.09556.

    Raises:
      ValueError: own rows on a schedule without noise.
    """
    if own_share and not np.all(np.asarray(schedule.s) > 0):
        raise ValueError(
            f"denoising.own_share={own_share}: must be 0 where levels have no noise"
        )
    weight = jnp.ones_like(schedule.s)
    if max_weight:
        weight = jnp.minimum((schedule.s / schedule.a) ** 2, max_weight)

    def prepare(
        context: Context, memory: Tree, batch: Example
    ) -> tuple[Tree, Tree, Metrics]:
        shape = (jax.tree.leaves(batch.y)[0].shape[0],)
        t = jax.random.randint(context.key(Stream.LEVEL), shape, 0, schedule.num_levels)
        eps = trees.normal(context.key(Stream.NOISE), batch.y)
        eps = still(box, batch.x, eps)
        if own_share:
            eps = of_own_path(context, batch, t, eps)
        return {"x": batch.x, "y0": batch.y, "t": t, "eps": eps}, memory, {}

    def of_own_path(context: Context, batch: Example, t: Array, eps: Tree) -> Tree:
        params, vmap = (
            context.params.energy,
            partial(blocks.vmap, block_rows=block_rows),
        )
        denoise = partial(by_gradient, schedule, loss_energy, box, params)
        y = q_sample(schedule, batch.y, t, eps)
        key, count = context.key(Stream.START), round(own_share * len(t))
        y = with_own(schedule, denoise, box, vmap, key, (batch.x, batch.y, t), y, count)
        noise_of = partial(diffusion.predict_noise, schedule)
        eps = jax.vmap(noise_of)(y, t, batch.y)
        return still(box, batch.x, eps)

    def loss(
        params: Params, own: Params, rows: Tree, context: Context
    ) -> tuple[Array, Metrics]:
        del own, context

        def one(x, y0, t, eps):
            return row_figures(
                schedule, loss_energy, box_of(box, x), params, x, y0, t, eps
            )

        figures = jax.vmap(one)(rows["x"], rows["y0"], rows["t"], rows["eps"])
        metrics = dict(zip(METRICS, map(jnp.mean, figures), strict=True))
        if not max_weight:
            return metrics["train/denoise_mse"], metrics
        return jnp.mean(weight[rows["t"]] * figures[0]), metrics

    return Objective(
        prepare, loss, roots=("grad_norm_pos", "pred_norm"), metrics=METRICS
    )


def row_figures(schedule, energy, box, params, x, y0, t, eps) -> tuple[Array, ...]:
    """Of one row: the loss, and mean squares of the gradient and of the denoised y_0.

    Means are over the free elements, whose number is D: (), (), ().
    """
    y = diffusion.q_sample(schedule, y0, t, eps)
    grad = jax.grad(energy, argnums=2)(params, x, y, t)
    start = diffusion.predict_start(schedule, y, t, grad)
    values = trees.subtract(grad, eps), grad, start
    return tuple(boxes.mean_free(box, trees.squares(value)) for value in values)
