"""One suite over a table of energies: a new energy is a new row."""

import operator
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import chex
import jax
import numpy as np
import pytest
from flax import errors

from ired_jax import types
from ired_jax.energies import matrix, mlp, modules, spectral
from tests import references, toys
from tests.mutants import Mutant, one

N = 3  # matrices of the small cases
D = N * N


class Row(NamedTuple):
    """What the suite needs to know of an energy."""

    name: str
    make: Callable  # n -> Energy for n x n matrices
    oracle: Callable  # (params, x, y [N, D], t) -> [N], float64 or complex
    num_parameters: tuple  # of (n, count) at the sizes of record
    fan_in: Callable  # (n, layer's name) -> fan in of its weights and biases
    is_positive: bool  # E >= 0 everywhere
    is_uniform: bool  # starts uniform in +-1 / sqrt(fan in)
    largest: int = 20  # n at which 2,048 rows fit the memory


_name = operator.attrgetter("name")


def _mlp_row(head, num_parameters):
    def fan_in(n, layer, width=512):
        first = {"fc1_x": 2 * n * n, "fc1_y": 2 * n * n}
        return (first | {"fc2": width, "fc3": width, "fc4": width}).get(layer, 128)

    return Row(
        name=f"mlp {head}",
        make=lambda n: mlp.make_mlp(n * n, n * n, head=head),
        oracle=partial(references.mlp_energy, is_scalar=head == "scalar"),
        num_parameters=((20, num_parameters),),
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
        num_parameters=((20, _mlp_count(400, width)),),
        fan_in=partial(plain.fan_in, width=width),
    )


def _matrix_row(reach, answer_layers=0, sizes=(12, 2, 2)):
    channels, layers, outputs = sizes
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
        num_parameters=tuple((n, count) for n in (2, 10, 20)),
        fan_in=lambda n, layer: mixed,
        is_positive=True,
        is_uniform=False,
    )


def _mlp_count(outputs, width=512, inputs=800, time=128):
    layers = [(time, time), (time, time), (inputs, width), (width, width)]
    layers += [(width, width), (time, 2 * width), (time, 2 * width), (width, outputs)]
    return sum(fan_in * features + features for fan_in, features in layers)


ANSWER_ROW = _matrix_row("products", answer_layers=2, sizes=(3, 1, 2))
TABLE_ROW = _table_row()
ENERGIES = [
    _mlp_row("squared_norm", _mlp_count(400)),
    _mlp_row("scalar", _mlp_count(1)),
    _matrix_row("products"),
    _matrix_row("direct"),
]
# Variants of these: what differs is their mathematics, and that is what they run.
VARIANTS = [ANSWER_ROW, _spectral_row(), TABLE_ROW]
OF_RECORD = [_matrix_row(reach, sizes=(12, 7, 2)) for reach in matrix.REACHES]
energies = pytest.mark.parametrize("row", ENERGIES, ids=_name)
and_variants = pytest.mark.parametrize("row", ENERGIES + VARIANTS, ids=_name)


@cache
def _case(row, n=N, num_rows=4):
    """The energy, parameters drawn like the initial ones, and rows x, y, t: NumPy."""
    energy, rng = row.make(n), np.random.default_rng(0)

    def draw(path, leaf):
        limit = row.fan_in(n, path[0].key) ** -0.5
        return np.float32(rng.uniform(-limit, limit, size=leaf.shape))

    shapes = jax.eval_shape(energy.init, jax.random.key(0))
    params = jax.tree_util.tree_map_with_path(draw, shapes)
    x, y = np.float32(rng.normal(size=(2, num_rows, n * n)))
    t = np.int32(rng.permutation(10)[:num_rows])
    return energy, params, x, y, t


@cache
def _of_rows(energy):
    """Compiled: values and gradients in y of rows x, y, t."""
    return toys.jit(jax.vmap(jax.value_and_grad(energy, 2), (None, 0, 0, 0)))


@cache
def _initial(row, seed, n=8):
    params = _init(row, n)(jax.random.key(seed))
    return jax.tree.map(np.asarray, params)


@cache
def _init(row, n):
    return toys.jit(row.make(n).init)


def _oracle(row, params, x, y, t):
    """y [D] -> value (), and the gradient by complex steps."""
    value = partial(row.oracle, references.float64(params), np.float64(x), t=int(t))
    y = np.float64(y)
    return value(y=y[None])[0], references.input_gradient(lambda z: value(y=z), y)


def _relative(difference, reference):
    return np.linalg.norm(difference) / np.linalg.norm(reference)


@pytest.mark.parametrize("row", ENERGIES + VARIANTS + OF_RECORD, ids=_name)
def test_the_number_of_parameters_is_that_of_the_layers(row):
    for n, count in row.num_parameters:
        params = jax.eval_shape(row.make(n).init, jax.random.key(0))
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def test_the_reference_network_has_the_published_numbers_of_parameters():
    assert ENERGIES[0].num_parameters == ((20, 1_437_840),)
    assert ENERGIES[1].num_parameters == ((20, 1_233_153),)


@and_variants
def test_value_and_input_gradient_equal_the_float64_oracle(row):
    energy, params, x, y, t = _case(row)
    values, grads = jax.tree.map(np.asarray, _of_rows(energy)(params, x, y, t))
    chex.assert_shape(values, (4,))
    for i in range(4):
        value, grad = _oracle(row, params, x[i], y[i], t[i])
        # A scalar head crosses 0: compare with the scale of its terms, which is 1.
        assert abs(values[i] - value) < 1e-5 * max(1, abs(value))
        assert _relative(grads[i] - grad, grad) < 2e-5


@energies
def test_the_energy_depends_on_condition_answer_and_level(row):
    energy, params, x, y, t = _case(row)
    others = x[[0, 1, 0, 0]], y[[0, 0, 1, 0]], t[[0, 0, 0, 1]]
    values = np.asarray(_of_rows(energy)(params, *others)[0])
    assert np.min(np.abs(values[1:] - values[0])) > 1e-4


@and_variants
def test_the_parameter_gradient_equals_the_oracle_along_a_line(row):
    energy, params, x, y, t = _case(row)
    grad = toys.jit(jax.grad(energy))(params, x[0], y[0], t[0])
    rng, step = np.random.default_rng(1), 1e-30
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    shift = jax.tree.map(
        lambda p: np.float32(rng.normal(size=p.shape) / np.sqrt(size)), params
    )
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
        landscape = types.bind(energy, params, x, t)
        bound = jax.value_and_grad(landscape)(y)
        plain = types.bind(energy.apply, params, x, t)(y)
        at = types.Landscape(energy, params, x).at(t)(y)
        others = plain, at, types.Landscape(energy, params, x)(y, t)
        return whole, bound, others, types.gradient(landscape)(y)

    found = jax.tree.map(np.asarray, both(x, y, t))
    (value, grad), (bound_value, bound_grad), others, own_grad = found
    for other in (bound_value, *others):
        np.testing.assert_allclose(other, value, rtol=1e-5, atol=1e-6)
    for other in (bound_grad, own_grad):
        assert _relative(other - grad, grad) < 1e-5


@pytest.mark.parametrize("row", [ENERGIES[0], TABLE_ROW], ids=["none", "its own"])
def test_a_scaled_landscape_s_value_and_gradient_are_divided(row):
    energy, params, x, y, t = _case(row, num_rows=1)

    @toys.jit
    def both(y):
        landscape = energy.bind(params, x[0], t[0])
        assert hasattr(landscape, "grad") == (row is TABLE_ROW)
        nats = types.scaled(landscape, 0.25)
        plain = jax.value_and_grad(landscape)(y)
        return plain, nats(y), (jax.grad(nats)(y), types.gradient(nats)(y))

    (value, grad), in_nats, grads = both(y[0])
    np.testing.assert_array_equal(in_nats, 4 * value)
    for found in grads:
        np.testing.assert_allclose(found, 4 * grad, rtol=1e-5, atol=1e-7)


def test_a_gradient_of_its_own_is_as_exact_near_a_minimum():
    energy, params, x, y, t = _case(TABLE_ROW)
    # The bias that makes E = 0 at the first row: |W h + b|^2 of small W h + b.
    last = params["fc4"]
    network = mlp.MLP(D, D, 16, "squared_norm", 10)

    @toys.jit
    def hidden(x, y, t):
        condition = network.apply({"params": params}, x, t, method="condition")
        return network.apply({"params": params}, condition, y, method="hidden")

    h = np.asarray(hidden(x[0], y[0], t[0]))
    params = params | {"fc4": last | {"bias": -(h @ last["kernel"])}}

    @toys.jit
    def both(y):
        landscape = energy.bind(params, x[0], t[0])
        return types.gradient(landscape)(y), jax.grad(landscape)(y)

    errors = []
    for offset in np.random.default_rng(1).normal(size=(8, D)) * 1e-2:
        near = y[0] + np.float32(offset)
        _, grad = _oracle(TABLE_ROW, params, x[0], near, t[0])
        errors.append([_relative(found - grad, grad) for found in both(near)])
    own, by_energy = np.sqrt(np.mean(np.square(errors), axis=0))
    assert 1e-6 < own < 2 * by_energy


@energies
def test_a_row_has_the_same_gradient_in_every_batch(row):
    energy, params, x, y, t = _case(row, n=row.largest, num_rows=8)
    batch_grad = toys.jit(jax.vmap(jax.grad(energy, 2), (None, 0, 0, 0)))
    first = None
    for size in (1, 256, 2048):
        # Rows of their own kind around the first, at levels of their own.
        order = np.arange(size) % 8
        grad = np.asarray(batch_grad(params, x[order], y[order], t[order]))[0]
        first = grad if first is None else first
        # Matrix products of other shapes sum in another order: the last bits differ.
        assert _relative(grad - first, first) < 1e-5


@energies
def test_initial_parameters_fill_plus_minus_one_over_root_fan_in(row):
    if not row.is_uniform:
        return  # declared in the table; its own test is below
    n = 8
    for path, leaf in jax.tree_util.tree_leaves_with_path(_initial(row, 1, n)):
        limit = row.fan_in(n, path[0].key) ** -0.5
        values = np.float64(leaf).ravel() / limit
        assert np.max(np.abs(values)) <= 1 + 1e-6
        # Uniform on +-1: mean 0, variance 1/3; squares have variance 4/45.
        assert abs(np.mean(values)) < 5 * np.sqrt(1 / 3 / values.size)
        if values.size > 1:
            assert abs(np.mean(values**2) - 1 / 3) < 5 * np.sqrt(4 / 45 / values.size)


@energies
def test_initial_parameters_are_set_by_the_key(row):
    first, other = (_initial(row, seed) for seed in (0, 1))
    chex.assert_trees_all_equal(first, _init(row, 8)(jax.random.key(0)))
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
    values = np.asarray(_of_rows(energy)(params, x, 100 * y, t)[0])
    assert np.all(np.isfinite(values))
    if row.is_positive:
        assert np.all(values >= 0)


@energies
def test_shapes_that_would_broadcast_are_refused(row):
    energy, params, x, y, t = _case(row)
    x, y, t = x[0], y[0], t[0]
    for bad in ((x[:-1], y, t), (x, y[:-1], t), (x, y, t[None]), (x[None], y, t)):
        for of in (energy.apply, lambda p, x, y, t: types.bind(energy, p, x, t)(y)):
            with pytest.raises((AssertionError, ValueError)):
                jax.eval_shape(of, params, *bad)


@pytest.mark.parametrize(
    "bad",
    [{"x_size": -1}, {"y_size": 0}, {"width": 0}, {"y_size": -1}, {"head": "vector"}],
    ids=str,
)
def test_the_reference_network_refuses_bad_sizes_and_heads_by_name(bad):
    (field,) = bad
    with pytest.raises(ValueError, match=f"{field}="):
        mlp.make_mlp(**{"x_size": 4, "y_size": 4} | bad)


def test_the_reference_network_without_a_condition_is_that_of_a_condition_of_0():
    y, t = np.arange(3, dtype=np.float32), np.int32(1)
    params = mlp.make_mlp(1, 3, width=8).init(jax.random.key(0))
    layer = params["fc1_x"]
    without = params | {"fc1_x": layer | {"kernel": layer["kernel"][:0]}}
    found, expected = (
        jax.value_and_grad(mlp.make_mlp(size, 3, width=8), 2)(
            p, np.float32([0] * size), y, t
        )
        for size, p in ((0, without), (1, params))
    )
    chex.assert_trees_all_close(found, expected, rtol=1e-6)
    shapes = jax.eval_shape(mlp.make_mlp(0, 3, width=8).init, jax.random.key(0))
    chex.assert_trees_all_equal_shapes(shapes, without)


@pytest.mark.parametrize(
    "reach, layers", [("products", 0), ("direct", 0), ("direct", 1)]
)
def test_the_matrix_energy_is_the_same_in_every_order_of_rows_and_columns(
    reach, layers
):
    """E(P A P^T, P Y P^T, t) = E(A, Y, t), with A and Y of no symmetry."""
    n, rng = 6, np.random.default_rng(3)
    energy, params, *_ = _case(_matrix_row(reach, layers), n=n)
    a, y = np.float32(rng.normal(size=(2, n, n)))
    order = rng.permutation(n)
    energy_of = toys.jit(lambda a, y: energy(params, a.ravel(), y.ravel(), np.int32(4)))
    value, permuted = energy_of(a, y), energy_of(a[order][:, order], y[order][:, order])
    np.testing.assert_allclose(permuted, value, rtol=1e-4)
    wrong = energy_of(a[order][:, order], y)
    assert abs(wrong - value) > 1e-3 * abs(value)


@pytest.mark.parametrize("layers", [0, 1])
def test_products_in_the_answer_and_nothing_else_make_a_second_minimum(layers):
    """At n = 1 and one output E is O^2, or (p O + q O^2)^2: quartic, two minima."""
    energy = matrix.make_matrix(channels=3, layers=1, outputs=1, answer_layers=layers)
    params = toys.drawn_params(energy, seed=5)

    def both(y):
        energy_fn = energy.bind(params, np.ones(1, np.float32), np.int32(4))
        return jax.grad(energy_fn)(y), jax.hessian(energy_fn)(y)

    y = np.linspace(-20, 20, 4001, dtype=np.float32)[:, None]
    found = toys.jit(jax.vmap(both))(y)
    slope, curvature = (np.ravel(np.asarray(part)) for part in found)
    minima = np.sum((slope[:-1] < 0) & (slope[1:] >= 0))
    assert minima == 1 + layers
    if layers == 0:
        np.testing.assert_allclose(curvature, curvature[0], rtol=1e-5)
        assert curvature[0] > 0
    else:
        assert np.min(curvature) < 0 < np.max(curvature)


def test_one_set_of_matrix_weights_serves_every_size():
    energy, params = ENERGIES[2].make(N), _initial(ENERGIES[2], 0)
    for n in (1, 3, 8):
        eye = np.eye(n, dtype=np.float32).ravel()
        assert np.isfinite(toys.jit(energy.apply)(params, eye, eye, np.int32(0)))


def test_the_matrix_energy_has_a_finite_gradient_at_a_zero_matrix():
    energy, params, x, y, t = _case(ENERGIES[2])
    of = toys.jit(jax.grad(energy, argnums=(0, 1, 2)))
    grads = of(params, 0 * x[0], y[0], t[0])
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads))


def test_the_matrix_energy_scales_by_one_factor_with_the_units_of_its_input():
    """E(k A, Y / k) = E(A, Y) / k^2: an inverse has the units of 1 / A."""
    energy, params, x, y, t = _case(ENERGIES[2])
    of = toys.jit(energy.apply)
    value, scaled = (of(params, k * x[0], y[0] / k, t[0]) for k in (1, 4))
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


def test_initial_values_are_drawn_once_and_shapes_still_compared():
    drawn = []

    def start(key, shape, dtype):
        drawn.append(shape)
        return np.ones(shape, dtype)

    layer = modules.Dense(3, use_bias=False, kernel_init=start)
    params = layer.init(jax.random.key(0), np.ones(2, np.float32))
    np.testing.assert_array_equal(params["params"]["kernel"], np.ones((2, 3)))
    assert jax.eval_shape(layer.apply, params, np.ones(2, np.float32)).shape == (3,)
    assert drawn == [(2, 3)]
    with pytest.raises(errors.ScopeParamShapeError):
        jax.eval_shape(layer.apply, params, np.ones(4, np.float32))


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
        "initial values drawn at every apply",
        "ired_jax.energies.modules",
        one("init_fn = nn.initializers.zeros", "pass"),
        test_initial_values_are_drawn_once_and_shapes_still_compared,
    ),
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
