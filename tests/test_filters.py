"""Residual filters: thresholds by level, and what they look at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ired_jax.negatives import filters
from ired_jax.negatives.filters import ResidualFilter
from ired_jax.types import Box
from tests import references, toys
from tests.mutants import Mutant, one
from tests.test_negatives import BOUNDS, column, landscape_in_energy, make_rows

_, _, A, _ = references.schedule("cosine", toys.T)


def residuals():
    """Residuals of rows at levels 0, 1, 2 and 4; level 3 has none."""
    rng = np.random.default_rng(5)
    t = np.int32([0, 1, 2, 4] * 10)
    return np.float32(rng.uniform(1, 2, t.size) * (1 + t)), t


def thresholds(previous, **spec):
    residual, t = residuals()
    spec = ResidualFilter(**spec)
    return np.asarray(filters.thresholds(spec, residual, t, jnp.float32(previous)))


def quantile_of_levels(quantile, previous):
    residual, t = residuals()
    of_level = [np.quantile(residual[t == i], quantile) for i in (0, 1, 2, 4)]
    return np.insert(of_level, 3, previous[3])


def test_fixed_thresholds_are_those_given():
    fixed = (1.0, 2.0, 3.0, 4.0, 5.0)
    np.testing.assert_array_equal(
        thresholds(np.ones(5), mode="fixed", fixed=fixed), fixed
    )


def test_a_count_of_what_is_wrong_does_not_truncate_fixed_thresholds():
    spec, counts = ResidualFilter("fixed", fixed=(1.5,)), jnp.array([1, 2])
    none = jnp.zeros(2, jnp.int32)
    assert filters.thresholds(spec, counts, none, jnp.zeros(1)) == 1.5


def test_fixed_thresholds_that_do_not_fit_the_levels_are_refused():
    with pytest.raises(AssertionError):
        thresholds(np.ones(5), mode="fixed", fixed=(1.0, 2.0))


def test_a_batch_quantile_is_that_of_each_level_and_an_empty_level_keeps_its_own():
    previous = np.arange(1.0, 6.0)
    actual = thresholds(previous, mode="batch_quantile", quantile=0.3)
    np.testing.assert_allclose(actual, quantile_of_levels(0.3, previous), rtol=1e-6)


def test_a_running_quantile_starts_at_the_first_batch_and_moves_by_its_momentum():
    previous = np.array([filters.UNSEEN, 1.0, 2.0, 3.0, 4.0])
    spec = {"mode": "running_quantile", "quantile": 0.3, "momentum": 0.9}
    batch = quantile_of_levels(0.3, previous)
    expected = 0.9 * previous + 0.1 * batch
    expected[0] = batch[0]
    np.testing.assert_allclose(thresholds(previous, **spec), expected, rtol=1e-6)


def test_a_running_quantile_of_0_goes_on_from_0():
    """Residuals of right answers are exactly 0 where an answer is of digits."""
    spec = ResidualFilter("running_quantile", quantile=0.5, momentum=0.9)
    level, found = jnp.zeros(3, jnp.int32), []
    limits = jnp.full(2, filters.UNSEEN)
    for median in (0, 0, 0, 10, 0, 10):
        residual = jnp.float32([0, median, median + 1])
        limits = filters.thresholds(spec, residual, level, limits)
        found.append(float(limits[0]))
    np.testing.assert_allclose(found, [0, 0, 0, 1, 0.9, 1.81], rtol=1e-6)
    assert limits[1] == filters.UNSEEN


def test_one_threshold_for_all_levels_is_the_quantile_of_all_rows():
    spec = {"mode": "batch_quantile", "quantile": 0.3, "per_level": False}
    expected = np.full(5, np.quantile(residuals()[0], 0.3))
    np.testing.assert_allclose(thresholds(np.zeros(5), **spec), expected, rtol=1e-6)


@pytest.mark.parametrize("mode", ["fixed", "batch_quantile", "running_quantile"])
@pytest.mark.parametrize("per_level", [True, False])
def test_a_threshold_carries_no_gradient(mode, per_level):
    residual, t = residuals()
    fixed = (1.0,) * 5
    spec = ResidualFilter(mode, fixed=fixed, per_level=per_level)

    def total(residual):
        return jnp.sum(filters.thresholds(spec, residual, t, jnp.zeros(5)))

    np.testing.assert_array_equal(jax.grad(total)(residual), np.zeros(t.size))


def filtered(rows, *, bounds=BOUNDS, denoised):
    @toys.jit
    def residual(rows):
        return filters.filtered_residual(
            toys.schedule(),
            toys.distance,
            landscape_in_energy,
            rows,
            box=lambda x: Box(-bounds, bounds),
            denoised=denoised,
        )

    return np.asarray(residual(rows))


def test_the_filter_sees_the_right_answer_in_any_point_of_the_ideal_landscape():
    # y and s grad E are of size 1 and cancel but for a_t y_0: rounding / a_t is left.
    rows = make_rows(40)
    residual = filtered(rows | {"y": 2 * rows["eps"]}, denoised=True)
    assert np.all(residual < 20 * np.finfo(np.float32).eps / A[rows["t"]])


def test_the_earlier_filter_sees_the_noised_point_over_a_within_the_bounds():
    rows = make_rows(40)
    y, t = 2 * rows["eps"], rows["t"]
    y0 = np.clip(y / column(A, t), -0.5, 0.5)
    expected = np.sqrt(np.mean((y0 - rows["y0"]) ** 2, axis=1))
    actual = filtered(rows | {"y": y}, bounds=0.5, denoised=False)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_fixed_thresholds_are_refused_where_they_do_not_fit():
    with pytest.raises(
        ValueError, match=r"thresholds=\(1.0,\): must hold one residual"
    ):
        filters.make_fixed(3, thresholds=(1.0,))
    with pytest.raises(ValueError, match="must be numbers, at least 0"):
        filters.make_fixed(2, thresholds=(1.0, -1.0))


MUTANTS = [
    Mutant(
        "filter",
        "a threshold that runs at 0 is a level unseen",
        "ired_jax.negatives.filters",
        one("previous < 0", "previous <= 0"),
        test_a_running_quantile_of_0_goes_on_from_0,
    ),
    Mutant(
        "filter",
        "fixed thresholds in the residual's dtype",
        "ired_jax.negatives.filters",
        one(
            "jnp.asarray(spec.fixed, previous.dtype)",
            "jnp.asarray(spec.fixed, residual.dtype)",
        ),
        test_a_count_of_what_is_wrong_does_not_truncate_fixed_thresholds,
    ),
    Mutant(
        "filter",
        "a level's quantile with gradient",
        "ired_jax.losses",
        one("jax.lax.stop_gradient(residual)", "residual"),
        test_a_threshold_carries_no_gradient,
        {"mode": "batch_quantile", "per_level": True},
    ),
    Mutant(
        "filter",
        "the quantile of all rows with gradient",
        "ired_jax.negatives.filters",
        one("jax.lax.stop_gradient(residual)", "residual"),
        test_a_threshold_carries_no_gradient,
        {"mode": "running_quantile", "per_level": False},
    ),
    Mutant(
        "filter",
        "momentum and its complement exchanged in the running threshold",
        "ired_jax.negatives.filters",
        one(
            "spec.momentum * previous + (1 - spec.momentum) * batch",
            "(1 - spec.momentum) * previous + spec.momentum * batch",
        ),
        test_a_running_quantile_starts_at_the_first_batch_and_moves_by_its_momentum,
    ),
]
