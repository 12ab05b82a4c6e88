"""The plain energy, with a proposal: what its gradient says of y."""

import jax
import jax.numpy as jnp

from ired_jax.types import Energy, Tree
from tests.plain import make_plain


def make_proposing(x_size: int, y_size: int) -> Energy:
    energy = make_plain(x_size, y_size)

    def propose(*point) -> Tree:
        along = jax.grad(energy.apply, 2)(*point)
        return jax.tree.map(lambda leaf: jnp.tanh(leaf)[None], along)

    return energy._replace(propose=propose, rounds=1)
