"""Addition of matrices: x = [vec(A), vec(B)], y = vec(A + B), entries ~ U(-r, r).

r = 1 in distribution, 2.5 for the harder set. No sum exceeds 2 r: that is the task's
box, of each set its own; the released clip at 2 alone costs a perfect predictor .54 on
the harder set. Source: arXiv 2406.11179, section 5.1, and its released code.
"""

from functools import partial
from typing import Annotated

import chex
import jax
import jax.numpy as jnp

from ired_jax.fields import Field, Part
from ired_jax.tasks.base import Inference, Metric, Source, Task, mean_squared_error
from ired_jax.types import Array, Box, Example

RANGE = 1.0
RANGE_HARDER = 2.5
INFERENCE = Inference()


def make_addition(
    *,
    n: Annotated[int, Field("matrices are n x n", at_least=1)] = 20,
    inference: Annotated[Inference, Part(Inference, "eval")] = INFERENCE,
) -> Task:
    """Makes the task for n x n matrices: x [2 n^2], y [n^2], float32.

    Raises:
      ValueError: n < 1.
    """
    if n < 1:
        raise ValueError(f"n={n}: must be at least 1")

    def source(limit: float) -> Source:
        return Source.fresh(
            partial(draw, n=n, limit=limit), lambda x: Box(-2 * limit, 2 * limit)
        )

    return Task(
        train=source(RANGE),
        splits={"val": source(RANGE), "ood": source(RANGE_HARDER)},
        metrics={"task_mse": Metric(mean_squared_error, "low", "per element")},
        primary="val/task_mse",
        inference=inference,
        residual=residual,
        corrupt=corrupt,
        solvers={"sum": add},
    )


def draw(key: Array, *, n: int, limit: float) -> Example:
    """One example: x [2 n^2] ~ U(-limit, limit), y [n^2], float32."""
    x = jax.random.uniform(key, (2 * n * n,), minval=-limit, maxval=limit)
    return Example(x, add(x))


def add(x: Array) -> Array:
    """The answer: x [2 D] -> [D]."""
    chex.assert_rank(x, 1)
    return jnp.sum(x.reshape(2, -1), axis=0)


def residual(x: Array, y: Array) -> Array:
    """|A + B - Y|_F of one example: x [2 D], y [D] -> ()."""
    chex.assert_shape(x, (2 * y.size,))
    return jnp.linalg.norm(add(x) - y)


def corrupt(key: Array, x: Array, y: Array) -> Array:
    """An answer with about a quarter of its elements, one at least, drawn anew: [D].

    New elements are uniform on +-2 max|x|, the box of the range that x shows.
    """
    key_mask, key_value = jax.random.split(key)
    score = jax.random.uniform(key_mask, y.shape)
    limit = 2 * jnp.max(jnp.abs(x))
    drawn = jax.random.uniform(key_value, y.shape, minval=-limit, maxval=limit)
    return jnp.where((score < 0.25) | (score == jnp.min(score)), drawn, y)
