"""An energy of one array of weights: for tests of what is around a network."""

from typing import Annotated

import jax
import jax.numpy as jnp

from ired_jax.fields import Field
from ired_jax.types import Array, Energy, Params, Tree


def of(width: int) -> dict[str, object]:
    """The fields of a config that choose it."""
    return {"energy.name": __name__, "energy.width": width}


PROPOSING = {"energy.name": "tests.proposing"}


def make_plain(
    x_size: int,
    y_size: int,
    *,
    width: Annotated[int, Field("rows of weights", at_least=1)] = 4,
) -> Energy:
    """E = log cosh of W [x, y, t], summed; x and y of any shapes, as trees."""

    def init(key: Array) -> Params:
        return jax.random.normal(key, (width, x_size + y_size + 1)) / 4

    def apply(params: Params, x: Tree, y: Tree, t: Array) -> Array:
        parts = [jnp.ravel(leaf) for leaf in jax.tree.leaves((x, y, t / 4))]
        return jnp.sum(jnp.log(jnp.cosh(params @ jnp.concatenate(parts))))

    return Energy(init, apply)
