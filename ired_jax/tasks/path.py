"""Shortest paths: x a directed graph, a start and a goal; y where to be when.

y [steps, n] is one-hot in +-1, a row for each time. It begins at the start, takes an
edge at a time and stays at the goal. The first row is known. Often several paths are
equally short; training draws one of them anew each time, at each node one of the next
nodes alike, and figures ask the distances of the graph, never that one path.

Graphs are points in the unit square with edges to their nearest 1, .., n / 2, and the
distance to go is uniform on 2 to 5 at up to 19 nodes and on 4 to 6 beyond; a graph
without such a pair is drawn anew. Source: arXiv 2406.11179, section 5.3, and its
released code, which has 2 to 4 and 4 to 5 there and draws one more.
"""

from functools import partial
from typing import Annotated, NamedTuple

import chex
import jax
import jax.numpy as jnp

from ired_jax import graphs
from ired_jax.fields import Field, Part
from ired_jax.tasks.base import Inference, Metric, Source, Task
from ired_jax.types import Array, Box, Example

INFERENCE = Inference(num_levels=4, num_steps=0, noise=True)
LARGE = 20  # nodes from which on goals are further away
DISTANCES, DISTANCES_LARGE = (2, 5), (4, 6)


class Problem(NamedTuple):
    """From where to where in which graph."""

    adjacency: Array  # [n, n] int8, [i, j] = 1: an edge from i to j
    start: Array  # () int32
    goal: Array  # () int32


def make_path(
    *,
    n: Annotated[int, Field("nodes of a graph", at_least=3)] = 15,
    n_harder: Annotated[int, Field("nodes of the harder set", at_least=3)] = 25,
    steps: Annotated[int, Field("times of an answer, the start's too", at_least=3)] = 8,
    inference: Annotated[Inference, Part(Inference, "eval")] = INFERENCE,
) -> Task:
    """Makes the task: x a `Problem`, y float32 [steps, n].

    Args:
      n, n_harder: nodes of training and `val`, and of `ood`.
      steps: rows of y; paths of up to steps - 1 edges can be said.
      inference: how answers are found.

    Raises:
      ValueError: fewer than three nodes or times.
    """
    if min(n, n_harder, steps) < 3:
        raise ValueError(f"n={n}, n_harder={n_harder}, steps={steps}: at least 3 each")

    def source(n: int) -> Source:
        return Source.fresh(
            partial(draw, n=n, steps=steps), partial(box_of, steps=steps)
        )

    train = source(n)
    return Task(
        train=train,
        splits={"val": train, "ood": source(n_harder)},
        metrics={
            "first_step": Metric(first_step_is_right, "high", "share of problems"),
            "path": Metric(path_is_right, "high", "share of problems"),
            "walk": Metric(walk_is_right, "high", "share of problems"),
        },
        primary="val/first_step",
        inference=inference,
        residual=wrong_times,
        corrupt=corrupt,
        round=lambda y: encode(decode(y), y.shape[-1]),
        solvers={
            "breadth-first search": partial(solve, steps=steps),
            "arbitrary edges": partial(any_edges, steps=steps),
        },
        fitted=(),
    )


def draw(key: Array, *, n: int, steps: int) -> Example:
    """A problem and one of its shortest paths, at each node a next one alike."""
    low, high = DISTANCES if n < LARGE else DISTANCES_LARGE
    high = min(high, n - 1, steps - 1)
    low, key_graph = min(low, high), jax.random.fold_in(key, 1)
    # Of one draw, for each call of random bits takes seconds to compile: how far to go,
    # which pair of nodes, and which next node.
    drawn = jax.random.uniform(key, (1 + n + steps - 1, n))
    length = low + jnp.floor((high + 1 - low) * drawn[0, 0]).astype(jnp.int32)

    def redraw(carry):
        number, *_ = carry
        key = jax.random.fold_in(key_graph, number)
        x = graphs.draw_neighbours(key, n=n, most=n // 2, directed=True)
        return number + 1, x, graphs.distances(x, high) == length

    none = jnp.zeros((n, n), jnp.int8), jnp.zeros((n, n), bool)
    _, adjacency, pairs = jax.lax.while_loop(
        lambda carry: ~carry[2].any(), redraw, (jnp.int32(0), *none)
    )
    score = jnp.where(pairs, drawn[1 : n + 1], -1.0)
    start, goal = jnp.divmod(jnp.argmax(score).astype(jnp.int32), n)
    x = Problem(adjacency, start, goal)
    return Example(x, _follow(x, drawn[n + 1 :]))


def _follow(x: Problem, preference: Array) -> Array:
    """One-hot rows of a shortest path: of equal next nodes the one preferred.

    preference: [steps - 1, n], 0 or more. A goal that is out of reach is never reached.
    """
    left = graphs.distances_to(x.adjacency, x.goal)

    def step(node, preference):
        is_next = (x.adjacency[node] != 0) & (left == left[node] - 1)
        there = jnp.argmax(jnp.where(is_next, preference, -1.0))
        node = jnp.where(is_next.any(), there, node)
        return node, node

    _, nodes = jax.lax.scan(step, x.start, preference)
    return encode(jnp.append(x.start, nodes), len(x.adjacency))


def solve(x: Problem, *, steps: int) -> Array:
    """A shortest path by breadth-first search, the first in order: [steps, n]."""
    return _follow(x, jnp.zeros((steps - 1, len(x.adjacency))))


def any_edges(x: Problem, *, steps: int) -> Array:
    """The first edge out of each node, whatever the goal: [steps, n]."""

    def step(node, _):
        node = jnp.where(node == x.goal, node, jnp.argmax(x.adjacency[node]))
        return node, node

    _, nodes = jax.lax.scan(step, x.start, length=steps - 1)
    return encode(jnp.append(x.start, nodes), len(x.adjacency))


def encode(nodes: Array, n: int) -> Array:
    """Node of each time [steps] -> one-hot in +-1, float32 [steps, n]."""
    return 2 * jax.nn.one_hot(nodes, n) - 1


def decode(y: Array) -> Array:
    """The likeliest node of each time: y [steps, n] -> [steps] int."""
    chex.assert_rank(y, 2)
    return jnp.argmax(y, axis=-1)


def walk(x: Problem, y: Array) -> Array:
    """The path that is read along edges: nodes [steps].

    From the start, each time the likeliest of the nodes to which an edge leads, until
    the goal. Where equal paths cross, rows by themselves may be of several of them.
    """
    chex.assert_shape(y, (None, len(x.adjacency)))

    def step(node, row):
        there = jnp.argmax(jnp.where(x.adjacency[node] != 0, row, -jnp.inf))
        node = jnp.where(node == x.goal, node, there)
        return node, node

    start = x.start.astype(int)
    return jnp.append(start, jax.lax.scan(step, start, y[1:])[1])


def box_of(x: Problem, *, steps: int) -> Box:
    """+-1; the first row is known."""
    known = encode(x.start[None], len(x.adjacency))
    rest = jnp.ones((steps - 1, len(x.adjacency)))
    return Box(jnp.concatenate([known, -rest]), jnp.concatenate([known, rest]))


def first_step_is_right(x: Problem, truth: Array, answer: Array) -> Array:
    """1 where the first step takes an edge and the way gets shorter: () float32."""
    del truth
    left, node = graphs.distances_to(x.adjacency, x.goal), decode(answer)[1]
    is_edge = x.adjacency[x.start, node] != 0
    return (is_edge & (left[node] == left[x.start] - 1)).astype(jnp.float32)


def path_is_right(x: Problem, truth: Array, answer: Array) -> Array:
    """1 where the nodes of all times are a shortest path that ends: () float32."""
    del truth
    return (wrong_times(x, answer) == 0).astype(jnp.float32)


def walk_is_right(x: Problem, truth: Array, answer: Array) -> Array:
    """1 where `walk` finds a shortest path: () float32."""
    del truth
    return (_wrong(x, walk(x, answer)) == 0).astype(jnp.float32)


def wrong_times(x: Problem, y: Array) -> Array:
    """How many times are wrong, without the truth: () float32, 0 where y is right.

    Right is the start at first, then an edge to a node from which the goal is one edge
    nearer, or staying there. A last node other than the goal counts as one more.
    """
    return _wrong(x, decode(y))


def _wrong(x: Problem, nodes: Array) -> Array:
    left = graphs.distances_to(x.adjacency, x.goal)
    here, there = nodes[:-1], nodes[1:]
    is_edge = x.adjacency[here, there] != 0
    is_nearer = is_edge & (left[there] == left[here] - 1)
    is_step = is_nearer | ((here == x.goal) & (there == x.goal))
    ends = (nodes[0] != x.start).astype(int) + (nodes[-1] != x.goal)
    return (jnp.sum(~is_step) + ends).astype(jnp.float32)


def corrupt(key: Array, x: Problem, y: Array, *, most: float = 0.5) -> Array:
    """y with other nodes at a share of its times, uniform in [0, most]: [steps, n].

    Always wrong: a path that happens to be as short is put off its goal. The first row
    stays.
    """
    steps, n = y.shape
    keys = jax.random.split(key, 4)
    score = jax.random.uniform(keys[0], (steps - 1,))
    share = jax.random.uniform(keys[1], maxval=most)
    is_wrong = jnp.append(False, (score < share) | (score == jnp.min(score)))
    nodes, shift = decode(y), jax.random.randint(keys[2], (steps,), 1, n)
    nodes = jnp.where(is_wrong, (nodes + shift) % n, nodes)
    away = (x.goal + jax.random.randint(keys[3], (), 1, n)) % n
    nodes = nodes.at[-1].set(jnp.where(_wrong(x, nodes) > 0, nodes[-1], away))
    return jnp.where((nodes == decode(y))[:, None], y, encode(nodes, n))
