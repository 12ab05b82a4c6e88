"""An energy on matrices of low rank, of which a part is seen; for every n and m.

    E = sum over unseen elements (y - a_t F(x))^2 / (2 s_t)

F averages answers c u v^T of `starts` pairs of factors u [k, n], v [k, m] that take
turns: given v, the rows of u solve ridge regressions on what is seen, and then v given
u. With s the learned size of the noise and c that of the signal (what is seen is of
size c^2 k / g + s^2, g learned),

    A_i = I + (c / s)^2 sum_j seen_ij v_j v_j^T
    u_i = A_i^-1 (c / s^2) sum_j x_ij v_j + tau A_i^(-1/2) xi_i

tau, learned too, is how far factors stray from their regressions: 0 is alternating
least squares, 1 is Gibbs sampling of the model with that noise. Later rounds count
more, as r^p, p learned. So four numbers are learned, of which s decides how much is
believed in matrices larger than those of the training. The noise xi_i of a row is drawn
from a key that its own values make: F is a function of x alone, and what permutes rows
and columns of x permutes F. F does not look at y: the denoised answer is F.

Source: this project; the regressions as in Salakhutdinov, Mnih, ICML 2008; weights of
rounds as in Shamir, Zhang, arXiv 1212.1824.
"""

from collections.abc import Callable
from typing import Annotated

import chex
import jax
import jax.numpy as jnp

from ired_jax.diffusion import Schedule
from ired_jax.energies.aimed import Answering, around
from ired_jax.energies.modules import refuse_below_one
from ired_jax.fields import Field, Part
from ired_jax.types import Array, Box, Energy, Params

START = {"noise": 0.05, "gain": 1.0, "stray": 0.5, "late": 1.0}  # of what is learned
ANSWERING = Answering()
LEAST = 1e-3  # of the signal's share in the size of what is seen


def make_factors(
    schedule: Schedule,
    box: Callable[[Array], Box],
    *,
    factors: Annotated[int, Field("columns of u and v, k", at_least=1)] = 10,
    starts: Annotated[int, Field("pairs u, v that are averaged", at_least=1)] = 8,
    rounds: Annotated[int, Field("times that u and v are found", at_least=1)] = 16,
    answering: Annotated[Answering, Part(Answering)] = ANSWERING,
) -> Energy:
    """Makes the energy: x [2, n, m] values and mask, y [n, m], t () -> (). E >= 0.

    Raises:
      ValueError: a size below 1.
    """
    refuse_below_one(factors=factors, starts=starts)

    def init(key: Array) -> Params:
        shifts = 0.1 * jax.random.normal(key, (len(START),))
        pairs = zip(START.items(), shifts, strict=True)
        return {name: jnp.log(first) + shift for (name, first), shift in pairs}

    def answers(params: Params, x: Array, y: Array, t: Array, rounds: int) -> Array:
        chex.assert_shape(x, (2, *y.shape))
        chex.assert_rank([y, t], [2, 0])
        noise, gain, stray, late = (jnp.exp(params[name]) for name in START)
        values, seen = x
        size = jnp.sum(values**2) / jnp.maximum(jnp.sum(seen), 1)
        signal = jnp.maximum(size - noise**2, LEAST * size + 1e-12)
        scale = jnp.sqrt(gain * signal / factors)
        row_keys, column_keys = keys_of(values, 1), keys_of(values.T, 2)

        def turn(v, values, seen, keys, index):
            xi = stray * normals(keys, index, (starts, factors))
            pair = jax.vmap(regressed, in_axes=(0, None, None, 0, None, None))
            return pair(v, values, seen, xi, scale, noise)

        @jax.checkpoint
        def step(carry, index):
            v, mean = carry
            u, exact = turn(v, values, seen, row_keys, 2 * index)
            found = scale * jnp.einsum("hki,hkj->ij", exact, v) / starts
            v, _ = turn(u, values.T, seen.T, column_keys, 2 * index + 1)
            share = (1 + late) / (1 + late + index)
            mean = mean + share * (found - mean)
            return (v, mean), mean

        v = normals(column_keys, 0, (starts, factors))
        first = v, jnp.zeros_like(values)
        return jax.lax.scan(step, first, jnp.arange(rounds))[1]

    return around(schedule, box, init, answers, rounds, answering)


def regressed(
    v: Array, values: Array, seen: Array, xi: Array, scale: Array, noise: Array
) -> tuple[Array, Array]:
    """u [k, n] given v [k, m], with the noise xi [k, n] and without.

    Every row is a regression of its own on what is seen of it, values [n, m].
    """
    pairs = v[:, None] * v[None]
    ratio = (scale / noise) ** 2
    a = jnp.eye(len(v))[..., None] + ratio * jnp.einsum("klj,ij->kli", pairs, seen)
    b = scale / noise**2 * jnp.einsum("kj,ij->ki", v, seen * values)
    return solved(a, b, xi)


def solved(a: Array, b: Array, xi: Array) -> tuple[Array, Array]:
    """(A^-1 b + A^(-1/2) xi, A^-1 b) for many A [k, k, n], positive definite: [k, n].

    A = L D L^T, and A^(-1/2) is L^-T D^(-1/2). Not by LAPACK, which takes one matrix
    after the other, and of which two calls in one program may wait for each other; and
    in loops, which XLA compiles in seconds: pivots written out take it minutes.
    """
    size = len(a)

    def eliminate(rows, pivot):
        row = rows[pivot]
        below = jnp.arange(size) > pivot
        weight = jnp.where(below[:, None], rows[:, pivot] / row[pivot][None], 0)
        return rows - weight[:, None] * row[None], None

    rows = jnp.concatenate([a, b[:, None]], axis=1)
    rows, _ = jax.lax.scan(eliminate, rows, jnp.arange(size - 1))
    upper, b = rows[:, :size], rows[:, size]
    pivots = upper[jnp.arange(size), jnp.arange(size)]
    right = jnp.stack([b + jnp.sqrt(pivots) * xi, b])

    def substitute(found, pivot):
        rest = right[:, pivot] - jnp.sum(upper[pivot][None] * found, axis=1)
        return found.at[:, pivot].set(rest / pivots[pivot][None]), None

    found = jnp.zeros_like(right)
    found, _ = jax.lax.scan(substitute, found, jnp.arange(size)[::-1])
    return found[0], found[1]


def keys_of(values: Array, salt: int) -> Array:
    """A key for every row of values [n, m], made of its values in any order: [n]."""
    values = jnp.where(values == 0, 0, values).astype(jnp.float32)  # -0 is 0
    bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0x9E3779B1)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0x85EBCA6B)
    sums = jnp.sum(bits, axis=1, dtype=jnp.uint32)
    return jax.vmap(lambda s: jax.random.fold_in(jax.random.key(salt), s))(sums)


def normals(keys: Array, index: Array | int, shape: tuple[int, int]) -> Array:
    """Standard normal [*shape, n]: draw number `index` of the keys [n]."""

    def of_row(key):
        return jax.random.normal(jax.random.fold_in(key, index), shape)

    return jax.vmap(of_row, out_axes=-1)(keys)
