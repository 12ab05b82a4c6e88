"""A density on the plane: a picture of the landscape over the data."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ired_jax.tasks import density


def draw_model(axes, fields: Mapping, energy_fn: Callable) -> None:
    """The data's density and the model's, one beside the other.

    Args:
      axes: two.
      fields: of the task.
      energy_fn: (x, y, t) -> E of the model.
    """
    cells, limit = density.GRID.cells, density.HALF_WIDTH
    points = np.asarray(density.GRID.points)
    kind = fields["kind"]
    means, deviation = density.centres(kind), density.DEVIATION[kind]
    squares = np.sum((points[:, None] - means) ** 2, axis=-1)
    data = np.mean(np.exp(-squares / (2 * deviation**2)), axis=1)
    energy = jax.jit(jax.vmap(lambda y: energy_fn((), y, jnp.int32(0))))(points)
    log_model = -np.asarray(energy, np.float64)
    model = np.exp(log_model - np.max(log_model))
    for axis, title, value in zip(axes, ("data", "model"), (data, model), strict=True):
        image = value.reshape(cells, cells).T
        axis.imshow(image, origin="lower", extent=(-limit, limit) * 2, cmap="magma")
        axis.set_title(title, fontsize=8)
        axis.axis("off")
