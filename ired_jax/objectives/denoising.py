"""Denoising: the gradient of the energy predicts the noise."""

import jax
import jax.numpy as jnp

from ired_jax import boxes, diffusion, trees
from ired_jax.diffusion import Schedule
from ired_jax.negatives.base import BoxFn, box_of, still
from ired_jax.objectives.base import Context, Metrics, Objective
from ired_jax.types import Array, Energy, Example, Params, Stream, Tree

METRICS = {
    "train/denoise_mse": ("per element", "noise prediction, raw parameters"),
    "grad_norm_pos": ("per element", "root mean square of grad_y E at positives"),
    "pred_norm": ("per element", "root mean square of the denoised y_0"),
}


def make_denoising(schedule: Schedule, loss_energy: Energy, box: BoxFn) -> Objective:
    """mean |grad_y E(x, y_t, t) - eps|^2 over rows and free elements.

    Its minimiser is grad_y E = E[eps | y_t, x]: p_t is proportional to exp(-E / s_t).

    Source: arXiv 2406.11179, eq. 5; arXiv 2006.11239, eq. 14.
    """

    def prepare(
        context: Context, memory: Tree, batch: Example
    ) -> tuple[Tree, Tree, Metrics]:
        shape = (jax.tree.leaves(batch.y)[0].shape[0],)
        t = jax.random.randint(context.key(Stream.LEVEL), shape, 0, schedule.num_levels)
        eps = trees.normal(context.key(Stream.NOISE), batch.y)
        eps = still(box, batch.x, eps)
        return {"x": batch.x, "y0": batch.y, "t": t, "eps": eps}, memory, {}

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
        return metrics["train/denoise_mse"], metrics

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
