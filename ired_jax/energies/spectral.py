"""Spectral normalisation: every weight matrix gets largest singular value 1.

    W / sigma(W),    sigma(W) = u^T W v = max_v |W v| / |v|

A linear layer is then a map that stretches no difference of its inputs, and how steep
an energy can become is set by its activations and gains, not by the size of W. A mix of
n x n maps, [features, c], acts on the c maps of each entry: the same holds. A kernel of
higher rank, a convolution's [.., in, out], counts as the matrix [.. in, out].

Source: Miyato et al., arXiv 1802.05957, eq. 9, algorithm 1 and section 3. There one
step of power iteration is taken a train step and u is kept; here `num_iterations` are
taken from a fixed start, so that the energy stays a pure function of its parameters.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ired_jax import types
from ired_jax.types import Array, Energy, EnergyFn, Params

FLOOR = 1e-12  # a matrix of zeros stays one, with a finite gradient


def normalise(energy: Energy, *, num_iterations: int = 20) -> Energy:
    """The energy at parameters whose every matrix W [m, n] is divided by sigma(W).

    Biases, and all else of rank below 2, are left as they are. `bind` does the
    work once, and it depends on the parameters alone: it is done once for all rows of
    a batch and outside the steps of a chain.

    Args:
      energy: any energy whose leaves of rank 2 or more are weights of linear layers.
      num_iterations: of the power iteration, at least 1. sigma comes from below: with
        20 to 2 % for a random 512 x 512 matrix, the hardest case.

    Returns:
      The energy, with the same parameters and initial values.

    Raises:
      ValueError: num_iterations < 1.
    """
    if num_iterations < 1:
        raise ValueError(f"num_iterations={num_iterations}: must be at least 1")

    def bind(params: Params, x: Array, t: Array) -> EnergyFn:
        return types.bind(energy, normalised(params, num_iterations), x, t)

    def apply(params: Params, x: Array, y: Array, t: Array) -> Array:
        return energy.apply(normalised(params, num_iterations), x, y, t)

    def of_normalised(function):
        def call(params: Params, *args):
            return function(normalised(params, num_iterations), *args)

        return function and call

    answering = energy.answering
    return Energy(
        energy.init,
        apply,
        bind,
        propose=of_normalised(energy.propose),
        rounds=energy.rounds,
        answering=answering and normalise(answering, num_iterations=num_iterations),
        denoise=of_normalised(energy.denoise),
        score=of_normalised(energy.score),
    )


def normalised(params: Params, num_iterations: int) -> Params:
    """Every kernel over its largest singular value, the other leaves unchanged."""
    leaves, structure = jax.tree.flatten(params)
    weights = [leaf.reshape(-1, leaf.shape[-1]) for leaf in leaves if leaf.ndim >= 2]
    sigmas = iter(spectral_norms(weights, num_iterations))
    leaves = [
        leaf / jnp.maximum(next(sigmas), FLOOR) if leaf.ndim >= 2 else leaf
        for leaf in leaves
    ]
    return jax.tree.unflatten(structure, leaves)


def spectral_norms(weights: list[Array], num_iterations: int) -> list[Array]:
    """The largest singular value of each W [m, n]: ().

    v <- unit(W^T unit(W v)), then u = unit(W v), sigma = u^T W v. u and v are held:
    where they have converged, d sigma = u^T dW v is exact.
    """
    held = jax.lax.stop_gradient(weights)
    start = held, [_start(w) for w in held]
    # One loop for all matrices: one a matrix would be most of the compilation.
    _, vs = jax.lax.fori_loop(0, num_iterations, _iterate, start)
    us = [_unit(w @ v) for w, v in zip(held, vs, strict=True)]
    return [u @ w @ v for u, w, v in zip(us, weights, vs, strict=True)]


def _iterate(_, carry: tuple[list[Array], list[Array]]):
    """One step of every matrix: (W, v) -> (W, unit(W^T unit(W v)))."""
    weights, vs = carry
    us = [_unit(w @ v) for w, v in zip(weights, vs, strict=True)]
    return weights, [_unit(w.T @ u) for w, u in zip(weights, us, strict=True)]


def _start(weight: Array) -> Array:
    """A fixed vector [n] that no structure of W is likely to be orthogonal to."""
    draw = np.random.default_rng(0).normal(size=weight.shape[1])
    return jnp.asarray(draw, weight.dtype)


def _unit(vector: Array) -> Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector), FLOOR)
