"""Strategies and filter of the negative phase, against laws and NumPy formulas."""

import functools
import itertools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ired_jax import diffusion, negatives
from tests import references, toys

BETA, _, A, S = references.schedule("cosine", toys.T)
SIGMAS = 4.5  # standard errors, two-sided chance of 1e-5 for each comparison
BOUNDS = 2.0


def make_rows(num_rows, *, size=4, levels=tuple(range(10)), answer=None):
    """Rows {x, y0, t, eps} at the given levels in turn; x is the answer itself."""
    rng = np.random.default_rng(0)
    y0 = rng.uniform(-1, 1, (num_rows, size)) if answer is None else answer
    y0 = np.broadcast_to(np.float32(y0), (num_rows, size))
    t = np.int32([levels[i % len(levels)] for i in range(num_rows)])
    eps = rng.standard_normal((num_rows, size)).astype(np.float32)
    return {"x": y0, "y0": y0, "t": t, "eps": eps}


def landscape_in_nats(x, t):
    """The ideal U = |y - a_t x|^2 / (2 s_t^2)."""
    levels = toys.schedule()
    return lambda y: jnp.sum((y - levels.a[t] * x) ** 2) / (2 * levels.s[t] ** 2)


def landscape_in_energy(x, t):
    """The ideal E = s_t U."""
    return lambda y: toys.schedule().s[t] * landscape_in_nats(x, t)(y)


def stepped_landscape(x, t):
    """The ideal U with jumps, whose gradient does not know of them."""
    return lambda y: landscape_in_nats(x, t)(y) + jnp.sum(jnp.floor(3 * y))


def trajectory(num_steps=2, unit=lambda t: toys.schedule().s[t]):
    return negatives.on_trajectory(
        toys.schedule(), bounds=BOUNDS, num_steps=num_steps, unit=unit
    )


def make_strategies():
    """Every strategy, with the step sizes that belong to a landscape in nats."""
    levels = toys.schedule()
    noise = negatives.nce_noise(levels, scale=(3.0, 3.0), bounds=BOUNDS)
    descent = negatives.adversarial(
        levels,
        scale=(3.0, 3.0),
        bounds=BOUNDS,
        num_steps=2,
        step_size=lambda t: levels.beta[t],
    )
    return {
        "nce_random": negatives.nce_random(levels, bounds=BOUNDS),
        "nce_noise": noise,
        "adversarial": descent,
        "on_trajectory": trajectory(),
        "mixed": negatives.mixed(noise, descent, share=0.7),
        "langevin": toys.langevin(),
        "langevin_adjusted": toys.langevin(adjusted=True),
    }


def run(strategy, rows, landscape=landscape_in_nats, *, progress=1.0, seed=0):
    """Start and refinement: (start, y, info), each in NumPy."""
    key_start, key_chain = jax.random.split(jax.random.key(seed))

    def both(rows, progress):
        y = strategy.start(key_start, rows, progress)
        return y, *strategy.refine(key_chain, landscape, rows, y, progress)

    return jax.tree.map(np.asarray, toys.jit(both)(rows, jnp.float32(progress)))


def column(array, t):
    return array[t][:, None]


# The table of strategies


@functools.cache
def run_of(name):
    """Every strategy on the same rows of the stepped landscape, with the same key."""
    return run(make_strategies()[name], make_rows(20), stepped_landscape)


@pytest.mark.parametrize("name", make_strategies())
def test_every_strategy_gives_finite_answers_of_the_rows_shape(name):
    start, y, info = run_of(name)
    chex.assert_shape([start, y], (20, 4))
    chex.assert_shape(list(info), (20,))
    chex.assert_tree_all_finite((start, y, info))
    assert np.all((info.acceptance >= 0) & (info.acceptance <= 1))


def test_no_two_strategies_give_the_same_negatives():
    negative = {name: run_of(name)[1] for name in make_strategies()}
    for first, second in itertools.combinations(negative, 2):
        differs = np.any(np.abs(negative[first] - negative[second]) > 1e-4, axis=1)
        # Where both start alike, as two of them do, descent moves most rows.
        assert np.mean(differs) > 0.5, (first, second)


@pytest.mark.parametrize("name", make_strategies())
def test_every_strategy_differs_by_key_and_repeats_with_the_same_key(name):
    rows, strategy = make_rows(20), make_strategies()[name]
    first, again, other = (
        np.asarray(strategy.start(jax.random.key(seed), rows, 1.0))
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert np.all(np.any(first != other, axis=1))


@pytest.mark.parametrize("name", make_strategies())
def test_no_two_rows_share_their_noise(name):
    rows = make_rows(20, levels=(4,), answer=0.0)
    rows["eps"] = np.zeros_like(rows["eps"])
    start = make_strategies()[name].start(jax.random.key(0), rows, 1.0)
    assert len(np.unique(np.asarray(start), axis=0)) == 20


def test_no_two_rows_of_mixed_chains_share_their_noise():
    rows = make_rows(10, levels=(4,), answer=0.0)
    still = toys.langevin(scale=(0.0, 0.0))
    _, y, _ = run(negatives.mixed(still, still, share=0.5), rows)
    assert len(np.unique(y, axis=0)) == 10


# Starts


def test_a_noised_start_has_the_law_of_a_y0_plus_scale_s_eps():
    # N elements a level: mean within SIGMAS s.e., standard deviation (relative s.e.
    # 1 / sqrt(2 N)) likewise.
    rows = make_rows(30_000, levels=(0, 4, 9))
    start = toys.langevin(scale=(1.5, 0.5)).start
    for progress, scale in ((0.0, 1.5), (0.5, 1.0), (1.0, 0.5)):
        y = np.asarray(start(jax.random.key(1), rows, progress), np.float64)
        for t in (0, 4, 9):
            mine = rows["t"] == t
            z = (y[mine] - A[t] * rows["y0"][mine]) / (scale * S[t])
            assert abs(z.mean()) < SIGMAS / z.size**0.5
            assert abs(z.std() - 1) < SIGMAS / (2 * z.size) ** 0.5


def test_a_random_start_is_a_wrong_answer_under_the_positives_noise():
    rows = make_rows(20_000, levels=(0, 4, 6))
    y = np.float64(run(negatives.nce_random(toys.schedule(), bounds=1.5), rows)[1])
    t = rows["t"]
    wrong = (y - column(S, t) * rows["eps"]) / column(A, t)
    assert np.abs(wrong).max() <= 1.5 * (1 + 1e-5)
    assert np.mean(np.abs(wrong) > 1.49) > 0.1  # P(|N(0, 1)| > 1.5) = .13 is clipped
    correlation = np.mean(wrong * rows["y0"]) / (wrong.std() * rows["y0"].std())
    assert abs(correlation) < SIGMAS / wrong.size**0.5


# Refinements


def test_nce_noise_clips_the_start_in_y0_space_and_renoises_with_the_positives_eps():
    rows = make_rows(40)
    start, y, info = run(make_strategies()["nce_noise"], rows)
    t = rows["t"]
    y0 = np.clip(start / column(A, t), -BOUNDS, BOUNDS)
    expected = column(A, t) * y0 + column(S, t) * rows["eps"]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    assert np.all(info.displacement == 0)


def test_adversarial_descends_before_it_is_renoised():
    # On the ideal landscape a step of size beta on U shrinks the offset from the
    # minimum by 1 - beta / s^2, so it is accepted; y - s eps is the point before the
    # noise. The start is tight, so that no bound is met.
    rows = make_rows(40, levels=(1, 3, 5, 7))
    levels = toys.schedule()
    strategy = negatives.adversarial(
        levels,
        scale=(0.01, 0.01),
        bounds=BOUNDS,
        num_steps=2,
        step_size=lambda t: levels.beta[t],
    )
    start, y, info = run(strategy, rows)
    t = rows["t"]
    centre = column(A, t) * rows["y0"]
    before_noise = y - column(S, t) * rows["eps"]
    shrink = column(1 - BETA / S**2, t) ** 2
    expected = centre + shrink * (start - centre)
    np.testing.assert_allclose(before_noise, expected, rtol=0, atol=2e-6)
    assert np.all(info.acceptance == 1)


def test_adversarial_never_raises_the_energy_before_it_is_renoised():
    rows = make_rows(40)
    start, y, _ = run(make_strategies()["adversarial"], rows)
    t = rows["t"]
    limit = BOUNDS * column(A, t)
    before_noise = y - column(S, t) * rows["eps"]

    def energy(point):
        return np.sum((point - column(A, t) * rows["y0"]) ** 2 / column(S, t) ** 2, 1)

    assert np.all(energy(before_noise) < energy(np.clip(start, -limit, limit)))


@pytest.mark.parametrize("in_nats", [True, False])
def test_a_trajectory_gives_the_models_own_answer_of_each_level_noised(in_nats):
    # A false minimum that moves with the level: x + .02 t - .1.
    levels, rows = toys.schedule(), make_rows(40)

    def landscape(x, t):
        wrong = x + 0.02 * t - 0.1
        scale = levels.s[t] if in_nats else 1.0
        return lambda y: (
            jnp.sum((y - levels.a[t] * wrong) ** 2) / (2 * levels.s[t] * scale)
        )

    unit = (lambda t: levels.s[t]) if in_nats else jnp.ones_like
    start, y, info = run(trajectory(unit=unit), rows, landscape)
    t = rows["t"]
    wrong = rows["y0"] + 0.02 * t[:, None] - 0.1
    expected = column(A, t) * wrong + column(S, t) * rows["eps"]
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-4)
    moved = np.sqrt(np.mean((expected - start) ** 2, axis=1))
    np.testing.assert_allclose(info.displacement, moved, rtol=1e-4)


def test_on_the_ideal_landscape_a_trajectory_ends_at_the_positive():
    rows = make_rows(40)
    _, y, _ = run(trajectory(), rows)
    t = rows["t"]
    positive = column(A, t) * rows["y0"] + column(S, t) * rows["eps"]
    np.testing.assert_allclose(y, positive, rtol=0, atol=1e-4)


def test_each_row_is_clamped_at_the_bound_of_its_own_level():
    rows = make_rows(20, levels=(9, 0, 4, 7))
    _, y, _ = run(
        make_strategies()["adversarial"], rows, lambda x, t: lambda y: -1e3 * jnp.sum(y)
    )
    t = rows["t"]
    before_noise = y - column(S, t) * rows["eps"]
    expected = np.broadcast_to(BOUNDS * column(A, t), y.shape)
    np.testing.assert_allclose(before_noise, expected, rtol=1e-5, atol=1e-6)


def marked(mark):
    """A strategy that says which one it is: `mark` at the start, + 10 when refined."""

    def start(key, rows, progress):
        return jnp.full(rows["y0"].shape, mark)

    def refine(key, landscape, rows, y, progress):
        number = jnp.full(y.shape[0], mark)
        return y + 10 * mark, negatives.ChainInfo(number, number)

    return negatives.Strategy(start, refine)


@pytest.mark.parametrize("share, first", [(0.0, 0), (0.25, 2), (0.7, 7), (1.0, 10)])
def test_mixed_gives_the_first_strategy_its_share_of_the_rows(share, first):
    rows = make_rows(10)
    mixed = negatives.mixed(marked(1.0), marked(2.0), share=share)
    start, y, info = run(mixed, rows)
    mark = np.where(np.arange(10) < first, 1.0, 2.0)
    np.testing.assert_array_equal(start[:, 0], mark)
    np.testing.assert_array_equal(y[:, 0], 11 * mark)
    np.testing.assert_array_equal(info.acceptance, mark)


# Langevin chains: the exact law of the discrete chain on the ideal landscape


def classic_step(t):
    """eta = beta_t / s_t, the step of the earlier form, on grad E."""
    return diffusion.descent_step_size(toys.schedule(), t)


def linear_law(step, curvature, start, num_steps=10):
    """Standard deviation after K steps y' = y - h c y + sqrt(2 h) xi."""
    r = 1 - step * curvature
    decay = r ** (2 * num_steps)
    return np.sqrt(decay * start**2 + 2 * step * (1 - decay) / (1 - r**2))


def clipped_law(t, num_samples=400_000):
    """The same by simulation, with the drift clipped at .01 and a box of +-2."""
    rng = np.random.default_rng(t)
    y = 1.5 * S[t] * rng.standard_normal(num_samples)
    eta = BETA[t] / S[t]
    for _ in range(10):
        drift = np.clip(y / S[t], -0.01, 0.01)
        xi = rng.standard_normal(num_samples)
        y = np.clip(y - eta * drift + np.sqrt(2 * eta) * xi, -2, 2)
    return y.std()


def right_law(t):
    return linear_law(S[t] ** 2 / 4, 1 / S[t] ** 2, 1.5 * S[t])


def unclipped_law(t):
    return linear_law(BETA[t] / S[t], 1 / S[t], 1.5 * S[t])


FORMS = {
    # landscape, what differs from the default chain, its law, and the widths in units
    # of s_t at t = 0, 4, 9 that the documented comparison of the forms states
    "nats": (landscape_in_nats, {}, right_law, (1.07, 1.07, 1.07)),
    "energy": (
        landscape_in_energy,
        {"step_size": classic_step},
        unclipped_law,
        (3.46, 1.36, 1.42),
    ),
    "energy_clipped": (
        landscape_in_energy,
        {"step_size": classic_step, "grad_clip": lambda t: 0.01, "bounds": 2.0},
        clipped_law,
        (7.66, 1.92, 1.49),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_langevin_negatives_have_the_exact_width_of_the_discrete_chain(form):
    # 65,536 elements a level: relative s.e. of a standard deviation .28 %, of the
    # simulated law .11 %; five per cent too much noise is 18 of them.
    landscape, changes, law, widths = FORMS[form]
    rows = make_rows(3 * 4096, size=16, levels=(0, 4, 9), answer=0.0)
    _, y, _ = run(toys.langevin(num_steps=10, **changes), rows, landscape)
    for t, width in zip((0, 4, 9), widths, strict=True):
        sample = np.float64(y[rows["t"] == t])
        error = SIGMAS * (1 / (2 * sample.size) + 1 / (2 * 400_000)) ** 0.5
        assert abs(sample.std() / law(t) - 1) < error
        assert abs(sample.mean()) < SIGMAS * sample.std() / sample.size**0.5
        assert abs(sample.std() / S[t] - width) < 0.005 + width * error


def test_langevin_negatives_are_centred_on_the_answer_that_their_start_forgets():
    # After 10 steps the mean is a_t x + (1 - h / s^2)^10 (a_t y_0 - a_t x).
    rows = make_rows(3 * 1024, size=16, levels=(0, 4, 9), answer=0.5)
    _, y, _ = run(toys.langevin(num_steps=10), rows | {"x": -rows["y0"]})
    for t in (0, 4, 9):
        sample = np.float64(y[rows["t"] == t])
        expected = A[t] * (-0.5 + 0.75**10)
        assert abs(sample.mean() - expected) < SIGMAS * right_law(t) / 128


def test_adjusted_negatives_keep_the_exact_law_of_the_landscape():
    # Started in the law exp(-U), the chain stays in it at any step size.
    rows = make_rows(3 * 2048, size=16, levels=(0, 4, 9))
    step_size = partial(
        diffusion.langevin_step_size, toys.schedule(), multiple=1.36 * 16 ** (-1 / 3)
    )
    strategy = toys.langevin(
        scale=(1.0, 1.0), num_steps=6, step_size=step_size, adjusted=True
    )
    _, y, info = run(strategy, rows)
    assert 0.3 < info.acceptance.mean() < 0.8
    assert np.all(info.displacement[info.acceptance > 0.9] > 0)
    for t in (0, 4, 9):
        mine = rows["t"] == t
        z = (y[mine] - A[t] * np.float64(rows["y0"][mine])) / S[t]
        assert abs(z.mean()) < SIGMAS / z.size**0.5
        assert abs(z.std() - 1) < SIGMAS / (2 * z.size) ** 0.5


def test_each_row_is_clipped_at_the_gradient_of_its_own_level():
    # Without noise and under a steep slope each step moves by h times the clip.
    rows = make_rows(20)
    levels = toys.schedule()
    strategy = toys.langevin(temperature=0.0, grad_clip=lambda t: 1 / levels.s[t])
    start, y, _ = run(strategy, rows, lambda x, t: lambda y: -1e3 * jnp.sum(y))
    expected = np.broadcast_to(column(3 * 0.25 * S, rows["t"]), y.shape)
    np.testing.assert_allclose(y - start, expected, rtol=1e-5, atol=2e-6)


def test_a_row_of_a_chain_does_not_depend_on_the_other_rows():
    # Without noise, whose keys belong to the place in the batch.
    rows = make_rows(16)
    strategy = toys.langevin(temperature=0.0)

    @toys.jit
    def refine(rows):
        key = jax.random.key(0)
        return strategy.refine(key, landscape_in_nats, rows, rows["eps"], 1.0)[0]

    part = refine({name: value[:2] for name, value in rows.items()})
    np.testing.assert_allclose(refine(rows)[:2], part, rtol=1e-6)


def test_a_curriculum_moves_a_growing_number_of_steps_and_the_others_not_at_all():
    # Without noise each moving step multiplies the offset by 1 - h / s^2 = 3/4.
    rows = make_rows(10, answer=0.0)
    strategy = toys.langevin(num_steps=4, temperature=0.0, curriculum=0.5)
    start = rows["eps"]

    @toys.jit
    def refine(progress):
        key = jax.random.key(0)
        return strategy.refine(key, landscape_in_nats, rows, start, progress)[0]

    moving = {0.0: 1, 0.1: 1, 0.13: 2, 0.25: 2, 0.3: 3, 0.5: 4, 1.0: 4}
    for progress, steps in moving.items():
        y = refine(jnp.float32(progress))
        np.testing.assert_allclose(y, 0.75**steps * start, rtol=1e-5)


def test_a_ramp_grows_over_its_share_of_the_run_and_is_one_without():
    values = [float(negatives.ramp(p, 0.5)) for p in (0.0, 0.25, 0.5, 1.0)]
    assert values == [0.0, 0.5, 1.0, 1.0]
    assert float(negatives.ramp(0.0, 0.0)) == 1.0


# The residual filter


def residuals():
    """Residuals of rows at levels 0, 1, 2 and 4; level 3 has none."""
    rng = np.random.default_rng(5)
    t = np.int32([0, 1, 2, 4] * 10)
    return np.float32(rng.uniform(1, 2, t.size) * (1 + t)), t


def thresholds(previous, **spec):
    residual, t = residuals()
    spec = negatives.ResidualFilter(**spec)
    return np.asarray(negatives.thresholds(spec, residual, t, jnp.float32(previous)))


def quantile_of_levels(quantile, previous):
    residual, t = residuals()
    of_level = [np.quantile(residual[t == i], quantile) for i in (0, 1, 2, 4)]
    return np.insert(of_level, 3, previous[3])


def test_fixed_thresholds_are_those_given():
    fixed = (1.0, 2.0, 3.0, 4.0, 5.0)
    np.testing.assert_array_equal(
        thresholds(np.ones(5), mode="fixed", fixed=fixed), fixed
    )


def test_fixed_thresholds_that_do_not_fit_the_levels_are_refused():
    with pytest.raises(AssertionError):
        thresholds(np.ones(5), mode="fixed", fixed=(1.0, 2.0))


def test_a_batch_quantile_is_that_of_each_level_and_an_empty_level_keeps_its_own():
    previous = np.arange(1.0, 6.0)
    actual = thresholds(previous, mode="batch_quantile", quantile=0.3)
    np.testing.assert_allclose(actual, quantile_of_levels(0.3, previous), rtol=1e-6)


def test_a_running_quantile_starts_at_the_first_batch_and_moves_by_its_momentum():
    previous = np.array([0.0, 1.0, 2.0, 3.0, 4.0])  # 0: not seen yet
    spec = {"mode": "running_quantile", "quantile": 0.3, "momentum": 0.9}
    batch = quantile_of_levels(0.3, previous)
    expected = np.where(previous == 0, batch, 0.9 * previous + 0.1 * batch)
    np.testing.assert_allclose(thresholds(previous, **spec), expected, rtol=1e-6)


def test_one_threshold_for_all_levels_is_the_quantile_of_all_rows():
    spec = {"mode": "batch_quantile", "quantile": 0.3, "per_level": False}
    expected = np.full(5, np.quantile(residuals()[0], 0.3))
    np.testing.assert_allclose(thresholds(np.zeros(5), **spec), expected, rtol=1e-6)


@pytest.mark.parametrize("mode", ["fixed", "batch_quantile", "running_quantile"])
@pytest.mark.parametrize("per_level", [True, False])
def test_a_threshold_carries_no_gradient(mode, per_level):
    residual, t = residuals()
    fixed = (1.0,) * 5
    spec = negatives.ResidualFilter(mode, fixed=fixed, per_level=per_level)

    def total(residual):
        return jnp.sum(negatives.thresholds(spec, residual, t, jnp.zeros(5)))

    np.testing.assert_array_equal(jax.grad(total)(residual), np.zeros(t.size))


def filtered(rows, *, bounds=BOUNDS, denoised):
    @toys.jit
    def residual(rows):
        return negatives.filtered_residual(
            toys.schedule(),
            toys.distance,
            landscape_in_energy,
            rows,
            bounds=bounds,
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
