"""One suite over a table of energies: a new energy is a new row."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from ired_jax import types
from ired_jax.energies import matrix, mlp, spectral
from tests import references, toys
from tests.mutants import Mutant, one

N = 3  # matrices of the small cases
D = N * N


class Row(NamedTuple):
    """What the suite needs to know of an energy."""

    name: str
    make: Callable  # n -> Energy for n x n matrices
    oracle: Callable  # (params, x, y [N, D], t) -> [N], float64 or complex
    num_parameters: dict[int, int]  # n -> count at the sizes of record
    fan_in: Callable  # (n, layer's name) -> fan in of its weights and biases
    is_positive: bool  # E >= 0 everywhere
    is_uniform: bool  # starts uniform in +-1 / sqrt(fan in)


def _mlp_row(head, num_parameters):
    def fan_in(n, layer, width=512):
        first = {"fc1_x": 2 * n * n, "fc1_y": 2 * n * n}
        return (first | {"fc2": width, "fc3": width, "fc4": width}).get(layer, 128)

    return Row(
        name=f"mlp {head}",
        make=lambda n: mlp.make_mlp(n * n, n * n, head=head),
        oracle=partial(references.mlp_energy, is_scalar=head == "scalar"),
        num_parameters={20: num_parameters},
        fan_in=fan_in,
        is_positive=head == "squared_norm",
        is_uniform=True,
    )


def _table_row(width=16):
    """All levels computed at once, a row's own taken; a gradient of its own."""
    row = _mlp_row("squared_norm", _mlp_count(400, width))

    def make(n):
        return mlp.make_mlp(n * n, n * n, width=width, num_levels=10)

    return row._replace(
        name="mlp with a table of levels",
        make=make,
        fan_in=partial(row.fan_in, width=width),
    )


def _spectral_row(width=16):
    """Small matrices, and steps enough that sigma is exact."""
    plain = _mlp_row("squared_norm", None)

    def oracle(params, *args, **kwargs):
        return plain.oracle(references.spectrally_normalised(params), *args, **kwargs)

    def make(n):
        energy = mlp.make_mlp(n * n, n * n, width=width)
        return spectral.normalise(energy, num_iterations=300)

    return plain._replace(
        name="mlp spectrally normalised",
        make=make,
        oracle=oracle,
        num_parameters={20: _mlp_count(400, width)},
        fan_in=partial(plain.fan_in, width=width),
    )


def _matrix_row(reach, answer_layers=0):
    channels, layers, outputs = (12, 7, 2) if answer_layers == 0 else (3, 1, 2)
    mixed = channels + 3  # the maps, and A, A^T, I
    count = 3 * channels + layers * (2 * mixed + channels) * channels
    count += 3 * mixed * outputs + 33 * 32 + 33 * 2 * outputs
    count += 2 * 2 * outputs if reach == "products" else 0
    count += answer_layers * 4 * (mixed + 2 * outputs + 2 * outputs)
    return Row(
        name=f"matrix {reach}" + f" answer {answer_layers}" * (answer_layers > 0),
        make=lambda n: matrix.make_matrix(
            channels=channels,
            layers=layers,
            outputs=outputs,
            reach=reach,
            answer_layers=answer_layers,
        ),
        oracle=partial(references.matrix_energy, is_direct=reach == "direct"),
        num_parameters=dict.fromkeys((2, 10, 20), count),
        fan_in=lambda n, layer: mixed,
        is_positive=True,
        is_uniform=False,
    )


def _mlp_count(outputs, width=512, inputs=800, time=128):
    layers = [(time, time), (time, time), (inputs, width), (width, width)]
    layers += [(width, width), (time, 2 * width), (time, 2 * width), (width, outputs)]
    return sum(fan_in * features + features for fan_in, features in layers)


ANSWER_ROW = _matrix_row("products", answer_layers=2)
TABLE_ROW = _table_row()
ENERGIES = [
    _mlp_row("squared_norm", _mlp_count(400)),
    _mlp_row("scalar", _mlp_count(1)),
    _matrix_row("products"),
    _matrix_row("direct"),
]
# Variants of these: what differs is their mathematics, and that is what they run.
VARIANTS = [ANSWER_ROW, _spectral_row(), TABLE_ROW]
energies = pytest.mark.parametrize("row", ENERGIES, ids=lambda row: row.name)
and_variants = pytest.mark.parametrize(
    "row", ENERGIES + VARIANTS, ids=lambda row: row.name
)


def _case(row, n=N, num_rows=4):
    """The energy, parameters drawn like the initial ones, and rows x, y, t."""
    energy, rng = row.make(n), np.random.default_rng(0)

    def draw(path, leaf):
        limit = row.fan_in(n, path[0].key) ** -0.5
        return jnp.float32(rng.uniform(-limit, limit, size=leaf.shape))

    shapes = jax.eval_shape(energy.init, jax.random.key(0))
    params = jax.tree_util.tree_map_with_path(draw, shapes)
    x, y = jnp.float32(rng.normal(size=(2, num_rows, n * n)))
    t = jnp.int32(rng.permutation(10)[:num_rows])
    return energy, params, x, y, t


def _oracle(row, params, x, y, t):
    """y [D] -> value (), and the gradient by complex steps."""
    value = partial(row.oracle, references.float64(params), np.float64(x), t=int(t))
    y = np.float64(y)
    return value(y=y[None])[0], references.input_gradient(lambda z: value(y=z), y)


def _relative(difference, reference):
    return np.linalg.norm(difference) / np.linalg.norm(reference)


@and_variants
def test_the_number_of_parameters_is_that_of_the_layers(row):
    for n, count in row.num_parameters.items():
        params = jax.eval_shape(row.make(n).init, jax.random.key(0))
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def test_the_reference_network_has_the_published_numbers_of_parameters():
    assert ENERGIES[0].num_parameters == {20: 1_437_840}
    assert ENERGIES[1].num_parameters == {20: 1_233_153}


@and_variants
def test_value_and_input_gradient_equal_the_float64_oracle(row):
    energy, params, x, y, t = _case(row)
    both = toys.jit(jax.vmap(jax.value_and_grad(energy, 2), (None, 0, 0, 0)))
    values, grads = both(params, x, y, t)
    chex.assert_shape(values, (4,))
    for i in range(4):
        value, grad = _oracle(row, params, x[i], y[i], t[i])
        # A scalar head crosses 0: compare with the scale of its terms, which is 1.
        assert abs(values[i] - value) < 1e-5 * max(1, abs(value))
        assert _relative(grads[i] - grad, grad) < 2e-5


@energies
def test_the_energy_depends_on_condition_answer_and_level(row):
    energy, params, x, y, t = _case(row)
    values = toys.jit(jax.vmap(energy, (None, 0, 0, 0)))(
        params,
        x[jnp.array([0, 1, 0, 0])],
        y[jnp.array([0, 0, 1, 0])],
        t[jnp.array([0, 0, 0, 1])],
    )
    assert np.min(np.abs(values[1:] - values[0])) > 1e-4


@and_variants
def test_the_parameter_gradient_equals_the_oracle_along_a_line(row):
    energy, params, x, y, t = _case(row)
    grad = toys.jit(jax.grad(energy))(params, x[0], y[0], t[0])
    flat, unravel = ravel_pytree(params)
    direction = np.random.default_rng(1).normal(size=flat.size) / np.sqrt(flat.size)
    step = 1e-30
    shift = unravel(jnp.float32(direction))
    moved = jax.tree.map(
        lambda p, d: np.float64(p) + 1j * step * np.float64(d), params, shift
    )
    value = row.oracle(moved, np.float64(x[0]), np.float64(y[:1]), int(t[0]))
    slope = np.imag(value[0]) / step
    pairs = jax.tree.map(
        lambda g, d: np.sum(np.float64(g) * np.float64(d)), grad, shift
    )
    assert abs(sum(jax.tree.leaves(pairs)) - slope) < 2e-5 * max(1, abs(slope))


@and_variants
def test_binding_condition_and_level_changes_nothing(row):
    energy, params, x, y, t = _case(row)

    @toys.jit
    @jax.vmap
    def both(x, y, t):
        whole = jax.value_and_grad(energy, 2)(params, x, y, t)
        landscape = energy.bind(params, x, t)
        bound = jax.value_and_grad(landscape)(y)
        plain = types.bind(energy.apply, params, x, t)(y)
        at = types.Landscape(energy, params, x).at(t)(y)
        others = plain, at, types.Landscape(energy, params, x)(y, t)
        return whole, bound, others, types.gradient(landscape)(y)

    (value, grad), (bound_value, bound_grad), others, own_grad = both(x, y, t)
    for other in (bound_value, *others):
        np.testing.assert_allclose(other, value, rtol=1e-5, atol=1e-6)
    for other in (bound_grad, own_grad):
        assert _relative(other - grad, grad) < 1e-5


@pytest.mark.parametrize("row", [ENERGIES[0], TABLE_ROW], ids=["none", "its own"])
def test_a_scaled_landscape_s_value_and_gradient_are_divided(row):
    energy, params, x, y, t = _case(row, num_rows=1)
    landscape = energy.bind(params, x[0], t[0])
    assert hasattr(landscape, "grad") == (row is TABLE_ROW)
    in_nats = types.scaled(landscape, 0.25)
    np.testing.assert_array_equal(in_nats(y[0]), 4 * landscape(y[0]))
    grad = jax.grad(landscape)(y[0])
    for found in (jax.grad(in_nats)(y[0]), types.gradient(in_nats)(y[0])):
        np.testing.assert_allclose(found, 4 * grad, rtol=1e-5, atol=1e-7)


def test_a_gradient_of_its_own_is_as_exact_near_a_minimum():
    energy, params, x, y, t = _case(TABLE_ROW)
    # The bias that makes E = 0 at the first row: |W h + b|^2 of small W h + b.
    last = params["fc4"]
    network = mlp.MLP(D, D, 16, "squared_norm", 10)
    condition = network.apply({"params": params}, x[0], t[0], method="condition")
    h = network.apply({"params": params}, condition, y[0], method="hidden")
    params = params | {"fc4": last | {"bias": -(h @ last["kernel"])}}
    landscape = energy.bind(params, x[0], t[0])
    errors = []
    for offset in np.random.default_rng(1).normal(size=(8, D)) * 1e-2:
        near = y[0] + jnp.float32(offset)
        _, grad = _oracle(TABLE_ROW, params, x[0], near, t[0])
        both = types.gradient(landscape)(near), jax.grad(landscape)(near)
        errors.append([_relative(found - grad, grad) for found in both])
    own, by_energy = np.sqrt(np.mean(np.square(errors), axis=0))
    assert 1e-6 < own < 2 * by_energy


@energies
def test_a_row_has_the_same_gradient_in_every_batch(row):
    energy, params, x, y, t = _case(row, n=20, num_rows=8)
    batch_grad = jax.vmap(jax.grad(energy, 2), (None, 0, 0, 0))
    first = None
    for size in (1, 256, 2048):
        # Rows of their own kind around the first, at levels of their own.
        order = np.arange(size) % 8
        grads = toys.jit(batch_grad)(params, x[order], y[order], t[order])
        first = grads[0] if first is None else first
        # Matrix products of other shapes sum in another order: the last bits differ.
        assert _relative(grads[0] - first, first) < 1e-5


@energies
def test_initial_parameters_fill_plus_minus_one_over_root_fan_in(row):
    if not row.is_uniform:
        return  # declared in the table; its own test is below
    n = 8
    params = toys.jit(row.make(n).init)(jax.random.key(1))
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        limit = row.fan_in(n, path[0].key) ** -0.5
        values = np.float64(leaf).ravel() / limit
        assert np.max(np.abs(values)) <= 1 + 1e-6
        # Uniform on +-1: mean 0, variance 1/3; squares have variance 4/45.
        assert abs(np.mean(values)) < 5 * np.sqrt(1 / 3 / values.size)
        if values.size > 1:
            assert abs(np.mean(values**2) - 1 / 3) < 5 * np.sqrt(4 / 45 / values.size)


@energies
def test_initial_parameters_are_set_by_the_key(row):
    init = toys.jit(row.make(N).init)
    first, again, other = (init(jax.random.key(seed)) for seed in (0, 0, 1))
    chex.assert_trees_all_equal(first, again)
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True)
    drawn = [(a, b) for a, b in pairs if np.any(a)]  # a bias may start at 0
    assert len(drawn) > 0.8 * len(jax.tree.leaves(first))
    for a, b in drawn:
        assert np.mean(a == b) < 0.01
    # No two layers start alike.
    heads = [tuple(np.ravel(a)[:1].tolist()) for a, _ in drawn]
    assert len(set(heads)) == len(heads)


@energies
def test_a_declared_sign_holds_far_from_the_data(row):
    energy, params, x, y, t = _case(row)
    values = toys.jit(jax.vmap(energy, (None, 0, 0, 0)))(params, x, 100 * y, t)
    assert np.all(np.isfinite(values))
    if row.is_positive:
        assert np.all(values >= 0)


@energies
def test_shapes_that_would_broadcast_are_refused(row):
    energy, params, x, y, t = _case(row)
    x, y, t = x[0], y[0], t[0]
    for bad in ((x[:-1], y, t), (x, y[:-1], t), (x, y, t[None]), (x[None], y, t)):
        with pytest.raises((AssertionError, ValueError)):
            energy(params, *bad)
        with pytest.raises((AssertionError, ValueError)):
            energy.bind(params, bad[0], bad[2])(bad[1])


@pytest.mark.parametrize(
    "bad",
    [{"x_size": 0}, {"y_size": 0}, {"width": 0}, {"y_size": -1}, {"head": "vector"}],
    ids=str,
)
def test_the_reference_network_refuses_bad_sizes_and_heads_by_name(bad):
    (field,) = bad
    with pytest.raises(ValueError, match=f"{field}="):
        mlp.make_mlp(**{"x_size": 4, "y_size": 4} | bad)


@pytest.mark.parametrize(
    "reach, layers", [("products", 0), ("direct", 0), ("direct", 1)]
)
def test_the_matrix_energy_is_the_same_in_every_order_of_rows_and_columns(
    reach, layers
):
    """E(P A P^T, P Y P^T, t) = E(A, Y, t), with A and Y of no symmetry."""
    n, rng = 6, np.random.default_rng(3)
    energy, params, *_ = _case(_matrix_row(reach, layers), n=n)
    a, y = jnp.float32(rng.normal(size=(2, n, n)))
    order = rng.permutation(n)
    energy_of = toys.jit(
        lambda a, y: energy(params, a.ravel(), y.ravel(), jnp.int32(4))
    )
    value, permuted = energy_of(a, y), energy_of(a[order][:, order], y[order][:, order])
    np.testing.assert_allclose(permuted, value, rtol=1e-4)
    wrong = energy_of(a[order][:, order], y)
    assert abs(wrong - value) > 1e-3 * abs(value)


@pytest.mark.parametrize("layers", [0, 1])
def test_products_in_the_answer_and_nothing_else_make_a_second_minimum(layers):
    """At n = 1 and one output E is O^2, or (p O + q O^2)^2: quartic, two minima."""
    energy = matrix.make_matrix(channels=3, layers=1, outputs=1, answer_layers=layers)
    rng = np.random.default_rng(5)
    shapes = jax.eval_shape(energy.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.float32(rng.normal(size=leaf.shape)), shapes)
    energy_fn = energy.bind(params, jnp.ones(1), jnp.int32(4))
    y = jnp.linspace(-20, 20, 4001)[:, None]
    both = jax.vmap(lambda y: (jax.grad(energy_fn)(y), jax.hessian(energy_fn)(y)))
    slope, curvature = map(np.ravel, toys.jit(both)(y))
    minima = np.sum((slope[:-1] < 0) & (slope[1:] >= 0))
    assert minima == 1 + layers
    if layers == 0:
        np.testing.assert_allclose(curvature, curvature[0], rtol=1e-5)
        assert curvature[0] > 0
    else:
        assert np.min(curvature) < 0 < np.max(curvature)


def test_one_set_of_matrix_weights_serves_every_size():
    energy = matrix.make_matrix()
    params = toys.jit(energy.init)(jax.random.key(0))
    for n in (1, 3, 8):
        eye = jnp.eye(n).ravel()
        assert np.isfinite(energy(params, eye, eye, jnp.int32(0)))


def test_the_matrix_energy_has_a_finite_gradient_at_a_zero_matrix():
    energy, params, x, y, t = _case(ENERGIES[2])
    of = toys.jit(jax.grad(energy, argnums=(0, 1, 2)))
    grads = of(params, 0 * x[0], y[0], t[0])
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads))


def test_the_matrix_energy_scales_by_one_factor_with_the_units_of_its_input():
    """E(k A, Y / k) = E(A, Y) / k^2: an inverse has the units of 1 / A."""
    energy, params, x, y, t = _case(ENERGIES[2])
    value, scaled = (energy(params, k * x[0], y[0] / k, t[0]) for k in (1, 4))
    np.testing.assert_allclose(scaled, value / 16, rtol=1e-4)


@pytest.mark.parametrize(
    "bad",
    [
        {"channels": 0},
        {"layers": 0},
        {"outputs": 0},
        {"reach": "far"},
        {"answer_layers": -1},
    ],
    ids=str,
)
def test_the_matrix_energy_refuses_bad_sizes_by_name(bad):
    (field,) = bad
    with pytest.raises(ValueError, match=f"{field}="):
        matrix.make_matrix(**bad)


class GoldenTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_the_reference_network_agrees_compiled_and_not(self):
        row = ENERGIES[0]
        energy, params, x, y, t = _case(row)
        value = self.variant(energy.apply)(params, x[0], y[0], t[0])
        expected, _ = _oracle(row, params, x[0], y[0], t[0])
        np.testing.assert_allclose(value, expected, rtol=1e-5)


MUTANTS = [
    Mutant(
        "energies",
        "the stack of the answer multiplied entry by entry",
        "ired_jax.energies.products",
        one("z @ mix(layer.right, stack)", "z * mix(layer.right, stack)"),
        test_value_and_input_gradient_equal_the_float64_oracle,
        {"row": ANSWER_ROW},
    ),
    Mutant(
        "energies",
        "no bias in the gradient by W W^T",
        "ired_jax.energies.mlp",
        one("pull_back(2 * (h @ weight + bias))", "pull_back(2 * (h @ weight))"),
        test_binding_condition_and_level_changes_nothing,
        {"row": TABLE_ROW},
    ),
    Mutant(
        "energies",
        "a gradient of its own left in units of the energy",
        "ired_jax.types",
        one("WithGrad(value, over_scale(grad))", "WithGrad(value, grad)"),
        test_a_scaled_landscape_s_value_and_gradient_are_divided,
        {"row": TABLE_ROW},
    ),
]
