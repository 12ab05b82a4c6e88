"""Addition of matrices and the entrywise energy."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ired_jax import boxes, diffusion
from ired_jax.energies import entrywise
from ired_jax.tasks import addition
from tests import toys
from tests.mutants import Mutant, one

COUNT = 512


def _examples(source, count=COUNT):
    keys = jax.random.split(jax.random.key(0), count)
    draw = toys.jit(jax.vmap(lambda key: source.draw(source.data, key)))
    return jax.tree.map(np.asarray, draw(keys))


@pytest.mark.parametrize("split, limit", [("val", 1.0), ("ood", 2.5)])
def test_entries_are_uniform_and_answers_their_sums_inside_the_box(split, limit):
    task = addition.make_addition(n=3)
    source = task.splits[split]
    x, y = map(np.float64, _examples(source))
    assert x.shape == (COUNT, 18)
    np.testing.assert_allclose(y, x[:, :9] + x[:, 9:], atol=1e-6)
    # Kolmogorov-Smirnov: above 2.7 / sqrt(N) less than once in a million.
    ranks = np.sort(x.ravel() / (2 * limit) + 0.5)
    gap = np.max(np.abs(ranks - (np.arange(ranks.size) + 0.5) / ranks.size))
    assert gap < 2.7 / np.sqrt(ranks.size)
    assert boxes.inside(source.box(x[0]), y)


def test_the_box_of_the_harder_set_cuts_no_answer():
    """A clip at +-2 costs E (|y| - 2)+^2 = 54 / 100 of a perfect predictor."""
    task = addition.make_addition(n=20)
    source = task.splits["ood"]
    x, y = _examples(source, 200)
    np.testing.assert_array_equal(boxes.clip(source.box(x[0]), y), y)
    # y / 5 is triangular: the integral of (v - 2)^2 (5 - v) / 25 over 2..5, twice.
    cost = np.mean((np.clip(y, -2, 2) - y) ** 2)
    assert abs(cost - 0.54) < 0.02


def test_the_residual_is_zero_when_right_and_the_distance_when_not():
    task = addition.make_addition(n=4)
    x, y = _examples(task.train, 8)
    shift = np.random.default_rng(0).normal(size=y.shape)
    residual = toys.jit(jax.vmap(task.residual))
    np.testing.assert_allclose(residual(x, y), 0, atol=1e-6)
    expected = np.linalg.norm(shift, axis=1)
    np.testing.assert_allclose(residual(x, y + np.float32(shift)), expected, rtol=1e-5)


def test_a_corrupted_sum_is_wrong_and_inside_the_box():
    task = addition.make_addition(n=2)
    x, y = _examples(task.train)
    keys = jax.random.split(jax.random.key(1), COUNT)
    wrong = np.asarray(toys.jit(jax.vmap(task.corrupt))(keys, x, y))
    is_moved = wrong != y
    assert np.all(is_moved.any(axis=1))
    assert not np.any(is_moved.all(axis=0))
    assert boxes.inside(task.train.box(x[0]), wrong)


def test_a_size_below_one_is_refused_by_name():
    with pytest.raises(ValueError, match="n=0"):
        addition.make_addition(n=0)


# --- the entrywise energy ---------------------------------------------------------


def _energy(width=8, y_size=4):
    schedule = diffusion.make_schedule("cosine", 10)
    energy = entrywise.make_entrywise(2 * y_size, y_size, schedule, width=width)
    return schedule, energy, toys.jit(energy.init)(jax.random.key(0))


def _random(params):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: np.float32(rng.normal(size=leaf.shape)), params)


def test_the_entrywise_energy_is_a_sum_over_elements_for_every_number_of_them():
    _, energy, params = _energy()
    params, rng = _random(params), np.random.default_rng(1)
    first, second, y = np.float32(rng.normal(size=(3, 6)))
    of, t = toys.jit(energy.apply), np.int32(3)
    whole = of(params, np.concatenate([first, second]), y, t)
    parts = [
        of(params, np.stack([a, b]), c[None], t)
        for a, b, c in zip(first, second, y, strict=True)
    ]
    np.testing.assert_allclose(whole, sum(parts), rtol=1e-5)
    assert min(parts) > 0
    assert len({float(part) for part in parts}) == 6


@pytest.mark.parametrize("width", [0, 3])
def test_the_entrywise_energy_may_have_a_single_level(width):
    schedule = diffusion.make_schedule("cosine", 1)
    energy = entrywise.make_entrywise(4, 2, schedule, width=width)
    params = energy.init(jax.random.key(0))
    assert energy(params, jnp.ones(4), jnp.ones(2), jnp.int32(0)) > 0


def test_the_ideal_landscape_of_a_sum_is_among_the_entrywise_ones():
    """E = |y - a (x1 + x2)|^2 / (2 s): the linear part alone says it."""
    schedule, energy, params = _energy(width=0)
    a, s = np.asarray(schedule.a), np.asarray(schedule.s)
    ideal = np.stack([-a, -a, np.ones_like(a)], axis=1)[..., None]
    params = {"linear": ideal, "offset": 0 * np.asarray(params["offset"])}
    x, y = np.arange(8, dtype=np.float32), np.float32([1, -2, 3, 0.5])
    both = toys.jit(jax.value_and_grad(energy, 2))
    for t in (0, 9):
        gap = y - a[t] * (x[:4] + x[4:])
        value, grad = both(params, x, y, np.int32(t))
        np.testing.assert_allclose(value, np.sum(gap**2) / (2 * s[t]), 1e-5)
        np.testing.assert_allclose(grad, gap / s[t], rtol=1e-5)


def test_the_nonlinear_part_is_silent_at_first_and_reads_all_its_inputs_later():
    _, energy, params = _energy()
    x, y, t = np.float32(range(8)) / 8, np.float32(range(4)), np.int32(2)
    linear = {k: params[k] for k in ("linear", "offset")}
    plain = toys.jit(_energy(width=0)[1].apply)
    of = toys.jit(jax.value_and_grad(energy, (0, 1, 2)))
    np.testing.assert_allclose(of(params, x, y, t)[0], plain(linear, x, y, t), 1e-5)
    params = _random(params) | linear
    value, grads = of(params, x, y, t)
    for leaf in jax.tree.leaves(grads):
        assert np.any(leaf != 0)
    assert of(params, x, y, np.int32(3))[0] != value


def test_sizes_that_do_not_fit_are_refused():
    schedule, energy, params = _energy()
    with pytest.raises(ValueError, match="x_size=7"):
        entrywise.make_entrywise(7, 4, schedule)
    with pytest.raises(ValueError, match="width=-1"):
        entrywise.make_entrywise(8, 4, schedule, width=-1)
    with pytest.raises(AssertionError):
        jax.eval_shape(energy.apply, params, np.ones(7), np.ones(4), np.int32(0))


class GoldenTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_the_answer_agrees_compiled_and_not(self):
        x = jnp.arange(8.0)
        np.testing.assert_array_equal(self.variant(addition.add)(x), [4, 6, 8, 10])


MUTANTS = [
    Mutant(
        "addition",
        "an energy of two levels at least",
        "ired_jax.energies.entrywise",
        one('name="level")(t[None])[0]', 'name="level")(t)'),
        test_the_entrywise_energy_may_have_a_single_level,
        {"width": 3},
        error=ValueError,
    ),
    Mutant(
        "addition",
        "the harder box is the released clip",
        "ired_jax.tasks.addition",
        one("Box(-2 * limit, 2 * limit)", "Box(-2.0, 2.0)"),
        test_the_box_of_the_harder_set_cuts_no_answer,
    ),
    Mutant(
        "addition",
        "a corrupted answer may be the right one",
        "ired_jax.tasks.addition",
        one("(score < 0.25) | (score == jnp.min(score))", "score < 0.25"),
        test_a_corrupted_sum_is_wrong_and_inside_the_box,
    ),
    Mutant(
        "addition",
        "the entrywise energy forgets its temperature",
        "ired_jax.energies.entrywise",
        one("/ (2 * schedule.temperature[t])", "/ 2"),
        test_the_ideal_landscape_of_a_sum_is_among_the_entrywise_ones,
    ),
]
