"""Matrix inversion: x = vec(A), y = vec(A^-1), A = 2 M M^T + c I, M ~ U(-1, 1).

c = .5 in distribution, .1 for the harder set; `shift` is that of training. A >= c I, so
no entry of an inverse exceeds 1 / c: that is the task's box. Source: arXiv 2406.11179,
section 5.1, and its released code.
"""

from functools import partial
from typing import Annotated

import chex
import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from ired_jax.fields import Field, Part
from ired_jax.tasks.base import Inference, Metric, Source, Task, mean_squared_error
from ired_jax.types import Array, Box, Example

SHIFT = 0.5
SHIFT_HARDER = 0.1
NEWTON_STEPS = (15, 20)


def make_inverse(
    *,
    n: Annotated[int, Field("matrices are n x n", at_least=1)] = 20,
    shift: Annotated[
        float,
        Field(
            "c of the matrices to train on; 0.1: the harder set's",
            above=0,
            group="train",
        ),
    ] = SHIFT,
    inference: Annotated[Inference, Part(Inference, "eval")] = Inference(),
) -> Task:
    """Makes the task for n x n matrices: x [n^2], y [n^2], float32.

    Whatever it trains on, the sets are those of c = .5 and of c = .1.

    Raises:
      ValueError: n < 1.
    """
    if n < 1:
        raise ValueError(f"n={n}: must be at least 1")

    def source(shift: float) -> Source:
        return Source.fresh(
            partial(draw, n=n, shift=shift), lambda x: Box(-1 / shift, 1 / shift)
        )

    sources = {c: source(c) for c in (shift, SHIFT, SHIFT_HARDER)}  # each once
    return Task(
        train=sources[shift],
        splits={"val": sources[SHIFT], "ood": sources[SHIFT_HARDER]},
        metrics={"task_mse": Metric(mean_squared_error, "low", "per element")},
        primary="val/task_mse",
        inference=inference,
        residual=residual,
        corrupt=corrupt,
        solvers={
            f"Newton-Schulz, {steps} steps": partial(newton_schulz, num_steps=steps)
            for steps in NEWTON_STEPS
        },
    )


def draw(key: Array, *, n: int, shift: float) -> Example:
    """One example: x [n^2] and y [n^2], float32."""
    m = jax.random.uniform(key, (n, n), minval=-1.0, maxval=1.0)
    a = 2 * m @ m.T + shift * jnp.eye(n)
    return Example(a.reshape(-1), _inverse(a).reshape(-1))


# Not by LAPACK, which takes one matrix after the other, and of which two calls in one
# program wait for each other for ever where a CPU has two cores (jax 0.10).
@custom_vmap
def _inverse(a: Array) -> Array:
    """A^-1 of a symmetric positive definite A [n, n], which needs no pivoting.

    n sweeps, bitwise symmetric throughout. Axes behind the first two are batches.

    Source: Goodnight, The American Statistician 33(3), 1979.
    """

    def sweep(_, a):
        one_over, row, column = 1 / a[:1, :1], a[:1, 1:], a[1:, :1]
        # What is swept goes last: after n sweeps all are back in order.
        rest = jnp.append(a[1:, 1:] - column * row * one_over, column * one_over, 1)
        return jnp.append(rest, jnp.append(row * one_over, -one_over, 1), 0)

    return -jax.lax.fori_loop(0, len(a), sweep, a)


# With the rows of a batch innermost each operation is one on long vectors.
@_inverse.def_vmap
def _inverse_of_rows(axis_size, is_batched, a):
    del axis_size, is_batched
    return jnp.moveaxis(_inverse(jnp.moveaxis(a, 0, -1)), -1, 0), True


def residual(x: Array, y: Array) -> Array:
    """|A Y - I|_F of one example: x [n^2], y [n^2] -> ()."""
    a, inverse = _as_matrices(x, y)
    return jnp.linalg.norm(a @ inverse - jnp.eye(a.shape[0]))


def corrupt(key: Array, x: Array, y: Array) -> Array:
    """An answer with about a quarter of its elements, one at least, drawn anew: [n^2].

    New elements are uniform on +-max|y|, so that no size gives them away.
    """
    del x
    key_mask, key_value = jax.random.split(key)
    score, limit = jax.random.uniform(key_mask, y.shape), jnp.max(jnp.abs(y))
    drawn = jax.random.uniform(key_value, y.shape, minval=-limit, maxval=limit)
    return jnp.where((score < 0.25) | (score == jnp.min(score)), drawn, y)


def newton_schulz(x: Array, *, num_steps: int) -> Array:
    """Y <- Y (2 I - A Y) from A^T / (|A|_1 |A|_inf): x [n^2] -> [n^2].

    Source: Schulz, ZAMM 13(1), 1933; Ben-Israel, Math. Comp. 19, 1965 (the start).
    """
    a, _ = _as_matrices(x, x)
    identity = jnp.eye(a.shape[0])
    columns, rows = jnp.sum(jnp.abs(a), axis=0), jnp.sum(jnp.abs(a), axis=1)
    start = a.T / (jnp.max(columns) * jnp.max(rows))

    def step(y, _):
        return y @ (2 * identity - a @ y), None

    return jax.lax.scan(step, start, length=num_steps)[0].reshape(-1)


def _as_matrices(x: Array, y: Array) -> tuple[Array, Array]:
    chex.assert_rank([x, y], 1)
    chex.assert_equal_shape([x, y])
    n = round(x.size**0.5)
    chex.assert_shape(x, (n * n,))
    return x.reshape(n, n), y.reshape(n, n)
