"""Langevin chains against the exact law of the discrete algorithm.

Tolerances are standard errors: of a mean sd / sqrt(N), of a normal's variance sqrt(2 /
N) relative, of a third moment from its own sample. With SIGMAS of them a right sampler
fails once in a million draws, and these draws are fixed.
"""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from ired_jax.negatives.langevin import make_langevin
from ired_jax.samplers import langevin
from ired_jax.types import Box, WithGrad
from tests import references, toys
from tests.mutants import Mutant, one

SIGMAS = 5
NOISE_BUG = 0.05  # relative excess of variance that every law below has to notice


STATIC = ("num_steps", "adjusted", "trace")


@partial(toys.jit, static_argnames=("energy_fn", *STATIC))
def _chains(keys, y, of_rows, of_all, *, energy_fn, **static):
    """What else varies are arguments: so the tests share programs."""

    def one(key, y, of_row):
        return langevin.sample(key, energy_fn, y, **of_row, **of_all, **static)

    return jax.vmap(one)(keys, y, of_rows)


def _run(energy_fn, y, *, keys=None, over=(), **options):
    """One chain a row of y [N, D]; `over` names options with a value for each row."""
    keys = jax.random.split(jax.random.key(0), len(y)) if keys is None else keys
    static = {name: options.pop(name) for name in STATIC if name in options}
    of_all = jax.tree.map(np.float32, options)
    of_rows = {name: of_all.pop(name) for name in over}
    y, info = _chains(
        keys, np.float32(y), of_rows, of_all, energy_fn=energy_fn, **static
    )
    chex.assert_shape([info.energy, info.acceptance], (len(y),))
    return np.float64(y), jax.tree.map(np.float64, info)


def _half_square(y):
    return 0.5 * jnp.sum(y**2)


@partial(toys.jit, static_argnames=STATIC)
def _on_squares(keys, y, s, h, **static):
    """Chains on U = |y|^2 / (2 s^2) at temperature 1."""

    def one(key, y):
        options = {"step_size": h, "temperature": 1.0} | static
        return langevin.sample(key, lambda y: jnp.sum(y**2) / (2 * s**2), y, **options)

    return jax.vmap(one)(keys, y)


def _assert_law(samples, mean, variance):
    """Independent normals of this mean and variance."""
    count = samples.size
    assert SIGMAS * np.sqrt(2 / count) < NOISE_BUG
    assert abs(np.mean(samples) - mean) < SIGMAS * np.sqrt(variance / count)
    assert abs(np.var(samples) / variance - 1) < SIGMAS * np.sqrt(2 / count)


# --- plain chains -----------------------------------------------------------------


@pytest.mark.parametrize("num_steps", [1, 3, 10])
def test_a_plain_chain_has_the_exact_law_of_its_discrete_steps(num_steps):
    keys = jax.random.split(jax.random.key(num_steps), 500)
    for s, multiple in ((0.167, 0.25), (1.0, 0.1), (2.0, 1.5)):
        h, start = multiple * s**2, 3 * s
        first = np.full((500, 100), start, np.float32)
        y, _ = _on_squares(keys, first, s, h, num_steps=num_steps)
        r = 1 - h / s**2
        mean = r**num_steps * start
        variance = 2 * h * (1 - r ** (2 * num_steps)) / (1 - r**2)
        _assert_law(np.float64(y), mean, variance)


def test_each_step_has_its_own_size_and_the_temperature_scales_the_noise():
    steps, multiplier = np.array([0.9, 0.5, 0.1, 0.05]), 0.5
    y, _ = _run(
        _half_square,
        np.full((500, 100), 2.0),
        step_size=steps,
        temperature=multiplier**2,  # noise m sqrt(2 h) is temperature m^2
        num_steps=4,
    )
    law = partial(
        references.plain_law, 2.0, 0.0, precision=1, temperature=multiplier**2
    )
    _assert_law(y, *law(step_sizes=steps))
    # Backwards is another law, and this many samples can tell.
    assert abs(np.var(y) / law(step_sizes=steps[::-1])[1] - 1) > 4 * NOISE_BUG


def test_a_plain_chain_follows_a_tilted_correlated_landscape():
    precision = np.array([[2.0, 0.8, 0.0], [0.8, 1.0, -0.3], [0.0, -0.3, 0.5]])
    centre, start = np.array([1.0, -2.0, 0.5]), np.array([0.0, 3.0, -1.0])
    tilt = jnp.float32(precision @ centre)

    def energy_fn(y):
        return 0.5 * y @ jnp.float32(precision) @ y - tilt @ y

    count = 50_000
    y, _ = _run(
        energy_fn,
        np.tile(start, (count, 1)),
        step_size=0.3,
        temperature=1.0,
        num_steps=5,
    )
    mean, covariance = references.plain_law_vector(
        start,
        np.zeros((3, 3)),
        step=0.3,
        num_steps=5,
        precision=precision,
        centre=centre,
    )
    variance = np.diag(covariance)
    assert np.all(
        np.abs(np.mean(y, axis=0) - mean) < SIGMAS * np.sqrt(variance / count)
    )
    # Var of a normal's sample covariance: (C_ii C_jj + C_ij^2) / N.
    error = np.sqrt((np.outer(variance, variance) + covariance**2) / count)
    assert np.all(np.abs(np.cov(y.T) - covariance) < SIGMAS * error)


def test_nats_at_temperature_one_are_energy_at_its_own_temperature():
    s, multiple = 0.3, 0.25
    y = np.float32(np.random.default_rng(0).normal(size=(4, 6)))
    keys = jax.random.split(jax.random.key(0), 4)

    for adjusted in (False, True):

        @toys.jit
        @partial(jax.vmap, in_axes=(0, 0, None, None, None))
        def chains(key, y, unit, step_size, temperature, adjusted=adjusted):
            options = {"step_size": step_size, "temperature": temperature}
            options |= {"num_steps": 6, "adjusted": adjusted}
            energy_fn = lambda y: jnp.sum(jnp.cosh(y)) / unit  # noqa: E731
            return langevin.sample(key, energy_fn, y, **options)[0]

        on_u = chains(keys, y, s, multiple * s**2, 1.0)
        on_e = chains(keys, y, 1.0, multiple * s, s)
        np.testing.assert_allclose(on_u, on_e, rtol=1e-4, atol=1e-4)
        assert np.max(np.abs(on_u - y)) > 0.1


def _wells(y):
    """Two wells in each element, tilted and coupled: not convex."""
    return jnp.sum((y**2 - 1) ** 2 + 0.3 * y) + 0.5 * jnp.sum(y[1:] * y[:-1])


def _wells_numpy(y):
    return np.sum((y**2 - 1) ** 2 + 0.3 * y) + 0.5 * np.sum(y[1:] * y[:-1])


def _wells_gradient(y):
    return references.input_gradient(
        lambda z: np.array([_wells_numpy(row) for row in z]), y
    )


@pytest.mark.parametrize("clip, bounds", [(None, None), (0.7, None), (None, 0.9)])
def test_at_temperature_zero_a_chain_is_clipped_and_clamped_descent(clip, bounds):
    step, start = 0.05, np.array([0.2, -1.5, 2.0, 0.1])
    y, info = _run(
        _wells,
        start[None],
        step_size=step,
        temperature=0.0,
        num_steps=6,
        grad_clip=clip,
        bounds=bounds,
        trace=True,
    )
    states = [np.float64(np.float32(start))]
    for _ in range(6):
        grad = np.clip(_wells_gradient(states[-1]), *_pm(clip))
        states.append(np.clip(states[-1] - step * grad, *_pm(bounds)))
    energies = [_wells_numpy(state) for state in states]
    np.testing.assert_allclose(y[0], states[-1], rtol=1e-5)
    np.testing.assert_allclose(info.energies[0], energies, rtol=1e-5)
    np.testing.assert_allclose(info.energy[0], energies[-1], rtol=1e-5)
    np.testing.assert_allclose(
        info.displacement[0], _rms(states[-1] - start), rtol=1e-5
    )
    np.testing.assert_allclose(info.grad_norm[0], _rms(grad), rtol=1e-5)
    assert info.clipped[0] == np.mean(np.abs(grad) == clip)
    assert info.acceptance[0] == 1


def _pm(limit):
    return (-np.inf, np.inf) if limit is None else (-limit, limit)


def _rms(array):
    return np.sqrt(np.mean(array**2))


def test_plain_chains_are_clamped_at_their_bounds_after_every_step():
    bounds = np.array([0.5, 1.0, 3.0])
    y, _ = _run(
        _half_square,
        np.zeros((2000, 3)),
        step_size=1.0,
        temperature=1.0,
        num_steps=3,
        bounds=bounds,
    )
    # h = 1 forgets the start: each element is a clamped N(0, 2).
    for element, bound in zip(y.T, bounds, strict=True):
        at_bound = np.mean(np.abs(element) == np.float32(bound))
        share = special.erfc(bound / 2)
        assert np.max(np.abs(element)) <= bound
        error = np.sqrt(share * (1 - share) / len(y))
        assert abs(at_bound - share) < SIGMAS * error


@pytest.mark.parametrize("adjusted", [False, True])
def test_each_row_has_its_own_bounds_step_and_temperature(adjusted):
    count = 300
    bounds = np.linspace(0.2, 2.0, count).astype(np.float32)
    y, _ = _run(
        lambda y: -5 * jnp.sum(y),  # downhill is towards +infinity
        np.zeros((count, 4)),
        over=("bounds", "step_size", "temperature"),
        bounds=bounds,
        step_size=np.linspace(0.05, 0.1, count),
        temperature=np.linspace(0.5, 1.0, count),
        num_steps=40,
        adjusted=adjusted,
    )
    assert np.all(np.max(np.abs(y), axis=1) <= bounds)
    if adjusted:
        # exp(5 y / T) below the bound: on average T / 5 away from it.
        assert np.all(np.max(y, axis=1) > bounds - 1.0)
        assert np.all(np.abs(y) < bounds[:, None])
    else:
        assert np.mean(np.max(y, axis=1) == bounds) > 0.9


def test_each_row_has_its_own_clip():
    clips = np.linspace(0.1, 4.0, 8)
    y, info = _run(
        lambda y: -5 * jnp.sum(y),
        np.zeros((8, 3)),
        over=("grad_clip",),
        grad_clip=clips.astype(np.float32),
        step_size=0.1,
        temperature=0.0,
        num_steps=2,
    )
    np.testing.assert_allclose(y, np.tile(2 * 0.1 * clips, (3, 1)).T, rtol=1e-6)
    np.testing.assert_allclose(info.grad_norm, clips, rtol=1e-6)


def test_what_a_clip_has_cut_is_a_share_of_the_free_elements():
    _, info = _run(
        lambda y: jnp.sum(y * jnp.float32([1, -9, 3, 9])),
        np.zeros((1, 4)),
        bounds=Box(jnp.float32([-9, -9, -9, 0]), jnp.float32([9, 9, 9, 0])),
        grad_clip=2.0,
        step_size=0.1,
        temperature=0.0,
        num_steps=2,
    )
    np.testing.assert_allclose(info.clipped, 2 / 3, rtol=1e-6)


# --- adjusted chains --------------------------------------------------------------

# Mean acceptance of the ideal landscape at rest, as the method's notes give it.
MULTIPLES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
PUBLISHED_ACCEPTANCE = {
    144: (0.962, 0.893, 0.806, 0.705, 0.487, 0.136, 0.0),
    400: (0.937, 0.823, 0.682, 0.528, 0.246, 0.013, 0.0),
}


@pytest.mark.parametrize("dim", [144, 400])
def test_the_acceptance_at_rest_is_that_of_the_exact_integral(dim):
    s, num_chains = 0.462, 2000
    start = np.random.default_rng(dim).normal(0, s, size=(num_chains, dim))
    keys, start = jax.random.split(jax.random.key(dim), num_chains), np.float32(start)
    for c, published in zip(MULTIPLES, PUBLISHED_ACCEPTANCE[dim], strict=True):
        chains = _on_squares(keys, start, s, c * s**2, num_steps=1, adjusted=True)
        alpha = np.float64(chains[1].acceptance)
        expected = references.stationary_acceptance(c, dim)
        error = np.std(alpha) / np.sqrt(num_chains)
        assert abs(np.mean(alpha) - expected) < SIGMAS * error + 1e-3
        assert abs(expected - published) < 0.0015
        assert abs(np.mean(alpha) - published) < 0.01 + 3 * error


def test_from_the_mode_an_adjusted_chain_hardly_moves():
    h, dim = 0.185, 400
    keys, mode = jax.random.split(jax.random.key(0), 2000), np.zeros((2000, dim))
    _, info = _on_squares(keys, np.float32(mode), 1.0, h, num_steps=1, adjusted=True)
    # log alpha = -h^2 chi^2_D / 2, so the mean of alpha is (1 + h^2)^(-D / 2).
    expected = (1 + h**2) ** (-dim / 2)
    assert abs(np.mean(info.acceptance) - expected) < SIGMAS * np.std(
        info.acceptance
    ) / np.sqrt(2000)


def test_an_adjusted_chain_has_the_exact_variance_where_a_plain_one_does_not():
    s, h = 0.5, 1.2 * 0.25
    keys, start = jax.random.split(jax.random.key(0), 20_000), np.full((20_000, 2), 1)
    options = {"num_steps": 40, "adjusted": True}
    y, info = _on_squares(keys, np.float32(2 * s * start), s, h, **options)
    _assert_law(np.float64(y), 0.0, s**2)
    assert 0.3 < np.mean(info.acceptance) < 0.9
    r = 1 - h / s**2
    assert 2 * h / (1 - r**2) > 2 * s**2  # what the plain chain would settle at


def test_an_adjusted_chain_finds_the_moments_of_a_skewed_density():
    # U = y + exp(-y), the Gumbel density: mean gamma, variance pi^2 / 6, third central
    # moment 2 zeta(3). A wrong sign or a density swapped with its reverse shows here.
    y, info = _run(
        lambda y: jnp.sum(y + jnp.exp(-y)),
        np.zeros((50_000, 1)),
        step_size=0.6,
        temperature=1.0,
        num_steps=50,
        adjusted=True,
    )
    mean, third = np.euler_gamma, 2 * special.zeta(3)
    centred = y - mean
    for power, moment in ((1, 0.0), (2, np.pi**2 / 6), (3, third)):
        values = centred**power
        error = np.std(values) / np.sqrt(values.size)
        assert abs(np.mean(values) - moment) < SIGMAS * error
    assert 0.5 < np.mean(info.acceptance) < 0.95


def test_a_clipped_drift_enters_both_proposal_densities():
    y, info = _run(
        _half_square,
        np.random.default_rng(0).normal(size=(20_000, 2)),
        step_size=0.8,
        temperature=1.0,
        num_steps=15,
        grad_clip=0.4,
        adjusted=True,
    )
    _assert_law(y, 0.0, 1.0)
    assert 0.3 < np.mean(info.acceptance) < 0.9


def test_a_bounded_adjusted_chain_has_the_truncated_law():
    bound = 1.0
    start = np.random.default_rng(0).uniform(-bound, bound, size=(40_000, 1))
    y, info = _run(
        _half_square,
        start,
        step_size=0.3,
        temperature=1.0,
        num_steps=25,
        bounds=bound,
        adjusted=True,
    )
    assert np.max(np.abs(y)) < bound  # rejected, not clamped to the bound
    variance = references.truncated_normal_variance(bound)
    error = np.std(y**2) / np.sqrt(y.size)
    assert SIGMAS * error / variance < NOISE_BUG
    assert abs(np.mean(y**2) - variance) < SIGMAS * error
    assert abs(np.mean(y)) < SIGMAS * np.sqrt(variance / y.size)
    assert np.mean(info.acceptance) < 0.9


@pytest.mark.parametrize("clip, bounds", [(None, None), (0.7, None), (0.7, 1.3)])
def test_one_acceptance_is_the_ratio_of_the_written_out_densities(clip, bounds):
    step, temperature = 0.15, 0.8
    start = np.random.default_rng(1).uniform(-1.2, 1.2, size=(300, 3))
    start = np.float64(np.float32(start))
    y, info = _run(
        _wells,
        start,
        step_size=step,
        temperature=temperature,
        num_steps=1,
        grad_clip=clip,
        bounds=bounds,
        adjusted=True,
    )
    moved = np.any(y != start, axis=1)
    assert 30 < np.sum(moved) < 270

    def drift(point):
        return np.clip(_wells_gradient(point), *_pm(clip))

    for before, after, alpha in zip(
        start[moved], y[moved], info.acceptance[moved], strict=True
    ):
        expected = references.acceptance(
            _wells_numpy, drift, before, after, step=step, temperature=temperature
        )
        np.testing.assert_allclose(alpha, expected, rtol=2e-4, atol=1e-6)
    # A move is made with probability alpha, whatever alpha is.
    surplus = moved - info.acceptance
    error = np.sqrt(np.sum(info.acceptance * (1 - info.acceptance)))
    assert abs(np.sum(surplus)) < SIGMAS * error


def test_a_rejected_step_keeps_the_state_and_what_was_computed_there():
    # So large a step that nothing is ever accepted.
    start = np.random.default_rng(2).normal(size=(3, 100))
    y, info = _run(
        _half_square,
        start,
        step_size=3.0,
        temperature=1.0,
        num_steps=5,
        adjusted=True,
        trace=True,
    )
    energy = 0.5 * np.sum(np.float32(start) ** 2.0, axis=1)
    np.testing.assert_array_equal(y, np.float64(np.float32(start)))
    np.testing.assert_allclose(info.acceptance, 0, atol=1e-6)
    np.testing.assert_allclose(info.displacement, 0)
    np.testing.assert_allclose(info.energies, np.tile(energy, (6, 1)).T, rtol=1e-6)
    np.testing.assert_allclose(info.energy, energy, rtol=1e-6)
    rms = np.sqrt(np.mean(start**2, axis=1))
    np.testing.assert_allclose(info.grad_norm, rms, rtol=1e-6)


def test_an_adjusted_chain_does_not_move_to_where_the_energy_is_not_a_number():
    y, info = _run(
        lambda y: jnp.sum(jnp.where(y > 0, y - jnp.log(y), jnp.nan)),
        np.full((500, 2), 1.0),
        step_size=0.5,
        temperature=1.0,
        num_steps=20,
        adjusted=True,
    )
    assert np.all(np.isfinite(y))
    assert np.all(y > 0)
    assert np.all(np.isfinite(info.energy))
    # Such a move has probability 0, and does not hide that of the others.
    assert 0.1 < np.mean(info.acceptance) < 0.9


# --- both -------------------------------------------------------------------------


@pytest.mark.parametrize("adjusted", [False, True])
def test_the_trace_holds_every_state_s_energy_and_changes_nothing_else(adjusted):
    start = np.random.default_rng(3).normal(size=(5, 4))
    options = {"step_size": 0.02, "temperature": 0.5, "adjusted": adjusted}
    y, info = _run(_wells, start, num_steps=4, trace=True, **options)
    assert info.energies.shape == (5, 5)
    first = [_wells_numpy(row) for row in np.float64(np.float32(start))]
    last = [_wells_numpy(row) for row in y]
    np.testing.assert_allclose(info.energies[:, 0], first, rtol=1e-5)
    np.testing.assert_allclose(info.energies[:, -1], last, rtol=1e-5)
    silent, without = _run(_wells, start, num_steps=4, **options)
    assert without.energies is None
    np.testing.assert_allclose(silent, y, rtol=1e-6)
    # A step's noise is keyed by its number: a shorter chain is a longer one's start.
    shorter, _ = _run(_wells, start, num_steps=2, **options)
    energies = [_wells_numpy(row) for row in shorter]
    np.testing.assert_allclose(info.energies[:, 2], energies, rtol=1e-5)


@pytest.mark.parametrize("adjusted", [False, True])
def test_no_steps_leave_the_start_as_it_is(adjusted):
    start = np.random.default_rng(4).normal(size=(2, 3))
    y, info = _run(
        _wells,
        start,
        step_size=0.1,
        temperature=1.0,
        num_steps=0,
        adjusted=adjusted,
        trace=True,
    )
    np.testing.assert_array_equal(y, np.float64(np.float32(start)))
    energy = [_wells_numpy(row) for row in y]
    np.testing.assert_allclose(info.energy, energy, rtol=1e-5)
    np.testing.assert_allclose(info.energies[:, 0], energy, rtol=1e-5)
    np.testing.assert_array_equal(info.acceptance, 1)
    np.testing.assert_array_equal(info.displacement, 0)


@pytest.mark.parametrize("adjusted", [False, True])
def test_steps_of_size_zero_do_not_move(adjusted):
    start = np.random.default_rng(5).normal(size=(5, 4))
    options = {"num_steps": 4, "adjusted": adjusted}
    y, info = _run(_wells, start, step_size=0.0, temperature=1.0, **options)
    np.testing.assert_array_equal(y, np.float64(np.float32(start)))
    np.testing.assert_array_equal(info.acceptance, 1)
    assert np.all(np.isfinite(info.energy))


def test_a_chain_depends_on_its_key_alone():
    @toys.jit
    def end(key):
        return langevin.sample(
            key, _half_square, jnp.ones(4), step_size=0.1, temperature=1.0, num_steps=2
        )[0]

    key = jax.random.key(0)
    first = np.array(end(key))
    np.testing.assert_array_equal(first, end(key))
    np.testing.assert_array_equal(first, end(jax.random.key_data(key)))
    assert np.all(np.abs(first - end(jax.random.key(1))) > 0)
    assert len(set(first.tolist())) == 4  # nor do elements share their noise


@pytest.mark.parametrize("adjusted", [False, True])
def test_steps_draw_independent_noise(adjusted):
    # From a flat landscape each step adds its noise: K steps have K times the variance
    # if independent, K^2 times if the noise is repeated.
    shape, num_steps = ((20_000, 2), 40) if adjusted else ((500, 100), 3)
    keys, start = jax.random.split(jax.random.key(0), shape[0]), np.zeros(shape)
    options = {"num_steps": num_steps} | ({"adjusted": True} if adjusted else {})
    y, _ = _on_squares(keys, np.float32(start), np.inf, 1 / num_steps, **options)
    _assert_law(np.float64(y), 0.0, 2.0)


@pytest.mark.parametrize("adjusted", [False, True])
def test_a_chain_does_not_depend_on_its_batch(adjusted):
    start = np.random.default_rng(6).normal(size=(5, 4))
    keys = jax.random.split(jax.random.key(6), 5)
    options = {"step_size": 0.1, "temperature": 1.0, "num_steps": 4}
    options["adjusted"] = adjusted
    together, _ = _run(_wells, start, keys=keys, **options)
    alone, _ = _run(_wells, start[3:4], keys=keys[3:4], **options)
    np.testing.assert_allclose(together[3], alone[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("adjusted", [False, True])
def test_compiled_memory_does_not_grow_with_the_number_of_steps(adjusted):
    shape = (64, 256)
    matrix = jnp.ones((256, 256))

    def temporary_bytes(num_steps):
        def one(key, y):
            return langevin.sample(
                key,
                lambda y: jnp.sum(jnp.tanh(y @ matrix) ** 2),
                y,
                step_size=0.1,
                temperature=1.0,
                num_steps=num_steps,
                adjusted=adjusted,
            )

        keys = jax.random.split(jax.random.key(0), shape[0])
        compiled = toys.jit(jax.vmap(one)).lower(keys, jnp.zeros(shape)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # 75 kept states would be 75 times as much.
    one_state = 4 * shape[0] * shape[1]
    assert temporary_bytes(80) - temporary_bytes(5) < one_state


@pytest.mark.parametrize("adjusted", [False, True])
def test_each_point_is_evaluated_once(adjusted):
    calls = []

    def energy_fn(y):
        jax.debug.callback(lambda: calls.append(1))
        return jnp.sum(y**2)

    @toys.jit
    def chain(y):
        options = {"step_size": 0.1, "temperature": 1.0, "num_steps": 7}
        return langevin.sample(
            jax.random.key(0), energy_fn, y, adjusted=adjusted, **options
        )

    jax.block_until_ready(chain(jnp.ones(3)))
    jax.effects_barrier()
    assert len(calls) == 7 + 1


def test_a_gradient_that_an_energy_brings_moves_where_no_energy_is_needed():
    y, options = np.ones((4, 3)), {"step_size": 0.1, "temperature": 1.0, "num_steps": 5}
    only_grad = WithGrad(lambda y: jnp.nan * jnp.sum(y), lambda y: y)
    only_energy = WithGrad(_half_square, lambda y: jnp.nan * y)
    plain, _ = _run(_half_square, y, **options)
    for landscape, more in (
        (only_grad, {}),
        (only_energy, {"trace": True}),
        (only_energy, {"adjusted": True}),
    ):
        found, _ = _run(landscape, y, **options, **more)
        adjusted = "adjusted" in more
        expected = _run(_half_square, y, **options, **more)[0] if adjusted else plain
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_an_energy_that_nobody_asks_for_is_not_computed():
    matrix = jnp.ones((128, 128))

    def flops(select):
        def chain(key, y):
            result = langevin.sample(
                key,
                lambda y: jnp.sum(jnp.tanh(y @ matrix)),
                y,
                step_size=0.1,
                temperature=1.0,
                num_steps=10,
            )
            return select(result)

        lowered = toys.jit(chain).lower(jax.random.key(0), jnp.ones(128))
        return lowered.compile().cost_analysis()["flops"]

    product = 2 * 128**2
    saved = flops(lambda result: result) - flops(lambda result: result[0])
    assert 0.99 * product < saved < 1.5 * product


def test_bad_arguments_are_refused():
    options = {"step_size": 0.1, "temperature": 1.0}
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="num_steps=-1"):
        langevin.sample(key, _half_square, jnp.ones(2), num_steps=-1, **options)
    mixed = {"a": jnp.ones(2), "b": jnp.ones(2, jnp.bfloat16)}
    for bad in (jnp.ones(2, jnp.int32), mixed, ()):
        with pytest.raises(AssertionError):
            langevin.sample(key, _half_square, bad, num_steps=1, **options)
    options |= {"num_steps": 1, "bounds": Box([jnp.zeros(2)], [jnp.ones(2)])}
    with pytest.raises(ValueError, match="box of structure"):
        langevin.sample(key, _half_square, jnp.ones(2), **options)


# --- trees, known elements --------------------------------------------------------

# Elements 1 and 3 of five are known. The others have, given these, precision P_ff and
# the centre c_f - P_ff^-1 P_fk (y_k - c_k).
FREE, KNOWN = [0, 2, 4], [1, 3]
GIVEN = np.array([2.0, -1.5])
PRECISION = np.diag([2.0, 1.5, 1.0, 3.0, 1.2]) + 0.4 * np.tri(5, 5, -1)
PRECISION = np.float64(np.float32((PRECISION + PRECISION.T) / 2))
CENTRE = np.array([0.5, -1.0, 0.25, 1.0, -0.75])
OF_FREE = PRECISION[np.ix_(FREE, FREE)]
OF_BOTH = PRECISION[np.ix_(FREE, KNOWN)]
CONDITIONAL = CENTRE[FREE] - np.linalg.solve(OF_FREE, OF_BOTH @ (GIVEN - CENTRE[KNOWN]))


def _coupled(tree):
    offset = toys.as_vector(tree) - jnp.float32(CENTRE)
    return 0.5 * offset @ jnp.float32(PRECISION) @ offset


def _box(low=-np.inf, high=np.inf):
    sides = np.full((2, 5), [[low], [high]], np.float32)
    sides[:, KNOWN] = GIVEN
    return Box(*map(toys.as_tree, sides))


@partial(toys.jit, static_argnames=("energy_fn", *STATIC))
def _chains_of_trees(keys, y, options, *, energy_fn, **static):
    def chain(key, y):
        tree, info = langevin.sample(
            key, energy_fn, toys.as_tree(y), **options, **static
        )
        return toys.as_vector(tree), info

    return jax.vmap(chain)(keys, y)


def _run_tree(start, *, energy_fn=_coupled, **options):
    """Chains of trees; the ends as rows [N, 5]."""
    keys = jax.random.split(jax.random.key(0), len(start))
    static = {name: options.pop(name) for name in STATIC if name in options}
    options = jax.tree.map(np.float32, options)
    y, info = _chains_of_trees(
        keys, np.float32(start), options, energy_fn=energy_fn, **static
    )
    return np.float64(y), jax.tree.map(np.float64, info)


def _assert_gaussian(y, mean, covariance):
    """Rows y [N, D] of this mean and covariance."""
    count, variance = len(y), np.diag(covariance)
    assert SIGMAS * np.sqrt(2 / count) < NOISE_BUG
    error = np.sqrt(variance / count)
    assert np.all(np.abs(np.mean(y, axis=0) - mean) < SIGMAS * error)
    error = np.sqrt((np.outer(variance, variance) + covariance**2) / count)
    assert np.all(np.abs(np.cov(y.T) - covariance) < SIGMAS * error)


def test_a_tree_has_the_law_of_the_vector_of_its_elements():
    start = np.array([1.0, 0.0, -1.0, 0.5, 2.0])
    options = {"step_size": 0.2, "temperature": 1.0, "num_steps": 3}
    y, _ = _run_tree(np.tile(start, (30_000, 1)), **options)
    law = references.plain_law_vector(
        start,
        np.zeros((5, 5)),
        step=0.2,
        num_steps=3,
        precision=PRECISION,
        centre=CENTRE,
    )
    _assert_gaussian(y, *law)


@pytest.mark.parametrize("bounds", [None, 0.9])
def test_without_noise_a_tree_moves_as_the_vector_of_its_elements(bounds):
    start = np.random.default_rng(7).normal(size=(4, 5))
    options = {"step_size": 0.2, "temperature": 0.0, "num_steps": 4}
    options |= {"grad_clip": 0.7, "bounds": bounds, "trace": True}
    y, info = _run_tree(start, **options)
    flat, of_flat = _run(lambda y: _coupled(toys.as_tree(y)), start, **options)
    np.testing.assert_allclose(y, flat, rtol=1e-6, atol=1e-6)
    for found, expected in zip(info, of_flat, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(), (2, 3), (0,)])
def test_an_answer_may_have_any_shape(shape):
    options = {"step_size": 0.1, "num_steps": 2}
    y = np.full(shape, 2.0, np.float32)
    for adjusted in (False, True):
        options["temperature"] = 1e-12 if adjusted else 0.0
        chain = partial(
            langevin.sample, energy_fn=_half_square, adjusted=adjusted, **options
        )
        end, _ = toys.jit(lambda key, y, c=chain: c(key, y=y))(jax.random.key(0), y)
        chex.assert_shape(end, shape)
        if not adjusted:
            np.testing.assert_allclose(end, 0.81 * y, rtol=1e-6)


def test_beside_known_elements_a_plain_chain_has_the_law_of_the_smaller_problem():
    start = np.array([1.0, 9.0, -1.0, 9.0, 2.0])  # held from the first gradient on
    options = {"step_size": 0.2, "temperature": 1.0, "num_steps": 3}
    y, info = _run_tree(np.tile(start, (30_000, 1)), bounds=_box(), **options)
    np.testing.assert_array_equal(y[:, KNOWN], np.tile(GIVEN, (len(y), 1)))
    law = references.plain_law_vector(
        start[FREE],
        np.zeros((3, 3)),
        step=0.2,
        num_steps=3,
        precision=OF_FREE,
        centre=CONDITIONAL,
    )
    _assert_gaussian(y[:, FREE], *law)
    moved = np.sqrt(np.mean((y[:, FREE] - start[FREE]) ** 2, axis=1))
    np.testing.assert_allclose(info.displacement, moved, rtol=1e-4)


def test_beside_known_elements_an_adjusted_chain_has_the_exact_conditional():
    start = np.random.default_rng(8).normal(size=(30_000, 5))
    y, info = _run_tree(
        start,
        bounds=_box(),
        step_size=0.5,
        temperature=1.0,
        num_steps=40,
        adjusted=True,
    )
    np.testing.assert_array_equal(y[:, KNOWN], np.tile(GIVEN, (len(y), 1)))
    _assert_gaussian(y[:, FREE], CONDITIONAL, np.linalg.inv(OF_FREE))
    assert 0.3 < np.mean(info.acceptance) < 0.97


@pytest.mark.parametrize("low, high", [(-np.inf, np.inf), (-0.5, 1.5)])
def test_known_elements_are_in_no_proposal_density(low, high):
    step, temperature = 0.5, 0.8
    start = np.random.default_rng(9).uniform(-0.4, 1.4, size=(300, 5))
    start = np.float64(np.float32(start))
    y, info = _run_tree(
        start,
        bounds=_box(low, high),
        step_size=step,
        temperature=temperature,
        num_steps=1,
        adjusted=True,
    )

    def energy(free):
        return (free - CONDITIONAL) @ OF_FREE @ (free - CONDITIONAL) / 2

    np.testing.assert_array_equal(y[:, KNOWN], np.tile(GIVEN, (len(y), 1)))
    moved = np.any(y[:, FREE] != start[:, FREE], axis=1)
    assert 30 < np.sum(moved) < 290
    assert np.all((y[:, FREE] >= low) & (y[:, FREE] <= high))
    for before, after, alpha in zip(
        start[moved][:, FREE], y[moved][:, FREE], info.acceptance[moved], strict=True
    ):
        expected = references.acceptance(
            energy,
            lambda free: OF_FREE @ (free - CONDITIONAL),
            before,
            after,
            step=step,
            temperature=temperature,
        )
        np.testing.assert_allclose(alpha, expected, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("adjusted", [False, True])
@pytest.mark.parametrize("num_steps", [0, 3])
def test_a_known_element_stays_whatever_its_slope_and_start(adjusted, num_steps):
    def energy_fn(tree):  # not a number is the slope of known elements
        y = toys.as_vector(tree)
        at_known = (y[np.array(KNOWN)] - np.float32(GIVEN)) ** 2
        return _coupled(tree) + jnp.sum(jnp.sqrt(at_known))

    start = np.random.default_rng(10).normal(size=(20, 5))
    y, info = _run_tree(
        start,
        energy_fn=energy_fn,
        bounds=_box(),
        step_size=0.05,
        temperature=1.0,
        num_steps=num_steps,
        adjusted=adjusted,
    )
    np.testing.assert_array_equal(y[:, KNOWN], np.tile(GIVEN, (20, 1)))
    assert np.all(np.isfinite(y))
    assert np.all(np.isfinite(info.grad_norm))
    assert np.any(y[:, FREE] != np.float32(start[:, FREE])) == (num_steps > 0)


def test_a_box_of_two_numbers_is_its_half_width():
    start = np.random.default_rng(11).normal(size=(8, 5))
    for adjusted in (False, True):
        options = {"step_size": 0.2, "temperature": 1.0, "num_steps": 3}
        options |= {"adjusted": adjusted}
        half, _ = _run(_half_square, start, bounds=1.1, **options)
        box, _ = _run(_half_square, start, bounds=Box(-1.1, 1.1), **options)
        np.testing.assert_array_equal(half, box)


class GoldenTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_a_step_without_noise_agrees_compiled_and_not(self):
        @self.variant
        def chain(key, y):
            options = {"step_size": 0.1, "temperature": 0.0, "num_steps": 1}
            return langevin.sample(key, _half_square, y, **options)[0]

        y = chain(jax.random.key(0), jnp.arange(3.0))
        np.testing.assert_allclose(y, 0.9 * np.arange(3.0), rtol=1e-6)


LANGEVIN = "ired_jax.samplers.langevin"
NOISE = "jnp.sqrt(2 * h * temperature) * xi"
DRIFT = "boxes.still(bounds, boxes.clip(grad_clip, grad))"
STILL_NOISE = "boxes.still(bounds, trees.normal(key, y))"
PROPOSAL = "jax.tree.map(move, y, grad, xi)"
BESIDE_KNOWN = test_known_elements_are_in_no_proposal_density
NO_BOUNDS = {"low": -np.inf, "high": np.inf}


def test_a_side_of_a_tree_s_box_may_be_one_number():
    """And what is known stands still in a chain."""
    y = {"a": jnp.array([[1.0, 0.3]]), "b": jnp.zeros((1, 2))}
    box = Box({"a": jnp.array([1.0, -1.0]), "b": -jnp.ones(2)}, 1.0)
    schedule = toys.schedule()
    strategy = make_langevin(schedule, lambda x: box, toys.units(), 4)
    rows = {"x": jnp.zeros((1, 1)), "y0": y, "t": jnp.zeros(1, jnp.int32), "eps": y}

    def landscape(x, t):
        return lambda y: jnp.sum(y["a"] ** 2) + jnp.sum(y["b"] ** 2)

    start = strategy.start(jax.random.key(0), rows, 0.0)
    moved, _ = strategy.refine(jax.random.key(1), landscape, rows, start, 0.0)
    assert moved["a"][0, 0] == schedule.a[0]
    assert moved["a"][0, 1] != start["a"][0, 1]


MUTANTS = [
    Mutant(
        "langevin",
        "one number is no side of a tree's box",
        "ired_jax.negatives.langevin",
        one("mask, boxes.like(part, y))", "mask, part)"),
        test_a_side_of_a_tree_s_box_may_be_one_number,
        error=ValueError,
    ),
    Mutant(
        "langevin",
        "five per cent too much noise",
        LANGEVIN,
        one(NOISE, f"1.05 * {NOISE}"),
        test_a_plain_chain_has_the_exact_law_of_its_discrete_steps,
        {"num_steps": 3},
    ),
    Mutant(
        "langevin",
        "known elements count as not clipped",
        LANGEVIN,
        one("return boxes.mean_free(bounds, cut)", "return trees.mean(cut)"),
        test_what_a_clip_has_cut_is_a_share_of_the_free_elements,
    ),
    Mutant(
        "langevin",
        "the two proposal densities exchanged",
        LANGEVIN,
        one("(forth - back)", "(back - forth)"),
        test_one_acceptance_is_the_ratio_of_the_written_out_densities,
        {"clip": None, "bounds": None},
    ),
    Mutant(
        "langevin",
        "noise on known elements",
        LANGEVIN,
        one(STILL_NOISE, "trees.normal(key, y)"),
        BESIDE_KNOWN,
        NO_BOUNDS,
    ),
    Mutant(
        "langevin",
        "a drift on known elements",
        LANGEVIN,
        one(DRIFT, "boxes.clip(grad_clip, grad)"),
        BESIDE_KNOWN,
        NO_BOUNDS,
    ),
    Mutant(
        "langevin",
        "known elements in the proposal densities",
        LANGEVIN,
        (
            (DRIFT, "boxes.clip(grad_clip, grad)"),
            (PROPOSAL, f"boxes.hold(bounds, {PROPOSAL})"),
        ),
        BESIDE_KNOWN,
        NO_BOUNDS,
    ),
    Mutant(
        "langevin",
        "known elements begin where the start has them",
        LANGEVIN,
        one("y = boxes.hold(bounds, y)", "pass"),
        test_beside_known_elements_a_plain_chain_has_the_law_of_the_smaller_problem,
    ),
    Mutant(
        "langevin",
        "one noise for all leaves of a tree",
        "ired_jax.trees",
        one("jax.random.split(key, len(leaves))", "[key] * len(leaves)"),
        test_a_tree_has_the_law_of_the_vector_of_its_elements,
    ),
]
