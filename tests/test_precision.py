"""Products in each format against float64 ones of rounded operands, and their effect.

`u` is the unit roundoff of a format: 2^-8 for bfloat16, 2^-11 for tf32. Each test that
holds in float32 holds in a format within the multiple of u that it states.
"""

from functools import partial

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from ired_jax import precision, types
from ired_jax.energies import matrix, mlp
from ired_jax.precision import FORMATS, in_precision
from ired_jax.samplers import langevin
from ired_jax.types import Energy
from tests import references, toys

SIGMAS = 5
T = jnp.int32(3)
ROUNDED = ("tf32", "bfloat16")
PLAIN = tuple((name, False) for name in FORMATS)


def _quadratic():
    """E = |y W - x|^2 / 2 at params W: two products in E and its gradient."""

    def init(key):
        del key
        return jnp.eye(2)

    def energy_at(weight, x, y):
        return jnp.sum((y @ weight - x) ** 2) / 2

    def bind(weight, x, t):
        del t
        return Partial(energy_at, weight, x)

    def apply(weight, x, y, t):
        return bind(weight, x, t)(y)

    return Energy(init, apply, bind)


def _case(seed=0, rows=5, size=12):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, rows, size)).astype(np.float32)
    weight = rng.normal(size=(size, size)).astype(np.float32)
    return weight, x, y, T


def _assert_near(value, oracle, unrounded):
    """Equal to the oracle, which is not the unrounded value."""
    value, scale = np.float64(value), np.linalg.norm(oracle)
    assert np.linalg.norm(value - oracle) < 1e-6 * scale
    assert np.linalg.norm(unrounded - oracle) > 1e-5 * scale


def test_the_oracle_rounds_to_bfloat16():
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    expected = values.astype(ml_dtypes.bfloat16).astype(np.float64)
    np.testing.assert_array_equal(references.rounded(values, 7), expected)


@pytest.mark.parametrize(
    "name, part", [("tf32", "apply"), ("bfloat16", "bind"), ("bfloat16", "no bind")]
)
def test_value_and_gradients_are_those_of_products_of_rounded_operands(name, part):
    energy, (weight, x, y, t) = _quadratic(), _case()
    if part == "no bind":
        energy = Energy(energy.init, energy.apply)
    energy = in_precision(energy, name)

    def value_and_grad(weight, x, y):
        if part == "apply":
            return jax.value_and_grad(energy.apply, 2)(weight, x, y, t)
        return jax.value_and_grad(types.bind(energy, weight, x, t))(y)

    def loss(weight, x, y):
        return jnp.sum(value_and_grad(weight, x, y)[1] ** 2) / 2

    over = partial(jax.vmap, in_axes=(None, 0, 0))
    value, grad = toys.jit(over(value_and_grad))(weight, x, y)
    of_weight = toys.jit(over(jax.grad(loss)))(weight, x, y)
    bits = FORMATS[name].mantissa_bits
    for i in range(len(y)):
        expected = references.rounded_quadratic(weight, x[i], y[i], bits)
        unrounded = references.rounded_quadratic(weight, x[i], y[i], 40)
        for found, oracle, plain in zip(
            (value[i], grad[i], of_weight[i]), expected, unrounded, strict=True
        ):
            _assert_near(found, oracle, plain)


@pytest.mark.parametrize("name, adjusted", [*PLAIN, ("bfloat16", True)])
def test_a_chain_on_an_energy_with_products_has_its_exact_law_within_4_u(
    name, adjusted
):
    size, s = 10, 0.5
    orthogonal = np.linalg.qr(np.random.default_rng(0).normal(size=(size, size)))[0]
    weight, x = jnp.float32(orthogonal / s), jnp.zeros(size)  # U = |y|^2 / (2 s^2)
    energy = in_precision(_quadratic(), name)
    num_steps, h = (12, 0.6 * s**2) if adjusted else (5, 0.25 * s**2)
    start = s if adjusted else 3 * s

    def one(key):
        key_start, key_chain = jax.random.split(key)
        y = jnp.full(size, start)
        if adjusted:  # at rest from the start
            y = start * jax.random.normal(key_start, (size,))
        landscape = types.bind(energy, weight, x, T)
        options = {"step_size": h, "temperature": 1.0, "num_steps": num_steps}
        return langevin.sample(key_chain, landscape, y, adjusted=adjusted, **options)[0]

    y = np.float64(toys.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 20_000)))
    r = 1 - h / s**2
    mean = 0.0 if adjusted else r**num_steps * start
    variance = s**2 if adjusted else 2 * h * (1 - r ** (2 * num_steps)) / (1 - r**2)
    bias, count = 4 * FORMATS[name].unit_roundoff, y.size
    assert SIGMAS * np.sqrt(2 / count) + bias < 0.05
    assert abs(np.var(y) / variance - 1) < SIGMAS * np.sqrt(2 / count) + bias
    assert abs(np.mean(y) - mean) < SIGMAS * np.sqrt(variance / count) + bias * start


ENERGIES = {
    "mlp": lambda: mlp.make_mlp(9, 9, width=16),
    "matrix": lambda: matrix.make_matrix(channels=3, layers=2),
}


@pytest.mark.parametrize("which", ENERGIES)
def test_gradients_of_the_energies_are_within_8_u_of_float32(which):
    energy, rng = ENERGIES[which](), np.random.default_rng(0)
    shapes = jax.eval_shape(energy.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.float32(rng.normal(size=leaf.shape)), shapes)
    params = jax.tree.map(lambda leaf: leaf / len(leaf) ** 0.5, params)
    x, y = jnp.float32(rng.normal(size=(2, 9)))

    @toys.jit
    def gradients():
        """Of parameters and of y, each flat, of each format."""
        grads = {
            name: jax.grad(in_precision(energy, name), (0, 2))(params, x, y, T)
            for name in FORMATS
        }
        return {
            name: [ravel_pytree(g)[0] for g in both] for name, both in grads.items()
        }

    found = gradients()
    for name in ROUNDED:
        for one, other in zip(found[name], found["float32"], strict=True):
            error = np.linalg.norm(one - other) / np.linalg.norm(other)
            assert 0.1 < error / FORMATS[name].unit_roundoff < 8


def test_a_gradient_that_an_energy_brings_is_in_the_format_too():
    size = 9
    energy = mlp.make_mlp(size, size, width=16)
    params = energy.init(jax.random.key(0))
    x, y = jax.random.normal(jax.random.key(1), (2, size))
    exact = jax.grad(energy, 2)(params, x, y, T)
    for name in ROUNDED:
        landscape = in_precision(energy, name).bind(params, x, T)
        for grad in (landscape.grad(y), jax.grad(landscape)(y)):
            error = np.linalg.norm(grad - exact) / np.linalg.norm(exact)
            assert 0.1 < error / FORMATS[name].unit_roundoff < 8
        # Three layers forth and back and W W^T, each product of two rounded operands.
        steps = str(jax.make_jaxpr(landscape.grad)(y))
        assert steps.count("reduce_precision[") == 2 * 7


@pytest.mark.parametrize("name, unit", [("tf32", "HIGH, HIGH"), ("bfloat16", "bf16")])
def test_an_accelerator_is_told_the_unit_of_every_product(name, unit):
    """Lowered for a GPU, forward and backward; float32 is asked for as well."""
    arguments = _case(rows=1)
    for chosen, told in ((name, unit), ("float32", "HIGHEST, HIGHEST")):
        energy = in_precision(_quadratic(), chosen)
        grad = jax.jit(jax.vmap(jax.grad(energy, 2), (None, 0, 0, None)))
        text = grad.trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
        products = [line for line in text.splitlines() if "dot_general" in line]
        assert len(products) == 2
        assert all(told in line for line in products)


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match="precision='int8': allowed are float32, tf32"):
        in_precision(_quadratic(), "int8")


def test_what_cannot_be_rounded_is_refused():
    def apply(params, x, y, t):
        return jax.lax.scan(lambda y, _: (y @ params, None), y, length=2)[0].sum() + t

    def bind(params, x, t):
        return lambda y: apply(params, x, y, t)

    energy = in_precision(Energy(lambda key: None, apply, bind), "tf32")
    weight, x, y, t = _case(rows=1)
    with pytest.raises(NotImplementedError, match="scan: has a product inside"):
        energy(weight, x[0], y[0], t)
    with pytest.raises(TypeError, match="not a valid JAX type"):
        energy.bind(weight, x[0], t)


def test_products_of_other_types_stay_as_they_are():
    def product(form, a):
        return precision._run(FORMATS[form], lambda a: a @ a, a)

    a = jnp.full((2, 2), 257)
    np.testing.assert_array_equal(product("bfloat16", a), a @ a)
