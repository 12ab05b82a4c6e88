"""Inference: from the smoothest landscape to the sharpest, against a NumPy loop."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ired_jax import diffusion, trees
from ired_jax.samplers import inference
from ired_jax.types import Box
from tests import references, toys
from tests.mutants import Mutant, one

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


@functools.cache
def _on_rugged(num_steps, is_doubled):
    """In float64 no step near a minimum is decided by the last bit."""
    options = {"num_steps": num_steps, "bounds": 1.5, "double_steps": is_doubled}
    with jax.enable_x64(True):
        return _solve(_rugged, **options)


@pytest.mark.parametrize("is_doubled", [False, True])
@pytest.mark.parametrize("num_steps", [0, 1, 4])
def test_every_level_equals_the_written_out_loop(num_steps, is_doubled):
    y, info = _on_rugged(num_steps, is_doubled)
    with jax.enable_x64(True):
        normal = jax.vmap(lambda key: jax.random.normal(key, (D,)))
        starts = np.asarray(toys.jit(normal)(jax.random.split(KEY, 6)))
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
        [_on_rugged(steps, is_doubled)[1].answers for is_doubled in (False, True)]
        for steps in (1, 4)
    )
    np.testing.assert_array_equal(*one)
    assert np.max(np.abs(two[0] - two[1])) > 1e-3


def test_each_level_stops_where_its_denoised_answer_is_within_the_tolerance():
    # A fifth of the ideal slope: predict_start leaves four fifths of what is missing,
    # and a step of beta_t / s_t on curvature 1 / (5 s_t) keeps 1 - beta_t / (5 s_t^2).
    beta, _, a, s = LEVELS
    answer, tolerance = np.linspace(-1, 1, D, dtype=np.float32), 0.01
    options = {"num_steps": 50, "bounds": 1e9}
    landscape = lambda row, y, t: _ideal(answer, y, t) / 5  # noqa: E731
    y, info = _solve(landscape, tolerance=tolerance, **options)
    normal = jax.vmap(lambda key: jax.random.normal(key, (D,)))
    start = np.asarray(toys.jit(normal)(jax.random.split(KEY, 6)))
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
    _, info = _on_rugged(4, False)
    _, before = _on_rugged(0, False)
    # The first level starts alike; later ones start where the level above ended.
    assert np.all(info.energies[:, 0] <= before.energies[:, 0] + 1e-5)
    assert np.mean(info.energies[:, 0] < before.energies[:, 0] - 1e-3) > 0.5


def test_an_answer_does_not_depend_on_its_batch():
    keys, options = jax.random.split(KEY, 6), {"num_steps": 4, "bounds": 1.5}
    together, _ = _on_rugged(4, False)
    with jax.enable_x64(True):
        alone, _ = _solve(_rugged, keys=keys[5:6], **options)
        reversed_, _ = _solve(_rugged, keys=keys[::-1], **options)
    np.testing.assert_allclose(together[5], alone[0], rtol=1e-4)
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


# --- trees, known elements, noise, clean data -------------------------------------

FREE, KNOWN = [0, 2, 4], [1, 3]
GIVEN = np.float64(np.float32([0.7, -1.3]))
LOW, HIGH = np.array([-1.5, -0.3, -2.0]), np.array([0.6, 1.1, 0.9])
SHAPE = {
    "grid": jax.ShapeDtypeStruct((3, 1), jnp.float32),
    "pair": jax.ShapeDtypeStruct((2,), jnp.float32),
}


def _box(low=LOW, high=HIGH, dtype=jnp.float32):
    sides = np.zeros((2, 5))
    sides[0, FREE], sides[1, FREE], sides[:, KNOWN] = low, high, GIVEN
    return Box(*(toys.as_tree(jnp.asarray(side, dtype)) for side in sides))


def _solve_tree(start, energy_fn=_rugged, kind="cosine", **options):
    """Answers from rows of starts [N, 5], each row a tree: rows, levels [N, T, 5]."""
    schedule = diffusion.make_schedule(kind, 1 if kind == "clean" else T)
    keys = jax.random.split(KEY, len(start))

    def one(key, y):
        y0, info = inference.solve_from(
            toys.as_tree(y),
            lambda tree, t: energy_fn(None, toys.as_vector(tree), t),
            schedule,
            key=key,
            trace=True,
            **options,
        )
        return toys.as_vector(y0), info, jax.vmap(toys.as_vector)(info.answers)

    y0, info, answers = toys.jit(jax.vmap(one))(keys, jnp.asarray(start))
    info = jax.tree.map(np.float64, info._replace(answers=None))
    return np.float64(y0), info, np.float64(answers)


def test_a_tree_is_answered_as_the_vector_of_its_elements():
    start = np.random.default_rng(0).normal(size=(4, D))
    with jax.enable_x64(True):
        y0, info, answers = _solve_tree(start, num_steps=3, bounds=1.5)
    for i in range(4):
        expected, shares, energy = references.solve(
            _rugged_numpy,
            _rugged_gradient,
            LEVELS,
            start[i],
            num_steps=3,
            bounds=1.5,
            is_doubled=False,
        )
        np.testing.assert_allclose(answers[i], expected, atol=1e-5)
        np.testing.assert_allclose(info.acceptance[i], shares)
        np.testing.assert_allclose(info.energy[i], energy, atol=1e-5)
    np.testing.assert_array_equal(y0, answers[:, -1])


@pytest.mark.parametrize("shape", [SHAPE, (2, 3), ()])
def test_an_answer_has_the_shape_asked_for_and_starts_from_its_own_noise(shape):
    schedule = diffusion.make_schedule("cosine", T)
    options = {"num_steps": 1, "bounds": None, "trace": True}

    @toys.jit
    def both(key):
        flat = lambda y, t: 0.0 * trees.total(y)  # noqa: E731
        like = SHAPE if shape is SHAPE else jnp.zeros(shape)
        solved = inference.solve(key, flat, schedule, shape, **options)
        return solved, trees.normal(key, like)

    (y0, info), start = both(KEY)
    # With no slope and no box nothing but a_t changes the start.
    found = jax.tree.map(lambda y: y * jnp.float32(LEVELS[2][-1]), y0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, start)
    for level, leaf in zip(*map(jax.tree.leaves, (info.answers, y0)), strict=True):
        assert level.shape == (T, *leaf.shape)


def _loop(start, noise, low, high, *, num_steps):
    """The free elements alone, known ones at a_t GIVEN: y_0 after each level, [T, 5].

    noise[t]: [3], of the hand-over to level t; None for none.
    """
    beta, _, a, s = LEVELS

    def full(z, scale):
        y = np.zeros(D)
        y[FREE], y[KNOWN] = z, scale * GIVEN
        return y

    answers, z = [], start
    for t in reversed(range(T)):
        slope = lambda z, t=t: _rugged_gradient(full(z, a[t]), t)[FREE]  # noqa: E731
        height = lambda z, t=t: _rugged_numpy(full(z, a[t]), t)  # noqa: E731
        z = a[t] * np.clip((z - s[t] * slope(z)) / a[t], low, high)
        for _ in range(num_steps):
            new = np.clip(z - beta[t] / s[t] * slope(z), a[t] * low, a[t] * high)
            z = new if height(new) < height(z) else z
        answers.append(full(z / a[t], 1))
        z = a[t - 1] * z / a[t]
        if noise is not None and t:
            z = z + s[t - 1] * noise[t - 1]
    return answers


@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("num_steps", [0, 3])
def test_beside_known_elements_it_is_the_loop_of_the_others(num_steps, noise):
    starts = np.random.default_rng(1).normal(size=(6, D))
    with jax.enable_x64(True):
        box = _box(dtype=jnp.float64)
        y0, info, answers = _solve_tree(
            starts, num_steps=num_steps, bounds=box, noise=noise
        )
        fold = jax.vmap(jax.random.fold_in, (None, 0))
        keys = jax.vmap(fold, (0, None))(jax.random.split(KEY, 6), np.arange(T))

        def draw(key):
            return toys.as_vector(trees.normal(key, toys.as_tree(jnp.zeros(D))))

        drawn = np.array(toys.jit(jax.vmap(jax.vmap(draw)))(keys))
    given = np.broadcast_to(GIVEN, (6, T, 2))
    np.testing.assert_array_equal(answers[:, :, KNOWN], given)
    np.testing.assert_array_equal(y0, answers[:, -1])
    for i, start in enumerate(starts):
        eps = drawn[i][:, FREE] if noise else None
        expected = _loop(start[FREE], eps, LOW, HIGH, num_steps=num_steps)
        np.testing.assert_allclose(answers[i], expected, atol=1e-5)
        energy = _rugged_numpy(LEVELS[2][0] * expected[-1], 0)
        np.testing.assert_allclose(info.energy[i], energy, atol=1e-5)


@pytest.mark.parametrize("noise", [False, True])
def test_known_elements_are_exact_in_float32_and_whatever_their_slope(noise):
    def energy_fn(row, y, t):  # not a number is the slope of known elements
        a = jnp.float32(LEVELS[2])[t]
        at_known = (y[jnp.array(KNOWN)] - a * jnp.float32(GIVEN)) ** 2
        return _rugged(row, y, t) + jnp.sum(jnp.sqrt(at_known))

    starts = np.float32(np.random.default_rng(2).normal(size=(20, D)))
    _, info, answers = _solve_tree(
        starts, energy_fn, num_steps=2, bounds=_box(), noise=noise
    )
    given = np.broadcast_to(GIVEN, (20, T, 2))
    np.testing.assert_array_equal(answers[:, :, KNOWN], given)
    assert np.all(np.isfinite(answers))
    assert np.all(np.isfinite(info.energies))


def test_the_noise_of_a_hand_over_is_that_of_the_level_below():
    # Without a slope or a box, y_0 of level t - 1 less that of t is s eps / a of t - 1.
    keys, count = jax.random.split(KEY, 4000), 4000
    flat = lambda row, y, t: 0.0 * jnp.sum(y)  # noqa: E731
    _, _, a, s = LEVELS
    with jax.enable_x64(True):
        _, info = _solve(flat, keys=keys, bounds=1e9, num_steps=0, noise=True)
        _, silent = _solve(flat, keys=keys, bounds=1e9, num_steps=0)
    steps = np.diff(info.answers, axis=1)[:, ::-1]  # by level 0 .. T-2
    eps = steps * (a / s)[:-1, None]
    error = np.sqrt(2 / (count * D))
    for level in range(T - 1):
        assert abs(np.var(eps[:, level]) - 1) < 5 * error
        assert abs(np.mean(eps[:, level])) < 5 / np.sqrt(count * D)
    # Levels, elements and the start share no noise.
    first = silent.answers[:, 0] * a[-1]
    together = np.concatenate([eps.reshape(count, -1), first], axis=1)
    off = np.corrcoef(together.T) - np.eye(together.shape[1])
    assert np.max(np.abs(off)) < 5.5 / np.sqrt(count)
    # The start and, without noise, every level are as they were.
    np.testing.assert_array_equal(info.answers[:, 0], silent.answers[:, 0])
    np.testing.assert_allclose(np.diff(silent.answers, axis=1), 0, atol=1e-9)


def test_noise_needs_a_key():
    schedule = diffusion.make_schedule("cosine", T)
    options = {"num_steps": 1, "bounds": 1.0, "noise": True}
    with pytest.raises(ValueError, match="key=None"):
        inference.solve_from(jnp.zeros(D), lambda y, t: jnp.sum(y), schedule, **options)


MISFITS = {
    "integers": jnp.zeros(D, jnp.int32),
    "half precision": jnp.zeros(D, jnp.bfloat16),
    "two dtypes": {"a": jnp.zeros(D), "b": np.zeros(D, np.float16)},
}


@pytest.mark.parametrize("kind", MISFITS)
def test_a_start_of_another_dtype_is_refused_before_it_is_traced(kind):
    def energy_fn(y, t):
        pytest.fail("its energy was asked for")

    schedule = diffusion.make_schedule("cosine", T)
    with pytest.raises(AssertionError, match=r"float|dtype|32 bits"):
        inference.solve_from(
            MISFITS[kind], energy_fn, schedule, num_steps=1, bounds=None
        )


@pytest.mark.parametrize("tolerance", [None, 0.3])
def test_on_clean_data_inference_is_one_descent_from_the_start(tolerance):
    starts = 0.5 * np.random.default_rng(3).normal(size=(6, D))
    curvature = 0.4

    def energy_fn(_, y, t):
        return 0.5 * curvature * jnp.sum((y - 1) ** 2)

    y0, info, answers = _solve_tree(
        np.float32(starts),
        energy_fn,
        kind="clean",
        num_steps=4,
        bounds=1.2,
        tolerance=tolerance,
    )
    # A step of 1 leaves 1 - c of what is missing; the slope is c times that.
    missing = np.clip(starts, -1.2, 1.2) - 1
    slope = curvature * np.sqrt(np.mean(missing**2, axis=1))
    limit = np.log((tolerance or 1e-9) / slope) / np.log(1 - curvature)
    steps = np.clip(np.ceil(limit), 0, 4)
    expected = 1 + missing * (1 - curvature) ** steps[:, None]
    np.testing.assert_array_equal(info.steps[:, 0], steps)
    np.testing.assert_allclose(y0, expected, atol=1e-6)
    np.testing.assert_array_equal(answers[:, 0], y0)
    energy = 0.5 * curvature * np.sum((expected - 1) ** 2, axis=1)
    np.testing.assert_allclose(info.energy, energy, rtol=1e-4)


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


INFERENCE = "ired_jax.samplers.inference"
LOOP = test_beside_known_elements_it_is_the_loop_of_the_others
MUTANTS = [
    Mutant(
        "inference",
        "a start of half precision is taken",
        INFERENCE,
        one("    trees.dtype(y)\n", ""),
        test_a_start_of_another_dtype_is_refused_before_it_is_traced,
        {"kind": "half precision"},
        error=pytest.fail.Exception,
    ),
    Mutant(
        "inference",
        "a tolerance on the slope, not on the answer",
        INFERENCE,
        one("tolerance / schedule.temperature[t]", "tolerance"),
        test_each_level_stops_where_its_denoised_answer_is_within_the_tolerance,
    ),
    Mutant(
        "inference",
        "no tolerance at all on clean data",
        INFERENCE,
        one("tolerance / schedule.temperature[t]", "tolerance / schedule.s[t]"),
        test_on_clean_data_inference_is_one_descent_from_the_start,
        {"tolerance": 0.3},
    ),
    Mutant(
        "bounds",
        "one level's bound for all levels of inference",
        INFERENCE,
        one("boxes.scale(bounds, a)", "boxes.scale(bounds, schedule.a[0])"),
        test_every_level_is_held_to_its_own_bounds_for_every_row,
    ),
    Mutant(
        "inference",
        "the answer shrunk by a_0",
        INFERENCE,
        one("return y0, SolveInfo(", "return schedule.a[0] * y0, SolveInfo("),
        test_on_the_ideal_landscape_every_row_finds_its_answer,
    ),
    Mutant(
        "inference",
        "known elements begin as noise",
        INFERENCE,
        one("y = boxes.hold(boxes.scale(bounds, schedule.a[last]), y)", "pass"),
        LOOP,
        {"num_steps": 0, "noise": False},
    ),
    Mutant(
        "inference",
        "known elements handed over with noise",
        INFERENCE,
        one("boxes.still(bounds, eps)", "eps"),
        LOOP,
        {"num_steps": 0, "noise": True},
    ),
    Mutant(
        "inference",
        "known elements reported as what is left of a_t times them",
        INFERENCE,
        one("y0 = boxes.hold(bounds, jax", "y0 = (lambda _, y: y)(bounds, jax"),
        test_known_elements_are_exact_in_float32_and_whatever_their_slope,
        {"noise": False},
    ),
    Mutant(
        "inference",
        "the noise of the level above handed over",
        INFERENCE,
        one(
            "q_sample(schedule, y0, t, boxes",
            "q_sample(schedule._replace(s=jnp.roll(schedule.s, -1)), y0, t, boxes",
        ),
        test_the_noise_of_a_hand_over_is_that_of_the_level_below,
    ),
    Mutant(
        "inference",
        "one noise for all hand-overs",
        INFERENCE,
        one("jax.random.fold_in(key, t)", "jax.random.fold_in(key, 0)"),
        test_the_noise_of_a_hand_over_is_that_of_the_level_below,
    ),
]
