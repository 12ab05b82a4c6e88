"""Spectral normalisation: the singular value, its gradient, its effect, its cost.

Value and gradients of a normalised energy are a row of the table in test_energies.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from ired_jax import types
from ired_jax.energies import matrix, mlp, spectral
from ired_jax.samplers import langevin
from ired_jax.types import Energy
from tests import toys
from tests.mutants import Mutant, one

SHAPES = [(7, 5), (5, 7), (6, 6), (1, 9), (9, 1), (1, 1)]


def _matrices(scale=1.0):
    rng = np.random.default_rng(0)
    return [np.float32(scale * rng.normal(size=shape)) for shape in SHAPES]


def _singular_values(array):
    return np.linalg.svd(np.float64(array), compute_uv=False)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_power_iteration_finds_the_largest_singular_value(scale):
    matrices = _matrices(scale)
    sigmas = toys.jit(partial(spectral.spectral_norms, num_iterations=300))(matrices)
    for sigma, array in zip(sigmas, matrices, strict=True):
        np.testing.assert_allclose(sigma, _singular_values(array)[0], rtol=1e-5)


def test_the_default_number_of_steps_is_two_per_cent_below_at_the_hardest_size():
    """Above it never: |W v| <= sigma |v| for every v."""
    rng = np.random.default_rng(1)
    array = np.float32(rng.uniform(-1, 1, size=(512, 512)))
    (sigma,) = toys.jit(partial(spectral.spectral_norms, num_iterations=20))([array])
    ratio = sigma / _singular_values(array)[0]
    assert 0.98 < ratio < 1 + 1e-5


def test_the_gradient_of_the_singular_value_is_that_of_finite_differences():
    rng = np.random.default_rng(2)

    def total(arrays):
        return sum(spectral.spectral_norms(arrays, 300))

    grads = toys.jit(jax.grad(total))(_matrices())
    for array, grad in zip(_matrices(), grads, strict=True):
        direction, step = rng.normal(size=array.shape), 1e-6
        ahead, behind = (
            _singular_values(np.float64(array) + sign * step * direction)[0]
            for sign in (1, -1)
        )
        slope = (ahead - behind) / (2 * step)
        assert abs(np.sum(grad * direction) - slope) < 1e-4 * np.linalg.norm(direction)


def _network() -> Energy:
    """w . tanh(W tanh(V y)): its slope in y is at most |w| |W| |V|."""
    shapes = {"v": (5, 4), "w": (6, 5), "out": (1, 6)}

    def init(key):
        return {
            name: jax.random.normal(jax.random.fold_in(key, i), shape)
            for i, (name, shape) in enumerate(shapes.items())
        } | {"bias": 3 * jnp.ones(5)}

    def apply(params, x, y, t):
        h = jnp.tanh(params["v"] @ y + params["bias"] * x)
        return (params["out"] @ jnp.tanh(params["w"] @ h))[0]

    return Energy(init, apply, lambda params, x, t: lambda y: apply(params, x, y, t))


def test_a_normalised_network_stretches_no_difference_whatever_its_weights():
    energy = _network()
    normalised = spectral.normalise(energy, num_iterations=100)
    y = np.float32(0.3 * np.random.default_rng(3).normal(size=(512, 4)))
    params = jax.tree.map(np.asarray, toys.jit(energy.init)(jax.random.key(0)))
    large = {k: 10 * w if w.ndim == 2 else w for k, w in params.items()}

    @toys.jit
    def steepest(params):
        rows = partial(jax.vmap, in_axes=(None, None, 0, None))
        return [
            jnp.max(jnp.linalg.norm(rows(jax.grad(e, 2))(params, 0.0, y, 0), axis=1))
            for e in (energy, normalised)
        ]

    plain, bounded = steepest(params)
    assert plain > 2
    assert 0.05 < bounded <= 1
    # The size of the weights does not matter; biases are left as they are.
    np.testing.assert_allclose(steepest(large)[1], bounded, rtol=1e-4)
    kept = toys.jit(partial(spectral.normalised, num_iterations=3))(params)["bias"]
    np.testing.assert_array_equal(kept, params["bias"])


ENERGIES = (
    mlp.make_mlp(4, 4, width=8),
    matrix.make_matrix(channels=3, layers=1, answer_layers=1),
)


@pytest.mark.parametrize("energy", ENERGIES, ids=["mlp", "matrix"])
def test_every_weight_matrix_of_an_energy_is_normalised(energy):
    params = toys.drawn_params(energy, seed=4)
    after = toys.jit(partial(spectral.normalised, num_iterations=100))(params)
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(after), strict=True)
    for old, new in pairs:
        if old.ndim == 2:
            np.testing.assert_allclose(_singular_values(new)[0], 1, rtol=0.02)
        else:
            np.testing.assert_array_equal(new, old)


def test_a_matrix_of_zeros_stays_one_and_its_gradient_is_finite():
    def total(params):
        return jnp.sum(spectral.normalised(params, 3)["w"])

    zero = {"w": np.zeros((3, 2), np.float32)}
    value, grad = toys.jit(jax.value_and_grad(total))(zero)
    assert value == 0
    assert np.all(np.isfinite(grad["w"]))


NUM_ITERATIONS, NUM_STEPS = 11, 7


def _chains(energy):
    """Langevin chains of a batch, as the negative phase runs them."""

    def chain(params, key, x, y):
        energy_fn = types.bind(energy, params, x, jnp.int32(0))
        return langevin.sample(
            key, energy_fn, y, step_size=0.1, temperature=1.0, num_steps=NUM_STEPS
        )[0]

    return jax.vmap(chain, (None, 0, 0, 0))


def _inputs(energy, num_rows):
    x = jax.ShapeDtypeStruct((num_rows,), jnp.float32)
    y = jax.ShapeDtypeStruct((num_rows, 4), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    keys = jax.ShapeDtypeStruct((num_rows,), key.dtype)
    return jax.eval_shape(energy.init, key), keys, x, y


def _loops(jaxpr, depth=0):
    """(steps, depth in other loops, shapes that come out) of every scan."""
    for equation in jaxpr.eqns:
        is_scan = equation.primitive.name == "scan"
        if is_scan:
            shapes = [variable.aval.shape for variable in equation.outvars]
            yield equation.params["length"], depth, shapes
        for inner in jaxprs_in_params(equation.params):
            yield from _loops(inner, depth + is_scan)


def test_the_iteration_is_done_once_for_all_rows_and_outside_the_chain():
    energy = spectral.normalise(_network(), num_iterations=NUM_ITERATIONS)
    inputs = _inputs(energy, 5)
    alone = partial(spectral.normalised, num_iterations=NUM_ITERATIONS)
    (expected,) = _loops(jax.make_jaxpr(alone)(inputs[0]).jaxpr)
    assert expected[:2] == (NUM_ITERATIONS, 0)
    loops = list(_loops(jax.make_jaxpr(_chains(energy))(*inputs).jaxpr))
    # One loop, in no other, and none of its shapes has an axis of rows.
    assert [loop for loop in loops if loop[0] == NUM_ITERATIONS] == [expected]
    assert [depth for steps, depth, _ in loops if steps == NUM_STEPS] == [0]


def test_no_iteration_is_refused():
    with pytest.raises(ValueError, match="num_iterations=0: must be at least 1"):
        spectral.normalise(mlp.make_mlp(4, 4), num_iterations=0)


def test_an_energy_without_bind_is_normalised_when_it_is_bound():
    whole = mlp.make_mlp(3, 2, width=4)
    energy = spectral.normalise(Energy(whole.init, whole.apply))
    params = toys.jit(whole.init)(jax.random.key(0))

    @toys.jit
    def values(x, y, t):
        bound = types.bind(energy, params, x, t)(y)
        return bound, energy(params, x, y, t), whole(params, x, y, t)

    bound, applied, plain = values(np.ones(3), np.ones(2), np.int32(1))
    np.testing.assert_allclose(bound, applied, rtol=1e-5)
    assert abs(bound / plain - 1) > 0.01


def test_a_convolution_s_kernel_is_normalised_as_the_matrix_of_all_its_inputs():
    """[3, 3, in, out] as [9 in, out]: its largest singular value becomes 1."""
    rng = np.random.default_rng(4)
    kernel = np.float32(rng.normal(size=(3, 3, 4, 5)))
    params = {"kernel": kernel, "bias": np.float32(range(5)), "gain": np.float32(2)}
    result = toys.jit(partial(spectral.normalised, num_iterations=300))(params)
    matrix = np.asarray(result["kernel"]).reshape(-1, 5)
    assert _singular_values(matrix)[0] == pytest.approx(1, rel=1e-5)
    ratio = np.asarray(result["kernel"]) / np.asarray(kernel)
    np.testing.assert_allclose(ratio, ratio.flat[0], rtol=1e-5)
    np.testing.assert_array_equal(result["bias"], params["bias"])
    assert float(result["gain"]) == 2.0


MUTANTS = [
    Mutant(
        "energies",
        "a weight matrix divided by its Frobenius norm",
        "ired_jax.energies.spectral",
        one("leaf / jnp.maximum(next(sigmas), FLOOR)", "leaf / jnp.linalg.norm(leaf)"),
        test_every_weight_matrix_of_an_energy_is_normalised,
        {"energy": ENERGIES[0]},
    ),
    Mutant(
        "energies",
        "a weight matrix divided by the square of its singular value",
        "ired_jax.energies.spectral",
        one(
            "jnp.maximum(next(sigmas), FLOOR)", "jnp.maximum(next(sigmas) ** 2, FLOOR)"
        ),
        test_every_weight_matrix_of_an_energy_is_normalised,
        {"energy": ENERGIES[0]},
    ),
    Mutant(
        "energies",
        "no gradient through the singular value",
        "ired_jax.energies.spectral",
        one("zip(us, weights, vs, strict=True)", "zip(us, held, vs, strict=True)"),
        test_the_gradient_of_the_singular_value_is_that_of_finite_differences,
    ),
    Mutant(
        "energies",
        "the power iteration done again at every step of a chain",
        "ired_jax.energies.spectral",
        one(
            "return types.bind(energy, normalised(params, num_iterations), x, t)",
            "return lambda y: apply(params, x, y, t)",
        ),
        test_the_iteration_is_done_once_for_all_rows_and_outside_the_chain,
    ),
    Mutant(
        "energies",
        "kernels of higher rank are left as they are",
        "ired_jax.energies.spectral",
        one(
            "leaf.ndim >= 2 else leaf\n        for",
            "leaf.ndim == 2 else leaf\n        for",
        ),
        test_a_convolution_s_kernel_is_normalised_as_the_matrix_of_all_its_inputs,
    ),
]
