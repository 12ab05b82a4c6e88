"""Inference: from the smoothest landscape to the sharpest, against a NumPy loop."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ired_jax import diffusion
from ired_jax.samplers import inference
from tests import references, toys

T, D = 10, 5
LEVELS = references.schedule("cosine", T)
KEY = jax.random.key(3)


def _solve(energy_fn, *, keys=None, rows=None, num_steps=3, bounds=2.0, **options):
    """One answer a key; energy_fn(row, y, t), rows a value for each key."""
    schedule = diffusion.make_schedule("cosine", T)
    keys = jax.random.split(KEY, 6) if keys is None else keys
    rows = jnp.zeros(len(keys)) if rows is None else rows
    bounds = jnp.full(len(keys), bounds, jnp.float32)

    def one(key, row, bounds):
        return inference.solve(
            key,
            lambda y, t: energy_fn(row, y, t),
            schedule,
            (D,),
            num_steps=num_steps,
            bounds=bounds,
            trace=True,
            **options,
        )

    y, info = toys.jit(jax.vmap(one))(keys, rows, bounds)
    chex.assert_shape(y, (len(keys), D))
    chex.assert_shape([info.energies, info.acceptance, info.steps], (len(keys), T))
    chex.assert_shape(info.answers, (len(keys), T, D))
    return np.float64(y), jax.tree.map(np.float64, info)


def _ideal(answer, y, t):
    """|y - a_t y*|^2 / (2 s_t)."""
    _, _, a, s = (jnp.float32(array) for array in LEVELS)
    return jnp.sum((y - a[t] * answer) ** 2) / (2 * s[t])


def _rugged(_, y, t):
    """Not the ideal landscape: waves whose length and depth change with the level."""
    level = t.astype(y.dtype)
    return jnp.sum(0.1 * y**2 + jnp.cos((1 + 0.2 * level) * y + level)) + jnp.sin(
        jnp.sum(y)
    )


def _rugged_numpy(y, t):
    return np.sum(0.1 * y**2 + np.cos((1 + 0.2 * t) * y + t)) + np.sin(np.sum(y))


def _rugged_gradient(y, t):
    k = 1 + 0.2 * t
    return 0.2 * y - k * np.sin(k * y + t) + np.cos(np.sum(y))


def test_on_the_ideal_landscape_every_row_finds_its_answer():
    answers = np.random.default_rng(0).uniform(-1.9, 1.9, size=(6, D))
    y, info = _solve(_ideal, rows=jnp.float32(answers))
    np.testing.assert_allclose(y, answers, atol=1e-5)
    np.testing.assert_allclose(info.energy, 0, atol=1e-8)
    # y_0 itself is reported, not a_0 y_0.
    shrink = 1 - LEVELS[2][0]
    assert np.max(np.abs(y - answers)) < 0.01 * shrink


@pytest.mark.parametrize("is_doubled", [False, True])
@pytest.mark.parametrize("num_steps", [0, 1, 4])
def test_every_level_equals_the_written_out_loop(num_steps, is_doubled):
    keys = jax.random.split(KEY, 6)
    # In float64 no step near a minimum is decided by the last bit.
    with jax.enable_x64(True):
        starts = np.array([jax.random.normal(key, (D,)) for key in keys])
        y, info = _solve(
            _rugged, keys=keys, num_steps=num_steps, bounds=1.5, double_steps=is_doubled
        )
    for i, start in enumerate(starts):
        answers, shares, energy = references.solve(
            _rugged_numpy,
            _rugged_gradient,
            LEVELS,
            start,
            num_steps=num_steps,
            bounds=1.5,
            is_doubled=is_doubled,
        )
        np.testing.assert_allclose(info.answers[i], answers, atol=1e-5)
        np.testing.assert_allclose(y[i], answers[-1], atol=1e-5)
        np.testing.assert_allclose(info.energy[i], energy, atol=1e-5)
        if num_steps:
            np.testing.assert_allclose(info.acceptance[i], shares, rtol=1e-6)


def test_doubling_changes_the_steps_from_the_second_on():
    one, two = (
        [
            _solve(_rugged, num_steps=steps, double_steps=is_doubled)[0]
            for is_doubled in (False, True)
        ]
        for steps in (1, 3)
    )
    np.testing.assert_array_equal(*one)
    assert np.max(np.abs(two[0] - two[1])) > 1e-3


def test_each_level_stops_where_its_denoised_answer_is_within_the_tolerance():
    # A fifth of the ideal slope: predict_start leaves four fifths of what is missing,
    # and a step of beta_t / s_t on curvature 1 / (5 s_t) keeps 1 - beta_t / (5 s_t^2).
    beta, _, a, s = LEVELS
    answer, tolerance = jnp.linspace(-1, 1, D), 0.01
    options = {"num_steps": 50, "bounds": 1e9}
    landscape = lambda row, y, t: _ideal(answer, y, t) / 5  # noqa: E731
    y, info = _solve(landscape, tolerance=tolerance, **options)
    start = np.array([jax.random.normal(key, (D,)) for key in jax.random.split(KEY, 6)])
    missing = start - a[-1] * np.float64(answer)
    for t in reversed(range(T)):
        missing = 0.8 * missing
        # s_t grad E is a fifth of what is missing.
        ratio = 5 * tolerance / np.sqrt(np.mean(missing**2, axis=1))
        keep = 1 - beta[t] / (5 * s[t] ** 2)
        steps = np.clip(np.ceil(np.log(ratio) / np.log(keep)), 0, 50)
        np.testing.assert_array_equal(info.steps[:, T - 1 - t], steps)
        missing = missing * keep ** steps[:, None] * (a[t - 1] / a[t] if t else 1)
    np.testing.assert_allclose(y, np.float64(answer) + missing / a[0], atol=1e-4)
    _, all_steps = _solve(landscape, **options)
    np.testing.assert_array_equal(all_steps.steps, 50)


def test_every_level_is_held_to_its_own_bounds_for_every_row():
    bounds = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 16.0])
    # So steep that both the denoised start and the first step leave the box.
    y, info = _solve(lambda row, y, t: -1e4 * jnp.sum(y), bounds=bounds)
    expected = np.broadcast_to(bounds[:, None, None], (6, T, D))
    np.testing.assert_allclose(info.answers, expected, rtol=1e-6)
    np.testing.assert_allclose(y, expected[:, 0], rtol=1e-6)
    # The energy of a level is that of a_t y_0: the box is that of its level.
    a = LEVELS[2][::-1]
    np.testing.assert_allclose(info.energies, -1e4 * D * a * bounds[:, None], rtol=1e-5)


def test_descent_within_a_level_respects_the_box():
    # The denoised start is inside (no slope at 0), the descent wants out.
    y, info = _solve(lambda row, y, t: -1e3 * jnp.sum(y**2), bounds=1.0, num_steps=2)
    assert np.max(np.abs(info.answers)) <= 1 + 1e-6
    np.testing.assert_allclose(np.abs(y), 1, rtol=1e-6)


def test_energy_never_rises_within_a_level():
    _, info = _solve(_rugged, num_steps=4, bounds=1.5)
    _, before = _solve(_rugged, num_steps=0, bounds=1.5)
    # The first level starts alike; later ones start where the level above ended.
    assert np.all(info.energies[:, 0] <= before.energies[:, 0] + 1e-5)
    assert np.mean(info.energies[:, 0] < before.energies[:, 0] - 1e-3) > 0.5


def test_an_answer_does_not_depend_on_its_batch():
    keys = jax.random.split(KEY, 8)
    together, _ = _solve(_rugged, keys=keys)
    alone, _ = _solve(_rugged, keys=keys[5:6])
    np.testing.assert_allclose(together[5], alone[0], rtol=1e-4)
    reversed_, _ = _solve(_rugged, keys=keys[::-1])
    np.testing.assert_allclose(together, reversed_[::-1], rtol=1e-4)


def test_another_key_is_another_start():
    # Bounds so wide that the start noise survives an energy without a slope.
    keys = jnp.stack([jax.random.key(0), jax.random.key(0), jax.random.key(1)])
    y, _ = _solve(lambda row, y, t: 0 * jnp.sum(y), keys=keys, bounds=1e9)
    np.testing.assert_array_equal(y[0], y[1])
    assert np.all(np.abs(y[0] - y[2]) > 0)
    start = jax.random.normal(jax.random.key(0), (D,))
    np.testing.assert_allclose(y[0] * LEVELS[2][-1], start, rtol=1e-5)


class _Bound:
    """`_rugged` as a landscape that can be bound to a level."""

    def __init__(self, may_call):
        self.may_call = may_call
        self.num_bound = 0

    def __call__(self, y, t):
        assert self.may_call
        return _rugged(None, y, t)

    def at(self, t):
        self.num_bound += 1
        return lambda y: _rugged(None, y, t)


def test_a_landscape_is_bound_once_a_level_where_it_can_be():
    schedule = diffusion.make_schedule("cosine", T)
    bound = _Bound(may_call=False)

    def answer(energy_fn):
        @toys.jit
        def run(key):
            options = {"num_steps": 2, "bounds": 2.0}
            return inference.solve(key, energy_fn, schedule, (D,), **options)[0]

        return run(KEY)

    with_at = answer(bound)
    assert bound.num_bound == 1  # in the body that all levels share
    without = answer(lambda y, t: _rugged(None, y, t))
    np.testing.assert_allclose(with_at, without, rtol=1e-5, atol=1e-6)


def test_answers_of_each_level_come_only_with_a_trace():
    schedule = diffusion.make_schedule("cosine", T)
    shapes = jax.eval_shape(
        lambda key: inference.solve(
            key, lambda y, t: jnp.sum(y), schedule, (D,), num_steps=1, bounds=1.0
        )[1],
        KEY,
    )
    assert shapes.answers is None


def test_an_answer_that_is_no_vector_is_refused():
    schedule = diffusion.make_schedule("cosine", T)
    for shape in ((), (2, 3)):
        with pytest.raises(AssertionError):
            inference.solve(
                KEY, lambda y, t: jnp.sum(y), schedule, shape, num_steps=1, bounds=1.0
            )


class GoldenTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_inference_agrees_compiled_and_not(self):
        answer = jnp.linspace(-1, 1, D)
        schedule = diffusion.make_schedule("cosine", T)

        @self.variant
        def run(key):
            return inference.solve(
                key,
                lambda y, t: _ideal(answer, y, t),
                schedule,
                (D,),
                num_steps=1,
                bounds=2.0,
            )[0]

        np.testing.assert_allclose(run(KEY), answer, atol=1e-5)
