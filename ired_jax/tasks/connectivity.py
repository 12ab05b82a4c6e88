"""Connectivity: x an undirected graph [n, n], y which nodes reach which, [n, n] in +-1.

Points in the unit square, each joined to its nearest one, two, .. neighbours: up to a
fifth of n as in the released data, but at most three, or nearly all pairs of a large
graph would be connected (98.4 % at 32 nodes). So +1 are 63 % of pairs at 12 nodes, 77 %
at 18 and 62 % at 32, where paths go on for up to twenty edges.

The diagonal and the edges are known to be +1. Figures count all n^2 pairs as published
ones do: what is known is right there without any reasoning, which is open to everybody.
The weights of one energy are for every n. Source: arXiv 2406.11179, section 5.2.
"""

from functools import partial
from typing import Annotated

import chex
import jax
import jax.numpy as jnp

from ired_jax import graphs
from ired_jax.fields import Field, Part
from ired_jax.tasks.base import Inference, Metric, Source, Task
from ired_jax.types import Array, Box, Example

INFERENCE = Inference(num_levels=4, num_steps=0, noise=True)
NEIGHBOUR_SHARE, MOST_NEIGHBOURS = 0.2, 3


def make_connectivity(
    *,
    n: Annotated[int, Field("nodes of a graph", at_least=2)] = 12,
    n_harder: Annotated[int, Field("nodes of the harder set", at_least=2)] = 18,
    n_hardest: Annotated[int, Field("nodes of the hardest set", at_least=2)] = 32,
    inference: Annotated[Inference, Part(Inference, "eval")] = INFERENCE,
) -> Task:
    """Makes the task: x int8 [n, n] of 0 and 1, y float32 [n, n].

    Args:
      n, n_harder, n_hardest: nodes of training and `val`, of `ood` and of `ood32`.
      inference: how answers are found.

    Raises:
      ValueError: a graph of fewer than two nodes.
    """
    if min(n, n_harder, n_hardest) < 2:
        raise ValueError(f"n={n}, n_harder={n_harder}, n_hardest={n_hardest}: under 2")

    def source(n: int) -> Source:
        return Source.fresh(partial(draw, n=n), box_of)

    train = source(n)
    return Task(
        train=train,
        splits={"val": train, "ood": source(n_harder), "ood32": source(n_hardest)},
        metrics={
            "pairs": Metric(pairs_right, "high", "share of pairs"),
            "graphs": Metric(graph_is_right, "high", "share of graphs"),
            "balanced": Metric(balanced, "high", "mean share of unknown pairs by kind"),
        },
        primary="val/pairs",
        inference=inference,
        residual=wrong_pairs,
        corrupt=corrupt,
        round=lambda y: jnp.where(y > 0, 1.0, -1.0),
        solvers={"majority class": all_reached, "repeated squaring": solve},
        fitted=(),
    )


def draw(key: Array, *, n: int) -> Example:
    """A graph and what it connects."""
    most = min(max(int(NEIGHBOUR_SHARE * n), 1), MOST_NEIGHBOURS)
    x = graphs.draw_neighbours(key, n=n, most=most, directed=False)
    return Example(x, solve(x))


def solve(x: Array) -> Array:
    """The answer, by repeated squaring: x [n, n] -> [n, n] float32 in +-1."""
    return 2 * graphs.closure(x).astype(jnp.float32) - 1


def all_reached(x: Array) -> Array:
    """+1 everywhere, the majority class of all sets."""
    return jnp.ones(x.shape)


def is_known(x: Array) -> Array:
    """The diagonal and the edges: [n, n] bool."""
    return (x != 0) | jnp.eye(len(x), dtype=bool)


def box_of(x: Array) -> Box:
    """+-1; what is known is +1."""
    return Box(jnp.where(is_known(x), 1.0, -1.0), jnp.ones(x.shape))


def pairs_right(x: Array, truth: Array, answer: Array) -> Array:
    """Share of all n^2 pairs whose sign is the truth's: ()."""
    del x
    return jnp.mean((answer > 0) == (truth > 0))


def graph_is_right(x: Array, truth: Array, answer: Array) -> Array:
    """1 where all pairs are right, else 0: () float32."""
    del x
    return jnp.all((answer > 0) == (truth > 0)).astype(jnp.float32)


def balanced(x: Array, truth: Array, answer: Array) -> Array:
    """Of unknown pairs, the mean of the shares right among +1 and among -1: ().

    A kind that a graph has not is left out; 1 where nothing is unknown.
    """
    unknown, is_right = ~is_known(x), (answer > 0) == (truth > 0)
    kinds = jnp.stack([unknown & (truth > 0), unknown & (truth <= 0)])
    counts = jnp.sum(kinds, axis=(1, 2))
    right = jnp.sum(kinds & is_right[None], axis=(1, 2))
    shares = jnp.where(counts > 0, right / jnp.maximum(counts, 1), 0.0)
    present = jnp.sum(counts > 0)
    return jnp.where(present > 0, jnp.sum(shares) / jnp.maximum(present, 1), 1.0)


def wrong_pairs(x: Array, y: Array) -> Array:
    """How many of the n^2 pairs are wrong, without the truth: () float32."""
    chex.assert_equal_shape([x, y])
    return jnp.sum((y > 0) != graphs.closure(x)).astype(jnp.float32)


def corrupt(key: Array, x: Array, y: Array, *, most: float = 0.5) -> Array:
    """y with a share of its unknown links flipped, uniform in [0, most]: [n, n].

    Links that are not there are added and others removed, alike; i to j and j to i go
    together, what is known stays, and at least one link is wrong. Where everything is
    known, y itself.
    """
    keys = jax.random.split(key)
    drawn = jnp.triu(jax.random.uniform(keys[0], x.shape), 1)
    score = jnp.where(is_known(x), jnp.inf, drawn + drawn.T)
    share = jax.random.uniform(keys[1], maxval=most)
    is_wrong = ~is_known(x) & ((score < share) | (score == jnp.min(score)))
    return jnp.where(is_wrong, -y, y)
