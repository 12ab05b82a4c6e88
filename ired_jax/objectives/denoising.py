"""Denoising: the gradient of the energy predicts the noise."""

from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp

from ired_jax import boxes, diffusion, trees
from ired_jax.diffusion import Schedule
from ired_jax.fields import Field
from ired_jax.negatives.base import BoxFn, box_of, still
from ired_jax.objectives import paths
from ired_jax.objectives.base import Context, Objective
from ired_jax.types import Array, Energy, Example, Params, Tree

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
    paths.refuse_without_noise(schedule, "denoising", own_share)
    weight = None
    if max_weight:
        weight = jnp.minimum((schedule.s / schedule.a) ** 2, max_weight)
    by_gradient = partial(paths.by_gradient, schedule, loss_energy, box)

    def prepare(context: Context, memory: Tree, batch: Example):
        """{x, y0, t, eps}, the noise that leads from the truth to where a row is."""
        denoise = partial(by_gradient, context.params.energy)
        own = schedule, denoise, box, block_rows, own_share
        t, eps, y = paths.draw(*own, context, batch)
        if own_share:
            eps = jax.vmap(partial(diffusion.predict_noise, schedule))(y, t, batch.y)
            eps = still(box, batch.x, eps)
        return {"x": batch.x, "y0": batch.y, "t": t, "eps": eps}, memory, {}

    def loss(params: Params, own: Params, rows: Tree, context: Context):
        """The mean over rows, each by the weight [T] of its level if there are any."""
        del own, context

        def one(x, y0, t, eps):
            given = params, x, y0, t, eps
            return row_figures(schedule, loss_energy, box_of(box, x), *given)

        figures = jax.vmap(one)(rows["x"], rows["y0"], rows["t"], rows["eps"])
        metrics = dict(zip(METRICS, map(jnp.mean, figures), strict=True))
        if weight is None:
            return metrics["train/denoise_mse"], metrics
        return jnp.mean(weight[rows["t"]] * figures[0]), metrics

    roots = ("grad_norm_pos", "pred_norm")
    return Objective(prepare, loss, roots=roots, metrics=METRICS)


def row_figures(schedule, energy, box, params, x, y0, t, eps) -> tuple[Array, ...]:
    """Of one row: the loss, and mean squares of the gradient and of the denoised y_0.

    Means are over the free elements, whose number is D: (), (), ().
    """
    y = diffusion.q_sample(schedule, y0, t, eps)
    grad = jax.grad(energy, argnums=2)(params, x, y, t)
    start = diffusion.predict_start(schedule, y, t, grad)
    values = trees.subtract(grad, eps), grad, start
    return tuple(boxes.mean_free(box, trees.squares(value)) for value in values)
