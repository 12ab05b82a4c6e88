"""Densities on a grid, the mixtures of the task, and their energy."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ired_jax.energies import density as energies
from ired_jax.metrics import densities
from ired_jax.tasks import density
from tests import toys
from tests.mutants import Mutant, one

GRID = densities.Grid(6.0, 96)
_divergence = toys.jit(lambda log_p, log_q: densities.kl_divergence(GRID, log_p, log_q))
kinds = pytest.mark.parametrize("kind", density.KINDS)


def _log_gaussian(points, mean, deviation):
    """Not normalised: what is under test has to do it."""
    offset = np.float64(points) - mean
    return np.float32(-np.sum(offset**2, axis=1) / (2 * deviation**2) + 17.0)


def _gaussian_kl(mean_p, deviation_p, mean_q, deviation_q):
    """Of isotropic Gaussians in two dimensions, closed form."""
    ratio = (deviation_p / deviation_q) ** 2
    shift = np.sum((np.subtract(mean_p, mean_q)) ** 2) / (2 * deviation_q**2)
    return ratio - 1 - np.log(ratio) + shift


@pytest.mark.parametrize(
    "p, q",
    [
        (((0.0, 0.0), 0.5), ((0.0, 0.0), 0.5)),
        (((0.3, -0.2), 0.4), ((0.0, 0.1), 0.8)),
        (((0.0, 0.1), 0.8), ((0.3, -0.2), 0.4)),
    ],
)
def test_the_divergence_of_gaussians_is_the_closed_form(p, q):
    points = GRID.points
    found = _divergence(_log_gaussian(points, *p), _log_gaussian(points, *q))
    np.testing.assert_allclose(found, _gaussian_kl(*p, *q), rtol=1e-4, atol=2e-6)


def test_a_density_of_a_network_s_energy_adds_up_to_one_and_keeps_its_shape():
    def energy_fn(y):
        return jnp.sum((y - 0.5) ** 2) / (2 * 0.7**2) + 100.0

    log_q = np.float64(toys.jit(lambda: densities.log_density(GRID, energy_fn))())
    assert abs(np.sum(np.exp(log_q)) * (12 / 96) ** 2 - 1) < 1e-4
    offset = np.sum((np.float64(GRID.points) - 0.5) ** 2, axis=1)
    expected = -offset / (2 * 0.7**2) - np.log(2 * np.pi * 0.7**2)
    np.testing.assert_allclose(log_q, expected, rtol=1e-4, atol=1e-4)


def test_a_point_where_the_data_are_not_counts_nothing():
    log_p, log_q = np.zeros((2, GRID.cells**2), np.float32)
    log_p[0] = -np.inf
    kl = _divergence(log_p, log_q)
    # Uniform on all cells but one, against all of them.
    np.testing.assert_allclose(kl, np.log(96**2 / (96**2 - 1)), atol=1e-5)


def test_the_grid_s_points_are_the_centres_of_its_cells():
    points = np.asarray(densities.Grid(1.0, 2).points)
    expected = [(-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5)]
    np.testing.assert_allclose(points, expected)


# --- the task ---------------------------------------------------------------------


def _log_mixture(kind, y):
    """NumPy float64: y [N, 2] -> log density [N]."""
    means, deviation = density.centres(kind), density.DEVIATION[kind]
    squares = np.sum((np.float64(y)[:, None] - means) ** 2, axis=-1)
    values = np.exp(-squares / (2 * deviation**2)) / (2 * np.pi * deviation**2)
    return np.log(np.mean(values, axis=1))


@functools.cache
def _samples(kind, count=4000):
    task = density.make_density(kind=kind)
    keys = jax.random.split(jax.random.key(0), count)
    draw = toys.jit(jax.vmap(lambda key: task.train.draw((), key)))
    x, y = draw(keys)
    assert x == ()
    return task, np.asarray(y)


@kinds
def test_samples_follow_the_density_that_is_written_down(kind):
    """The mean of log p over samples is minus the entropy, by the grid."""
    _, y = _samples(kind)
    assert np.max(np.abs(y)) < density.HALF_WIDTH
    values = _log_mixture(kind, y)
    means, deviation = density.centres(kind), density.DEVIATION[kind]
    width = 2 * density.HALF_WIDTH / density.GRID.cells
    line = width * (np.arange(density.GRID.cells) + 0.5) - density.HALF_WIDTH
    # Of each centre a product of what depends on the row and on the column.
    rows, columns = (
        np.exp(-((line[:, None] - along) ** 2) / (2 * deviation**2))
        for along in np.float64(means).T
    )
    p = rows @ columns.T / (2 * np.pi * deviation**2 * len(means))
    assert abs(np.sum(p) * width**2 - 1) < 1e-6
    negative_entropy = np.sum(p * np.log(np.maximum(p, 1e-300))) * width**2
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values) - negative_entropy) < 5 * error
    # And no centre is left out: counts by the nearest one.
    nearest = np.argmin(np.sum((y[:, None] - means) ** 2, axis=-1), axis=1)
    assert len(np.unique(nearest)) > 0.98 * len(means)


@kinds
def test_the_energies_to_be_beaten_are_flat_and_of_the_data_s_first_two_moments(kind):
    """Of 4,000 samples; a Gaussian of less than 0.4 % outside of the square."""
    task, y = _samples(kind)
    values = _log_mixture(kind, y)
    log_area = 2 * np.log(2 * density.HALF_WIDTH)
    log_det = np.linalg.slogdet(np.cov(y.T))[1]
    expected = {
        "uniform": values + log_area,
        "one Gaussian": values + np.log(2 * np.pi) + log_det / 2 + 1,
    }
    kl = task.evaluators["kl"]
    assert kl.trivial.keys() == expected.keys()
    for name, each in expected.items():
        found = toys.jit(partial(kl.of_model, kl.trivial[name], jax.random.key(0)))()
        error = np.std(each) / np.sqrt(len(each))
        assert abs(found - np.mean(each)) < 5 * error + 0.02 * (name != "uniform"), name


@kinds
def test_the_divergence_of_the_data_from_itself_is_zero(kind):
    task = density.make_density(kind=kind)
    means = np.float32(density.centres(kind))

    def energy_fn(x, y, t):
        assert x == ()
        return 3.0 - density.log_density(y, means, density.DEVIATION[kind])

    kl = task.evaluators["kl"].of_model
    assert abs(toys.jit(lambda: kl(energy_fn, jax.random.key(0)))()) < 1e-5


@kinds
def test_the_divergence_from_a_flat_model_is_log_area_less_entropy(kind):
    task, y = _samples(kind)
    kl = task.evaluators["kl"].of_model
    found = toys.jit(lambda: kl(lambda x, y, t: 0 * y[0], jax.random.key(0)))()
    # KL(p | uniform) = E log p + log area.
    values = _log_mixture(kind, y) + 2 * np.log(2 * density.HALF_WIDTH)
    error = np.std(values) / np.sqrt(len(values))
    assert abs(float(found) - np.mean(values)) < 5 * error
    assert task.evaluators["kl"].better == "low"
    assert task.primary in task.evaluators


def test_the_kinds_are_different_densities_and_others_are_refused():
    means = [density.centres(kind) for kind in density.KINDS]
    assert len({len(mean) for mean in means}) == 3
    for mean, kind in zip(means, density.KINDS, strict=True):
        room = density.HALF_WIDTH - np.max(np.abs(mean))
        assert room > 7 * density.DEVIATION[kind]
    with pytest.raises(ValueError, match="kind='star'"):
        density.make_density(kind="star")


# --- the energy -------------------------------------------------------------------


def test_the_energy_has_no_condition_and_grows_without_end():
    energy = energies.make_density(2, width=8, layers=2)
    params, t = toys.jit(energy.init)(jax.random.key(0)), np.int32(0)
    of = toys.jit(energy.apply)
    far = of(params, (), np.float32([1e3, 1e3]), t)
    assert far > 1e4
    assert abs(of(params, (), np.float32([0.1, 0.2]), t)) < 100
    with pytest.raises(ValueError, match="x: must be"):
        of(params, jnp.ones(2), jnp.ones(2), t)
    with pytest.raises(AssertionError):
        of(params, (), jnp.ones(3), t)
    with pytest.raises(ValueError, match="width=0"):
        energies.make_density(2, width=0)


MUTANTS = [
    Mutant(
        "density",
        "the Gaussian to be beaten is too narrow",
        "ired_jax.tasks.density",
        one("@ (y - middle) / 2", "@ (y - middle)"),
        test_the_energies_to_be_beaten_are_flat_and_of_the_data_s_first_two_moments,
        {"kind": "rings"},
    ),
    Mutant(
        "density",
        "the divergence has the wrong sign",
        "ired_jax.metrics.densities",
        one("p * (log_p - log_q)", "p * (log_q - log_p)"),
        test_the_divergence_of_gaussians_is_the_closed_form,
        {"p": ((0.3, -0.2), 0.4), "q": ((0.0, 0.1), 0.8)},
    ),
    Mutant(
        "density",
        "the divergence is weighted by the model",
        "ired_jax.metrics.densities",
        one("p = jnp.exp(log_p + grid", "p = jnp.exp(log_q + grid"),
        test_the_divergence_of_gaussians_is_the_closed_form,
        {"p": ((0.3, -0.2), 0.4), "q": ((0.0, 0.1), 0.8)},
    ),
    Mutant(
        "density",
        "the normaliser forgets the cells' area",
        "ired_jax.metrics.densities",
        one(
            "jax.nn.logsumexp(log_values) - grid.log_area",
            "jax.nn.logsumexp(log_values)",
        ),
        test_a_density_of_a_network_s_energy_adds_up_to_one_and_keeps_its_shape,
    ),
    Mutant(
        "density",
        "the model is not normalised",
        "ired_jax.metrics.densities",
        one(
            "log_p, log_q = log_normalised(grid, log_p), log_normalised(grid, log_q)",
            "log_p = log_normalised(grid, log_p)",
        ),
        test_the_divergence_of_gaussians_is_the_closed_form,
        {"p": ((0.3, -0.2), 0.4), "q": ((0.0, 0.1), 0.8)},
    ),
    Mutant(
        "density",
        "energies are taken for log densities",
        "ired_jax.metrics.densities",
        one("grid, -jax.lax.map", "grid, jax.lax.map"),
        test_a_density_of_a_network_s_energy_adds_up_to_one_and_keeps_its_shape,
    ),
    Mutant(
        "density",
        "draws are narrower than the density says",
        "ired_jax.tasks.density",
        one("mean + deviation * jax", "mean + 0.8 * deviation * jax"),
        test_samples_follow_the_density_that_is_written_down,
        {"kind": "spirals"},
    ),
]
