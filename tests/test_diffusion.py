"""The schedule against float64, the three identities of noising, and clean data."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ired_jax import diffusion
from tests import references
from tests.mutants import Mutant, one

KINDS = [("cosine", 1), ("cosine", 10), ("cosine", 100), ("linear", 21)]
KINDS += [("linear", 1000)]

# What people read off the plots of the method, to the digits given there.
PUBLISHED_S = [0.167, 0.318, 0.462, 0.594, 0.711, 0.812, 0.893, 0.952, 0.988, 1.0]
PUBLISHED_RATIO = [1.0, 0.75, 0.58, 0.5, 0.47, 0.47, 0.51, 0.59, 0.76, 1.0]


def _examples(num_levels=10, num_elements=6):
    """y_0, eps [T, D] and every level once."""
    y0, eps = np.random.default_rng(0).normal(size=(2, num_levels, num_elements))
    return jnp.float32(y0), jnp.float32(eps), jnp.arange(num_levels)


def _noised():
    schedule = diffusion.make_schedule("cosine", 10)
    y0, eps, t = _examples()
    y = jax.vmap(lambda *row: diffusion.q_sample(schedule, *row))(y0, t, eps)
    return schedule, y0, eps, t, y


@pytest.mark.parametrize("kind, num_levels", KINDS)
def test_every_array_equals_the_float64_formula_to_float32(kind, num_levels):
    schedule = diffusion.make_schedule(kind, num_levels)
    expected = references.schedule(kind, num_levels)
    assert schedule._fields == ("beta", "alpha_bar", "a", "s", "temperature")
    for array, oracle in zip(schedule, (*expected, expected[-1]), strict=True):
        chex.assert_shape(array, (num_levels,))
        chex.assert_type(array, jnp.float32)
        np.testing.assert_allclose(array, oracle, rtol=1e-6)
    assert schedule.num_levels == num_levels


def test_ten_cosine_levels_are_the_published_ones():
    schedule = diffusion.make_schedule("cosine", 10)
    beta, s = np.float64(schedule.beta), np.float64(schedule.s)
    np.testing.assert_allclose(s, PUBLISHED_S, atol=5.1e-4)
    np.testing.assert_allclose(beta / s**2, PUBLISHED_RATIO, atol=5.1e-3)


@pytest.mark.parametrize("kind, num_levels", KINDS)
def test_levels_go_from_sharp_to_smooth(kind, num_levels):
    schedule = diffusion.make_schedule(kind, num_levels)
    assert np.all(np.diff(schedule.s) >= 0)
    assert np.all(np.diff(schedule.a) < 0)
    assert np.all((np.array(schedule.beta) > 0) & (np.array(schedule.beta) < 1))


@pytest.mark.parametrize("num_levels", [1, 10, 20])
def test_a_linear_schedule_of_at_most_twenty_levels_is_refused(num_levels):
    with pytest.raises(ValueError, match=f"num_levels={num_levels}.*more than 20"):
        diffusion.make_schedule("linear", num_levels)


BAD_SCHEDULES = [("cosine", 0), ("clean", 0), ("clean", 2), ("square", 10)]


@pytest.mark.parametrize("kind, num_levels", BAD_SCHEDULES)
def test_bad_schedules_are_refused_by_name(kind, num_levels):
    with pytest.raises(ValueError, match=r"num_levels=[02]: |kind='square': "):
        diffusion.make_schedule(kind, num_levels)


def test_clean_data_are_left_as_they_are_at_temperature_one():
    schedule = diffusion.make_schedule("clean", 1)
    for array, value in zip(schedule, (0, 1, 1, 0, 1), strict=True):
        chex.assert_type(array, jnp.float32)
        np.testing.assert_array_equal(array, [value])
    y0, eps, _ = _examples()
    t = jnp.int32(0)
    np.testing.assert_array_equal(diffusion.q_sample(schedule, y0, t, eps), y0)
    np.testing.assert_array_equal(diffusion.predict_start(schedule, y0, t, eps), y0)
    assert diffusion.temperature(schedule, t) == 1
    assert diffusion.langevin_step_size(schedule, t, 0.25) == 0.25
    assert diffusion.descent_step_size(schedule, t) == 1


def test_a_tree_is_noised_as_the_vector_of_its_elements():
    schedule, y0, eps, t, y = _noised()

    def tree(rows):
        return {"grid": rows[:4].reshape(2, 2), "rest": (rows[4], rows[5:])}

    for function, first, last in (
        (diffusion.q_sample, y0, eps),
        (diffusion.predict_start, y, eps),
        (diffusion.predict_noise, y, y0),
    ):
        found = function(schedule, tree(first[3]), t[3], tree(last[3]))
        expected = tree(function(schedule, first[3], t[3], last[3]))
        chex.assert_trees_all_close(found, expected, rtol=1e-6)


def test_noised_answers_are_the_formula():
    _, y0, eps, _, y = _noised()
    _, _, a, s = references.schedule("cosine", 10)
    expected = a[:, None] * np.float64(y0) + s[:, None] * np.float64(eps)
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)


def test_noised_answers_have_the_spread_of_their_level():
    schedule = diffusion.make_schedule("cosine", 10)
    y0, eps = np.random.default_rng(1).normal(size=(2, 200_000))
    y0 = 2 * y0  # so that a and s cannot stand for each other
    _, _, a, s = references.schedule("cosine", 10)
    for t in (0, 4, 9):
        y = diffusion.q_sample(schedule, jnp.float32(y0), jnp.int32(t), eps)
        variance = 4 * a[t] ** 2 + s[t] ** 2
        limit = 4 * np.sqrt(2 / y0.size)  # four standard errors
        assert abs(np.var(y) / variance - 1) < limit


def test_the_noise_as_gradient_gives_back_the_start():
    schedule, y0, eps, t, y = _noised()
    start = jax.vmap(lambda *row: diffusion.predict_start(schedule, *row))(y, t, eps)
    # float32 loses the answer's digits where a_t is small: eps / a_t.
    error = np.abs(start - y0) * np.float64(schedule.a)[:, None]
    assert np.max(error) < 1e-6


def test_the_start_gives_back_the_noise():
    schedule, y0, eps, t, y = _noised()
    noise = jax.vmap(lambda *row: diffusion.predict_noise(schedule, *row))(y, t, y0)
    error = np.abs(noise - eps) * np.float64(schedule.s)[:, None]
    assert np.max(error) < 1e-6


def test_the_ideal_energy_denoises_without_error():
    schedule, y0, eps, t, y = _noised()

    def ideal(y, y0, t):
        return jnp.sum((y - schedule.a[t] * y0) ** 2) / (2 * schedule.s[t])

    grad = jax.vmap(jax.grad(ideal))(y, y0, t)
    np.testing.assert_allclose(grad, eps, atol=2e-6)


def test_the_temperature_is_s_and_steps_follow_it():
    schedule = diffusion.make_schedule("cosine", 10)
    beta, _, _, s = references.schedule("cosine", 10)
    t = jnp.arange(10)
    temperature = diffusion.temperature(schedule, t)
    langevin = diffusion.langevin_step_size(schedule, t, 0.25)
    descent = diffusion.descent_step_size(schedule, t)
    np.testing.assert_allclose(temperature, s, rtol=1e-6)
    np.testing.assert_allclose(langevin, 0.25 * s**2, rtol=1e-6)
    np.testing.assert_allclose(descent, beta / s, rtol=1e-6)


def test_shapes_that_would_broadcast_are_refused():
    schedule = diffusion.make_schedule("cosine", 10)
    y, t = jnp.zeros(3), jnp.int32(0)
    levels = jnp.zeros(3, jnp.int32)
    functions = (
        lambda y, t, other: diffusion.q_sample(schedule, y, t, other),
        lambda y, t, other: diffusion.predict_start(schedule, y, t, other),
        lambda y, t, other: diffusion.predict_noise(schedule, y, t, other),
    )
    for function in functions:
        shapes = ((y, t, jnp.zeros(())), (y, levels, y), (y, t, jnp.zeros((1, 3))))
        for bad in (*shapes, (y, t, [y]), ([y, y], t, [y, jnp.zeros(2)])):
            with pytest.raises(AssertionError):
                function(*bad)


class GoldenTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_noising_and_denoising_agree_compiled_and_not(self):
        schedule = diffusion.make_schedule("cosine", 10)
        y0, eps, _ = _examples()

        @self.variant
        def round_trip(schedule, y0, t, eps):
            y = diffusion.q_sample(schedule, y0, t, eps)
            start = diffusion.predict_start(schedule, y, t, eps)
            return start, diffusion.predict_noise(schedule, y, t, start)

        start, noise = round_trip(schedule, y0[3], jnp.int32(3), eps[3])
        np.testing.assert_allclose(start, y0[3], atol=1e-5)
        np.testing.assert_allclose(noise, eps[3], atol=1e-5)


MUTANTS = [
    Mutant(
        "diffusion",
        "predict_start adds the noise",
        "ired_jax.diffusion",
        one("(y - s * grad) / a", "(y + s * grad) / a"),
        test_the_noise_as_gradient_gives_back_the_start,
    ),
    Mutant(
        "diffusion",
        "clean data at the temperature of their noise, 0",
        "ired_jax.diffusion",
        one('np.ones(1) if kind == "clean" else s', "s"),
        test_clean_data_are_left_as_they_are_at_temperature_one,
    ),
    Mutant(
        "diffusion",
        "the temperature of every schedule 1",
        "ired_jax.diffusion",
        one('np.ones(1) if kind == "clean" else s', "np.ones_like(s)"),
        test_the_temperature_is_s_and_steps_follow_it,
    ),
    Mutant(
        "diffusion",
        "no step where there is no noise",
        "ired_jax.diffusion",
        one("jnp.where(s > 0, s, 1.0), temperature)", "jnp.where(s > 0, s, 1.0), 0.0)"),
        test_clean_data_are_left_as_they_are_at_temperature_one,
    ),
]
