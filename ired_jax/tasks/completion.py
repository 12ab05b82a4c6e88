"""Completion: y = c U V^T + .1 N, n x m of rank 10 and noise; half its entries seen.

U, V and N are standard normal, c = 1/20 in distribution and 1/5 for the harder set. x
is [2, n, m]: the values of y, 0 where unseen, and 1 where seen, else 0. What is seen is
known: sides of the box are equal there. Noise is part of y, so no answer is right to
the bit: the best is the mean of y given x, and its error is the Bayes bound
(`experiments.data.completion`). Source: arXiv 2406.11179, section 5.1, and its
released code.
"""

from functools import partial
from typing import Annotated

import chex
import jax
import jax.numpy as jnp

from ired_jax.fields import Field, Part, of_size
from ired_jax.tasks.base import Inference, Metric, Source, Task, mean_squared_error
from ired_jax.types import Array, Box, Example

SCALE = 1 / 20
SCALE_HARDER = 1 / 5
NOISE = 0.1
SEEN = 0.5
DEVIATIONS = 12  # half-width of the box: beyond it less than one entry in 1e12
# One level: the denoised answer is a mean already, what comes after would sample.
INFERENCE = Inference(num_levels=1, num_steps=0)


def make_completion(
    *,
    n: Annotated[int, Field("rows", at_least=1)] = 20,
    m: Annotated[int, Field("columns; 0: as many as rows", at_least=0)] = 0,
    rank: Annotated[int, of_size("of the matrix without noise")] = 10,
    inference: Annotated[Inference, Part(Inference, "eval")] = INFERENCE,
) -> Task:
    """Makes the task: x [2, n, m], y [n, m], float32.

    Raises:
      ValueError: a size below its limit.
    """
    if min(n, rank) < 1 or m < 0:
        raise ValueError(f"n={n}, m={m}, rank={rank}: at least 1, 0 and 1")
    shape = n, m or n

    def source(scale: float) -> Source:
        def example(key: Array) -> Example:
            return draw(key, shape=shape, rank=rank, scale=scale)[0]

        limit = DEVIATIONS * (rank * scale**2 + NOISE**2) ** 0.5
        return Source.fresh(example, partial(box_of, limit=limit))

    train = source(SCALE)
    return Task(
        train=train,
        splits={"val": train, "ood": source(SCALE_HARDER)},
        metrics={
            "task_mse": Metric(mean_squared_error, "low", "per element"),
            "unseen_mse": Metric(unseen_error, "low", "per unseen element"),
        },
        primary="val/task_mse",
        inference=inference,
        residual=residual,
        corrupt=corrupt,
        solvers={
            "copy what is seen": lambda x: x[0],
            "alternating least squares": partial(least_squares, rank=rank),
        },
        fitted=(),
    )


def draw(
    key: Array, *, shape: tuple[int, int], rank: int, scale: float
) -> tuple[Example, tuple[Array, Array]]:
    """One example, and its factors U [n, k] and V [m, k]."""
    keys = jax.random.split(key, 4)
    u = jax.random.normal(keys[0], (shape[0], rank))
    v = jax.random.normal(keys[1], (shape[1], rank))
    y = scale * u @ v.T + NOISE * jax.random.normal(keys[2], shape)
    seen = jax.random.bernoulli(keys[3], SEEN, shape).astype(y.dtype)
    return Example(jnp.stack([seen * y, seen]), y), (u, v)


def box_of(x: Array, *, limit: float) -> Box:
    """Known where seen, +-limit elsewhere: x [2, n, m]."""
    values, seen = x
    return Box(*(jnp.where(seen > 0, values, side) for side in (-limit, limit)))


def unseen_error(x: Array, truth: Array, answer: Array) -> Array:
    """Mean of (answer - truth)^2 over what is unseen, 0 if there is none: ()."""
    unseen = 1 - x[1]
    return ((answer - truth) ** 2 * unseen).sum() / jnp.maximum(unseen.sum(), 1)


def residual(x: Array, y: Array) -> Array:
    """|Y - X|_F over what is seen: x [2, n, m], y [n, m] -> ()."""
    chex.assert_shape(x, (2, *y.shape))
    chex.assert_rank(y, 2)
    return jnp.linalg.norm((y - x[0]) * x[1])


def corrupt(key: Array, x: Array, y: Array) -> Array:
    """An answer with about a quarter of its unseen elements, one at least, drawn anew.

    New elements are uniform on +-max|y|. Where all is seen, y itself.
    """
    key_mask, key_value = jax.random.split(key)
    score = jnp.where(x[1] > 0, jnp.inf, jax.random.uniform(key_mask, y.shape))
    is_wrong = (x[1] == 0) & ((score < 0.25) | (score == jnp.min(score)))
    limit = jnp.max(jnp.abs(y))
    drawn = jax.random.uniform(key_value, y.shape, minval=-limit, maxval=limit)
    return jnp.where(is_wrong, drawn, y)


def least_squares(x: Array, *, rank: int, num_rounds: int = 40) -> Array:
    """Alternating ridge regressions, what is seen put in: x [2, n, m] -> y [n, m].

        min over U, V of |(X - U V^T) seen|^2 / NOISE^2 + (|U|^2 + |V|^2) / c

    It knows the noise, and c from the size of what is seen. The start is random.
    """
    values, seen = x
    scale = jnp.sum(values**2) / jnp.maximum(seen.sum(), 1) - NOISE**2
    scale = jnp.sqrt(jnp.maximum(scale, 0.1 * NOISE**2) / rank)

    # Not by LAPACK, of which two calls in one program may wait for each other.
    def row(values: Array, seen: Array, v: Array) -> Array:
        def normal(u):
            return u * NOISE**2 / scale + v.T @ (seen * (v @ u))

        right = v.T @ (seen * values)
        return jax.scipy.sparse.linalg.cg(normal, right, maxiter=2 * rank)[0]

    half = jax.vmap(row, in_axes=(0, 0, None))

    def step(_, v: Array) -> Array:
        return half(values.T, seen.T, half(values, seen, v))

    v = jax.random.normal(jax.random.key(0), (values.shape[1], rank), values.dtype)
    v = jax.lax.fori_loop(0, num_rounds, step, v * jnp.sqrt(scale))
    return jnp.where(seen > 0, values, half(values, seen, v) @ v.T)
