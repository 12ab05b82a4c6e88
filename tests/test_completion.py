"""Completion of matrices: the task, the energy of factors, and the least error."""

import functools

import jax
import numpy as np
import pytest

from experiments.data import completion as completion_bound
from ired_jax import boxes, diffusion
from ired_jax.energies import factors
from ired_jax.tasks import completion
from tests import toys
from tests.mutants import Mutant, one

SCALES = {"val": 1 / 20, "ood": 1 / 5}
LEVEL = np.int32(0)


@functools.cache
def _examples(split, count=500, n=20):
    """x [N, 2, n, n], y [N, n, n] in float64, as drawn in float32."""
    source = completion.make_completion(n=n).splits[split]
    keys = jax.random.split(jax.random.key(0), count)
    rows = toys.jit(jax.vmap(lambda key: source.draw(source.data, key)))(keys)
    return tuple(map(np.float64, rows))


@pytest.mark.parametrize("split", SCALES)
def test_half_is_seen_as_it_is_and_copying_has_the_published_error(split):
    x, y = _examples(split)
    values, seen = x[:, 0], x[:, 1]
    np.testing.assert_array_equal(values, seen * y)
    assert abs(seen.mean() - 0.5) < 5 * 0.5 / seen.size**0.5
    # Rows of one matrix are dependent: errors from the matrices' own means.
    for found, expected in (
        (np.mean(y**2, (1, 2)), 10 * SCALES[split] ** 2 + 0.01),
        (np.mean((values - y) ** 2, (1, 2)), {"val": 0.0175, "ood": 0.205}[split]),
    ):
        error = found.std() / len(found) ** 0.5
        assert abs(found.mean() - expected) < 5 * error
        assert error < 0.02 * expected


def test_what_is_left_without_the_factors_is_noise_of_a_tenth():
    options = {"shape": (6, 4), "rank": 3, "scale": 0.2}
    draw = toys.jit(jax.vmap(lambda key: completion.draw(key, **options)))
    (_, y), (u, v) = draw(jax.random.split(jax.random.key(1), 2000))
    noise = np.float64(y) - 0.2 * np.float64(u) @ np.swapaxes(np.float64(v), 1, 2)
    assert abs(noise.std() / 0.1 - 1) < 5 / (2 * noise.size) ** 0.5
    kurtosis = np.mean(noise**4) / np.mean(noise**2) ** 2
    assert abs(kurtosis - 3) < 5 * (24 / noise.size) ** 0.5
    for factor in (u, v):
        assert abs(np.std(factor) - 1) < 5 / (2 * factor.size) ** 0.5


@pytest.mark.parametrize("split", SCALES)
def test_what_is_seen_is_known_and_no_answer_is_outside_the_box(split):
    x, y = _examples(split)
    box = completion.make_completion().splits[split].box

    @toys.jit
    @jax.vmap
    def both(x, y):
        return boxes.free(box(x), y), boxes.inside(box(x), y)

    free, held = both(np.float32(x), np.float32(y))
    np.testing.assert_array_equal(free, x[:, 1] == 0)
    assert np.all(held)


def test_a_corrupted_answer_is_wrong_where_it_is_unseen_and_only_there():
    task = completion.make_completion()
    x, y = map(np.float32, _examples("val"))
    x[0, 1] = 1
    keys = jax.random.split(jax.random.key(2), len(x))
    is_moved = np.asarray(toys.jit(jax.vmap(task.corrupt))(keys, x, y)) != y
    assert not is_moved[0].any()  # all of it is seen
    x, is_moved = x[1:], is_moved[1:]
    assert np.all(is_moved.any((1, 2)))
    assert not np.any(is_moved & (x[:, 1] > 0))
    share = is_moved.sum() / np.sum(x[:, 1] == 0)
    assert abs(share - 0.25) < 0.02


def test_errors_are_over_what_they_say():
    task = completion.make_completion(n=3, m=4)
    rng = np.random.default_rng(0)
    y, answer = np.float32(rng.normal(size=(2, 3, 4)))
    seen = np.float32(rng.random((3, 4)) < 0.5)
    x = np.stack([seen * y, seen])
    gap = np.float64(answer - y) ** 2
    metrics = {
        name: toys.jit(m.of_row)(x, y, answer) for name, m in task.metrics.items()
    }
    np.testing.assert_allclose(metrics["task_mse"], gap.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["unseen_mse"], gap[seen == 0].mean(), rtol=1e-5)
    assert completion.unseen_error(np.stack([y, np.ones_like(y)]), y, answer) == 0
    residual = toys.jit(task.residual)
    found = residual(x, answer)
    np.testing.assert_allclose(found, gap[seen == 1].sum() ** 0.5, rtol=1e-5)
    assert residual(x, y) == 0
    with pytest.raises(AssertionError):
        residual(x, np.ones((4, 4), np.float32))
    assert task.example.x.shape == (2, 3, 4)


def _ridge(v, values, seen, scale, noise):
    """u [n, k] of v [m, k], row by row, float64."""
    found = []
    for row, mask in zip(values, seen > 0, strict=True):
        of = scale * v[mask]
        a = np.eye(v.shape[1]) + of.T @ of / noise**2
        found.append(np.linalg.solve(a, of.T @ row[mask] / noise**2))
    return np.array(found)


def test_the_classical_answer_alternates_ridge_regressions():
    x, _ = (rows[0] for rows in _examples("ood", 4, 6))
    scale = ((np.sum(x[0] ** 2) / x[1].sum() - 0.01) / 2) ** 0.5
    with jax.enable_x64(True):
        v = np.asarray(jax.random.normal(jax.random.key(0), (6, 2), float))
        solve = functools.partial(completion.least_squares, rank=2, num_rounds=3)
        found = np.asarray(toys.jit(solve)(x))
    for _ in range(3):
        u = _ridge(v, *x, scale, 0.1)
        v = _ridge(u, x[0].T, x[1].T, scale, 0.1)
    expected = np.where(x[1] > 0, x[0], scale * _ridge(v, *x, scale, 0.1) @ v.T)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("bad", [{"n": 0}, {"m": -1}, {"rank": 0}], ids=str)
def test_sizes_below_their_limits_are_refused_by_name(bad):
    ((name, value),) = bad.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        completion.make_completion(**bad)


# --- the energy -------------------------------------------------------------------


@functools.cache
def _energy(levels=1, **sizes):
    schedule = diffusion.make_schedule("cosine", levels)
    box = functools.partial(completion.box_of, limit=50.0)
    return schedule, factors.make_factors(schedule, box, **sizes)


def _params(noise=0.1, gain=1.0, stray=0.7, late=0.5):
    values = {"noise": noise, "gain": gain, "stray": stray, "late": late}
    return {name: np.float32(np.log(value)) for name, value in values.items()}


def _table(n=5, m=4, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(n, 2)) @ rng.normal(size=(2, m))
    seen = rng.random((n, m)) < 0.6
    return np.float32([seen * y, seen]), np.float32(rng.normal(size=(n, m)))


def test_rows_and_columns_in_another_order_have_their_answers_in_that_order():
    _, energy = _energy(factors=2, starts=3, rounds=3)
    (x, y), rng = _table(), np.random.default_rng(1)
    rows, columns = rng.permutation(5), rng.permutation(4)
    propose = toys.jit(energy.propose)
    answers = propose(_params(), x, y, LEVEL)
    assert answers.shape == (3, 5, 4)
    moved = propose(_params(), x[:, rows][:, :, columns], y, LEVEL)
    unseen = x[1] == 0
    assert np.max(np.std(np.asarray(answers)[:, unseen], axis=0)) > 1e-2
    np.testing.assert_allclose(moved, answers[:, rows][:, :, columns], atol=1e-4)


def test_the_answer_is_held_where_it_is_seen_and_moves_with_the_energy_nowhere_else():
    schedule, energy = _energy(2, factors=2, starts=2, rounds=2)
    x, y = _table()
    seen = x[1] > 0
    propose, both = toys.jit(energy.propose), toys.jit(jax.value_and_grad(energy, 2))
    for t in np.int32([0, 1]):
        answer = np.float64(propose(_params(), x, y, t))[-1]
        np.testing.assert_array_equal(np.float32(answer)[seen], x[0][seen])
        a, s = np.float64(schedule.a[t]), np.float64(schedule.s[t])
        gap = np.where(seen, 0, np.float64(y) - a * answer)
        value, grad = both(_params(), x, y, t)
        np.testing.assert_allclose(value, np.sum(gap**2) / (2 * s), rtol=1e-4)
        # F does not look at y: the denoised answer is F.
        np.testing.assert_allclose(grad, gap / s, rtol=1e-3, atol=1e-4)


def test_without_straying_one_start_alternates_ridge_regressions():
    _, energy = _energy(factors=2, starts=1, rounds=3)
    x, y = _table()
    params = _params(stray=1e-12, late=1e6)  # the last round alone
    found = np.asarray(toys.jit(energy.propose)(params, x, y, LEVEL))
    values, seen = np.float64(x)
    scale = ((np.sum(values**2) / seen.sum() - 0.01) / 2) ** 0.5
    first = toys.jit(lambda x: factors.normals(factors.keys_of(x, 2), 0, (1, 2)))
    v = np.float64(first(x[0].T))[0].T
    for answer in found:
        u = _ridge(v, values, seen, scale, 0.1)
        expected = np.where(seen > 0, values, scale * u @ v.T)
        np.testing.assert_allclose(answer, expected, rtol=2e-3, atol=2e-3)
        v = _ridge(u, values.T, seen.T, scale, 0.1)


def test_a_draw_has_the_mean_and_the_covariance_of_its_regression():
    rng, size, count = np.random.default_rng(3), 4, 3
    roots = rng.normal(size=(count, size, size))
    a = roots @ roots.transpose(0, 2, 1) + np.eye(size)
    b = rng.normal(size=(size, count))
    of = functools.partial(toys.jit(factors.solved), np.float32(a.transpose(1, 2, 0)))
    mean = np.stack([np.linalg.solve(a[i], b[:, i]) for i in range(count)], axis=1)
    nothing, eye = np.zeros((size, count), np.float32), np.eye(size, dtype=np.float32)
    _, exact = of(np.float32(b), nothing)
    np.testing.assert_allclose(exact, mean, rtol=1e-3, atol=1e-4)
    # The move is linear in xi: its matrix M has M M^T = A^-1.
    moves = [of(nothing, eye[:, [i] * count])[0] for i in range(size)]
    m = np.float64(moves).transpose(2, 1, 0)
    np.testing.assert_allclose(
        m @ m.transpose(0, 2, 1), np.linalg.inv(a), rtol=1e-3, atol=1e-4
    )


def test_noise_of_rows_is_normal_and_other_for_every_row_round_and_start():
    @toys.jit
    def draw(rows, index):
        return factors.normals(factors.keys_of(rows, 1), index, (4, 5))

    rows = np.float32(np.random.default_rng(0).normal(size=(50, 8)))
    values = np.ravel([np.float64(draw(rows, i)) for i in range(10)])
    assert len(np.unique(values)) > 0.99 * values.size
    assert abs(values.mean()) < 5 / values.size**0.5
    assert abs(values.var() - 1) < 5 * (2 / values.size) ** 0.5


def test_as_a_gibbs_chain_it_finds_the_mean_of_what_is_unseen():
    """Against quadrature, with the true sizes of the noise and of the signal."""
    _, energy = _energy(factors=1, starts=50, rounds=400)
    rows = _tiny_rows(8)
    largest = np.argmax(np.sum(rows.values**2, (1, 2)))
    values, seen = rows.values[largest], rows.seen[largest]
    mean, _ = _quadrature(values, seen)
    x = np.float32([values, seen])
    signal = np.sum(values**2) / seen.sum() - TINY_NOISE**2
    params = _params(TINY_NOISE, TINY_SCALE**2 / signal, 1.0, 1e-6)
    y = np.zeros((2, 2), np.float32)
    found = np.float64(toys.jit(energy.propose)(params, x, y, LEVEL))[-1]
    gap = (found - mean)[seen == 0]
    # 20,000 correlated draws of deviation 1 or less.
    assert np.max(np.abs(gap)) < 0.03
    assert np.max(np.abs(mean[seen == 0])) > 0.1


def test_one_set_of_numbers_serves_every_size():
    _, energy = _energy(factors=3, starts=2, rounds=2)
    params = toys.jit(energy.init)(jax.random.key(0))
    assert {np.shape(leaf) for leaf in params.values()} == {()}
    for n, m in ((1, 1), (2, 7), (6, 3)):
        x, y = _table(n, m)
        both, nothing = toys.jit(jax.value_and_grad(energy)), np.zeros_like(x)
        for given in (x, nothing):
            value, grad = both(params, given, y, LEVEL)
            # Of nothing E sums over every element of F, and F is a mean of rounds.
            assert np.all(np.isfinite([value, *grad.values()]))
    with pytest.raises(ValueError, match="starts=0"):
        _energy(starts=0)
    with pytest.raises(ValueError):
        energy(params, x, y[1:], LEVEL)


# --- the least error --------------------------------------------------------------

TINY_SCALE, TINY_NOISE = 0.8, 0.3


def _tiny_rows(count, seed=4):
    """2 x 2 matrices of rank 1 and noise, three entries of four seen or so."""
    rng = np.random.default_rng(seed)
    u, v = rng.normal(size=(2, count, 2, 1))
    truth = TINY_SCALE * u @ v.transpose(0, 2, 1)
    truth = truth + TINY_NOISE * rng.normal(size=truth.shape)
    seen = np.float64(rng.random(truth.shape) < 0.7)
    seen[:, 0, 0], seen[:, 1, 1] = 0, 1
    return completion_bound.Rows(seen * truth, seen, truth, u, v)


def _quadrature(values, seen):
    """Mean and variance of L given x: u by hand, v = (v_1, v_2) on a grid."""
    # (u, v) and (-u, -v) are as likely and have one L: half the plane is enough.
    line = np.linspace(-6, 6, 81)
    v = np.stack(np.meshgrid(line[40:], line, indexing="ij"), -1).reshape(-1, 2)
    precision = 1 + (TINY_SCALE / TINY_NOISE) ** 2 * v**2 @ seen.T  # [G, 2]
    u = TINY_SCALE / TINY_NOISE**2 * v @ (seen * values).T / precision
    log = np.sum(-np.log(precision) / 2 + u**2 * precision / 2, 1) - (v**2).sum(1) / 2
    weight = np.exp(log - log.max()) * np.where(v[:, 0] > 0, 2, 1)
    weight /= weight.sum()
    of = TINY_SCALE * u[:, :, None] * v[:, None]
    square = TINY_SCALE**2 * (u**2 + 1 / precision)[:, :, None] * v[:, None] ** 2
    mean, square = (np.tensordot(weight, part, 1) for part in (of, square))
    return mean, square - mean**2


def test_the_bounds_enclose_the_least_error_and_meet_at_it():
    rows = _tiny_rows(1_500)
    unseen = 1 - rows.seen
    exact = np.array(
        [
            np.mean((_quadrature(x, m)[1] + TINY_NOISE**2) * (1 - m))
            for x, m in zip(rows.values, rows.seen, strict=True)
        ]
    )
    found = completion_bound.bounds(rows, TINY_SCALE, TINY_NOISE, 200, seed=0)
    error = lambda gap: np.std(gap) / len(gap) ** 0.5  # noqa: E731
    for bound in (found.below, found.above):
        gap = bound - exact
        assert abs(gap.mean()) < 4 * error(gap)
        assert error(gap) < 0.08 * exact.mean()
    # One who is told V knows more, one who copies less.
    gap = exact - found.told
    assert gap.mean() > 4 * error(gap)
    assert found.copying.mean() > exact.mean()
    np.testing.assert_allclose(found.copying, np.mean(rows.truth**2 * unseen, (1, 2)))


def test_the_rows_of_the_bound_are_those_that_models_are_scored_on():
    from experiments.build import build
    from experiments.score.scorer import Scorer
    from tests import tiny

    config = tiny.get_config("completion", task__n=5, task__rank=10)
    scorer = Scorer(build(config))
    for split in SCALES:
        x, y = scorer.examples(split, 8)
        rows = completion_bound.draw_rows(split, 8, 5)
        np.testing.assert_array_equal(rows.seen, x[:, 1])
        np.testing.assert_allclose(rows.truth, y, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(rows.values, x[:, 0], rtol=1e-5, atol=1e-6)


MUTANTS = [
    Mutant(
        "completion",
        "factors know their rows by their places",
        "ired_jax.energies.factors",
        one(
            "sums = jnp.sum(bits, axis=1, dtype=jnp.uint32)",
            "sums = jnp.arange(len(bits), dtype=jnp.uint32)",
        ),
        test_rows_and_columns_in_another_order_have_their_answers_in_that_order,
    ),
    Mutant(
        "completion",
        "regressions see what is unseen, as 0",
        "ired_jax.energies.factors",
        one(
            'jnp.einsum("klj,ij->kli", pairs, seen)',
            'jnp.einsum("klj,ij->kli", pairs, 0 * seen + 1)',
        ),
        test_without_straying_one_start_alternates_ridge_regressions,
    ),
    Mutant(
        "completion",
        "factors stray by D instead of its root",
        "ired_jax.energies.factors",
        one("jnp.sqrt(pivots) * xi", "pivots * xi"),
        test_a_draw_has_the_mean_and_the_covariance_of_its_regression,
    ),
    Mutant(
        "completion",
        "a corruption touches what is seen",
        "ired_jax.tasks.completion",
        one("is_wrong = (x[1] == 0) & (", "is_wrong = ("),
        test_a_corrupted_answer_is_wrong_where_it_is_unseen_and_only_there,
    ),
    Mutant(
        "completion",
        "the harder set is the training's",
        "ired_jax.tasks.completion",
        one('"ood": source(SCALE_HARDER)', '"ood": source(SCALE)'),
        test_half_is_seen_as_it_is_and_copying_has_the_published_error,
        {"split": "ood"},
    ),
    Mutant(
        "completion",
        "the chain from the truth begins elsewhere",
        "experiments.data.completion",
        one("from_truth, anywhere = rows.v, ", "from_truth, anywhere = 3 * rows.v, "),
        test_the_bounds_enclose_the_least_error_and_meet_at_it,
    ),
    Mutant(
        "completion",
        "half the distance is taken for the whole",
        "experiments.data.completion",
        one("signal) / 2)", "signal))"),
        test_the_bounds_enclose_the_least_error_and_meet_at_it,
    ),
]
