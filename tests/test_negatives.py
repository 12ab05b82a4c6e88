"""Strategies of the negative phase, against laws and NumPy formulas."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ired_jax import diffusion, losses
from ired_jax.negatives import base
from ired_jax.negatives.adversarial import make_adversarial
from ired_jax.negatives.base import ChainInfo, Strategy
from ired_jax.negatives.corrupted import make_corrupted
from ired_jax.negatives.mixed import make_mixed
from ired_jax.negatives.noise import make_noise
from ired_jax.negatives.on_trajectory import make_on_trajectory
from ired_jax.negatives.random import make_random
from ired_jax.types import Box
from tests import references, toys
from tests.mutants import Mutant, one

BETA, _, A, S = references.schedule("cosine", toys.T)
SIGMAS = 4.5  # standard errors, two-sided chance of 1e-5 for each comparison
BOUNDS = toys.BOUNDS


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


def wrong_sign(key, x, y):
    """A wrong answer of the task's own making."""
    del x
    return y + jax.random.uniform(key, y.shape, minval=1.0, maxval=2.0)


def swapped(key, rows, progress):
    """The answer of the row before: no draw, and the positive's noise."""
    del key, progress
    return base.q_sample(
        toys.schedule(), jnp.roll(rows["y0"], 1, axis=0), rows["t"], rows["eps"]
    )


def make_strategies(box=toys.box):
    """Every strategy, with the step sizes that belong to a landscape in nats."""
    levels, units = toys.schedule(), toys.units()
    noise = make_noise(levels, box, noise_scale=3.0)
    descent = make_adversarial(levels, box, units, noise_scale=3.0)
    return {
        "random": make_random(levels, box),
        "corrupted": make_corrupted(levels, wrong_sign),
        "noise": noise,
        "adversarial": descent,
        "on_trajectory": make_on_trajectory(levels, box, units),
        "mixed": make_mixed(first=noise, second=descent),
        "langevin": toys.langevin(box=box),
        "langevin_adjusted": toys.langevin(box=box, adjusted=True),
        "swapped": Strategy(swapped, base.keep),
    }


DRAW_NOTHING = ("swapped",)  # in their starts
DRAWING = [name for name in make_strategies() if name not in DRAW_NOTHING]


def run(strategy, rows, landscape=landscape_in_nats, *, progress=1.0, seed=0):
    """Start and refinement: (start, y, info), each in NumPy."""
    key_start, key_chain = jax.random.split(jax.random.key(seed))

    def both(rows, progress):
        y = strategy.start(key_start, rows, progress)
        return y, *strategy.refine(key_chain, landscape, rows, y, progress)

    return jax.tree.map(np.asarray, toys.jit(both)(rows, np.float32(progress)))


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


def known_box(x):
    """What is above 0 is known, in each row something else."""
    known = x > 0
    return Box(jnp.where(known, x, -BOUNDS), jnp.where(known, x, BOUNDS))


def landscape_of_the_known(x, t):
    """Steep where y is known, and NaN wherever that is not at a_t x, to the bit."""

    def energy(y):
        moved = (x > 0) & (y != toys.schedule().a[t] * x)
        factor = jnp.where(jnp.any(moved), jnp.nan, 1.0)
        return factor * landscape_in_nats(-x, t)(y)

    return energy


@pytest.mark.parametrize("name", sorted({*DRAWING} - {"corrupted"}))
def test_what_a_row_knows_stands_still_in_every_strategy(name):
    rows = make_rows(20)
    known = rows["x"] > 0
    rows["eps"] = np.where(known, np.float32(0), rows["eps"])
    strategy = make_strategies(known_box)[name]
    _, y, info = run(strategy, rows, landscape_of_the_known)
    expected = column(np.float32(A), rows["t"]) * rows["y0"]
    np.testing.assert_array_equal(y[known], expected[known])
    assert np.all(y[~known] != expected[~known])
    assert np.all(np.isfinite(y))
    assert np.any(info.acceptance > 0)  # NaN is never lower


def test_no_two_strategies_give_the_same_negatives():
    negative = {name: run_of(name)[1] for name in make_strategies()}
    for first, second in itertools.combinations(negative, 2):
        differs = np.any(np.abs(negative[first] - negative[second]) > 1e-4, axis=1)
        # Where both start alike, as two of them do, descent moves most rows.
        assert np.mean(differs) > 0.5, (first, second)


@functools.cache
def start_of(name):
    return toys.jit(make_strategies()[name].start)


@pytest.mark.parametrize("name", DRAWING)
def test_every_strategy_differs_by_key_and_repeats_with_the_same_key(name):
    first, again, other = (
        np.asarray(start_of(name)(jax.random.key(seed), make_rows(20), 1.0))
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert np.all(np.any(first != other, axis=1))


@pytest.mark.parametrize("name", DRAWING)
def test_no_two_rows_share_their_noise(name):
    rows = make_rows(20, levels=(4,), answer=0.0)
    rows["eps"] = np.zeros_like(rows["eps"])
    start = start_of(name)(jax.random.key(0), rows, 1.0)
    assert len(np.unique(np.asarray(start), axis=0)) == 20


def test_no_two_rows_of_mixed_chains_share_their_noise():
    rows = make_rows(10, levels=(4,), answer=0.0)
    still = toys.langevin(noise_scale=0.0)
    _, y, _ = run(make_mixed(first=still, second=still, share=0.5), rows)
    assert len(np.unique(y, axis=0)) == 10


# Starts


def test_a_noised_start_has_the_law_of_a_y0_plus_scale_s_eps():
    # N elements a level: mean within SIGMAS s.e., standard deviation (relative s.e.
    # 1 / sqrt(2 N)) likewise.
    rows = make_rows(30_000, levels=(0, 4, 9))
    start = toys.jit(toys.langevin(noise_scale=1.5, noise_scale_end=0.5).start)
    for progress, scale in ((0.0, 1.5), (0.5, 1.0), (1.0, 0.5)):
        y = np.asarray(start(jax.random.key(1), rows, progress), np.float64)
        for t in (0, 4, 9):
            mine = rows["t"] == t
            z = (y[mine] - A[t] * rows["y0"][mine]) / (scale * S[t])
            assert abs(z.mean()) < SIGMAS / z.size**0.5
            assert abs(z.std() - 1) < SIGMAS / (2 * z.size) ** 0.5


def test_a_random_start_is_a_wrong_answer_under_the_positives_noise():
    rows = make_rows(20_000, levels=(0, 4, 6))
    strategy = make_random(toys.schedule(), lambda x: Box(-1.5, 1.5))
    y = np.float64(run(strategy, rows)[1])
    t = rows["t"]
    wrong = (y - column(S, t) * rows["eps"]) / column(A, t)
    assert np.abs(wrong).max() <= 1.5 * (1 + 1e-5)
    assert np.mean(np.abs(wrong) > 1.49) > 0.1  # P(|N(0, 1)| > 1.5) = .13 is clipped
    correlation = np.mean(wrong * rows["y0"]) / (wrong.std() * rows["y0"].std())
    assert abs(correlation) < SIGMAS / wrong.size**0.5


def test_a_corrupted_start_is_the_task_s_wrong_answer_noised():
    rows = make_rows(40)
    _, y, _ = run(make_strategies()["corrupted"], rows)
    t = rows["t"]
    wrong = (y - column(S, t) * rows["eps"]) / column(A, t)
    moved = (wrong - rows["y0"])[t < 9]  # at t = 9 the answer's share is .005
    assert np.all((moved > 1 - 1e-4) & (moved < 2 + 1e-4))


def test_a_task_that_knows_no_wrong_answers_is_refused():
    with pytest.raises(ValueError, match="the task has no `corrupt`"):
        make_corrupted(toys.schedule(), None)


@pytest.mark.parametrize("end", [-0.5, -0.01])
def test_a_noise_scale_that_ends_below_nothing_is_refused(end):
    with pytest.raises(ValueError, match=f"noise_scale_end={end}"):
        make_noise(toys.schedule(), toys.box, noise_scale_end=end)


# Refinements


def test_noise_clips_the_start_in_y0_space_and_renoises_with_the_positives_eps():
    rows = make_rows(40)
    start, y, info = run(make_strategies()["noise"], rows)
    t = rows["t"]
    y0 = np.clip(start / column(A, t), -BOUNDS, BOUNDS)
    expected = column(A, t) * y0 + column(S, t) * rows["eps"]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    assert np.all(info.displacement == 0)


@pytest.mark.parametrize("multiple", [1.0, 0.5])
def test_adversarial_descends_before_it_is_renoised(multiple):
    # On the ideal landscape a step of size beta on U shrinks the offset from the
    # minimum by 1 - beta / s^2, so it is accepted; y - s eps is the point before the
    # noise. The start is tight, so that no bound is met.
    rows = make_rows(40, levels=(1, 3, 5, 7))
    options = {"noise_scale": 0.01, "descent_step_size": multiple}
    strategy = make_adversarial(toys.schedule(), toys.box, toys.units(), **options)
    start, y, info = run(strategy, rows)
    t = rows["t"]
    centre = column(A, t) * rows["y0"]
    before_noise = y - column(S, t) * rows["eps"]
    shrink = column(1 - multiple * BETA / S**2, t) ** 2
    expected = centre + shrink * (start - centre)
    np.testing.assert_allclose(before_noise, expected, rtol=0, atol=2e-6)
    assert np.all(info.acceptance == 1)


@pytest.mark.parametrize("units", ["nats", "energy"])
def test_adversarial_moves_where_there_is_no_noise_too(units):
    """The step that solves the ideal landscape at once, in both units."""
    clean = diffusion.make_schedule("clean", 1)
    strategy = make_adversarial(clean, None, base.make_units(clean, units=units))
    rows = {"x": np.zeros((3, 1)), "y0": np.ones((3, 2)), "t": np.zeros(3, np.int32)}
    rows["eps"] = np.zeros((3, 2))

    def landscape(x, t):
        return lambda y: jnp.sum((y - 4) ** 2) / 2

    _, y, _ = run(strategy, jax.tree.map(jnp.asarray, rows), landscape)
    np.testing.assert_allclose(y, 4, rtol=1e-6)


def test_a_trajectory_s_displacement_is_that_of_the_free_elements():
    """Known ones begin and stay at a_t y_0, and are no part of the mean."""
    known = np.array([True, False, True, False])

    def box(x):
        return Box(jnp.where(known, 0.5, -3.0), jnp.where(known, 0.5, 3.0))

    levels, units = toys.schedule(), toys.units()
    rows = make_rows(10)
    rows["y0"] = jnp.where(known, 0.5, rows["y0"])
    start, y, info = run(make_on_trajectory(levels, box, units), rows)
    moved = np.sqrt(np.mean((y - start)[:, ~known] ** 2, axis=1))
    np.testing.assert_allclose(info.displacement, moved, rtol=1e-5)


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

    units = toys.units("nats" if in_nats else "energy")
    strategy = make_on_trajectory(levels, toys.box, units)
    start, y, info = run(strategy, rows, landscape)
    t = rows["t"]
    wrong = rows["y0"] + 0.02 * t[:, None] - 0.1
    expected = column(A, t) * wrong + column(S, t) * rows["eps"]
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-4)
    moved = np.sqrt(np.mean((expected - start) ** 2, axis=1))
    np.testing.assert_allclose(info.displacement, moved, rtol=1e-4)


def test_on_the_ideal_landscape_a_trajectory_ends_at_the_positive():
    rows = make_rows(40)
    _, y, _ = run(make_strategies()["on_trajectory"], rows)
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
        return y + 10 * mark, ChainInfo(number, number, number)

    return Strategy(start, refine)


@pytest.mark.parametrize("share, first", [(0.0, 0), (0.25, 2), (0.7, 7), (1.0, 10)])
def test_mixed_gives_the_first_strategy_its_share_of_the_rows(share, first):
    rows = make_rows(10)
    mixed = make_mixed(first=marked(1.0), second=marked(2.0), share=share)
    start, y, info = run(mixed, rows)
    mark = np.where(np.arange(10) < first, 1.0, 2.0)
    np.testing.assert_array_equal(start[:, 0], mark)
    np.testing.assert_array_equal(y[:, 0], 11 * mark)
    np.testing.assert_array_equal(info.acceptance, mark)


# Langevin chains: the exact law of the discrete chain on the ideal landscape


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
        {"in_nats": False},
        unclipped_law,
        (3.46, 1.36, 1.42),
    ),
    "energy_clipped": (
        landscape_in_energy,
        {"in_nats": False, "grad_clip": 0.01, "bounds": 2.0},
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
    strategy = toys.langevin(
        noise_scale=1.0, num_steps=6, adjusted=True, num_elements=16
    )
    _, y, info = run(strategy, rows)
    assert 0.3 < info.acceptance.mean() < 0.8
    assert np.all(info.displacement[info.acceptance > 0.9] > 0)
    for t in (0, 4, 9):
        mine = rows["t"] == t
        z = (y[mine] - A[t] * np.float64(rows["y0"][mine])) / S[t]
        assert abs(z.mean()) < SIGMAS / z.size**0.5
        assert abs(z.std() - 1) < SIGMAS / (2 * z.size) ** 0.5


def first_acceptance(step, size, count=200_000):
    """Of one move from exp(-|y|^2 / 2), in NumPy; the ratio is of the densities."""
    rng = np.random.default_rng(size)
    y, xi = rng.standard_normal((2, count, size))
    new = (1 - step) * y + np.sqrt(2 * step) * xi

    def log_move(a, b):
        return -np.sum((b - (1 - step) * a) ** 2, axis=1) / (4 * step)

    fall = np.sum(y**2 - new**2, axis=1) / 2
    alpha = np.exp(fall + log_move(new, y) - log_move(y, new))
    return np.minimum(alpha, 1).mean()


@pytest.mark.parametrize("num_known", [0, 12])
def test_an_adjusted_chain_s_default_step_is_that_of_the_free_elements(num_known):
    known = np.arange(16) < num_known

    def box(x):
        return Box(jnp.where(known, x, -np.inf), jnp.where(known, x, np.inf))

    rows = make_rows(4096, size=16)
    rows["eps"] = np.where(known, np.float32(0), rows["eps"])
    options = {"noise_scale": 1.0, "num_steps": 1, "adjusted": True}
    _, y, info = run(toys.langevin(box=box, num_elements=16, **options), rows)
    expected = first_acceptance(1.36 * (16 - num_known) ** (-1 / 3), 16 - num_known)
    error = SIGMAS * info.acceptance.std() / len(y) ** 0.5
    assert abs(info.acceptance.mean() - expected) < error + 1e-3
    # Without known elements it is that of a plain box, to the bit.
    plain = run(toys.langevin(box=None, num_elements=16, **options), rows)[1]
    assert np.array_equal(y, plain) == (num_known == 0)


def test_each_row_is_clipped_at_the_gradient_of_its_own_level():
    # Without noise and under a steep slope each step moves by h times the clip.
    rows = make_rows(20)
    strategy = toys.langevin(temperature=0.0, grad_clip=1.0)
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


@pytest.mark.parametrize("progress, moving", [(0.0, 1), (0.5, 5), (1.0, 10)])
def test_the_acceptance_is_that_of_the_steps_that_move(progress, moving):
    """K - k steps of size 0 after k are no part of it: a chain of k has the same."""
    rows = make_rows(64, size=16)
    options = {"adjusted": True, "num_elements": 16, "noise_scale": 1.0}
    grown = toys.langevin(num_steps=10, curriculum=1.0, **options)
    short = toys.langevin(num_steps=moving, **options)
    _, y, info = run(grown, rows, progress=progress)
    _, same, expected = run(short, rows)
    np.testing.assert_allclose(y, same, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(info.acceptance, expected.acceptance, atol=1e-5)
    assert np.all(info.acceptance >= 0)
    assert 0.2 < info.acceptance.mean() < 0.9
    plain = run(toys.langevin(curriculum=1.0), rows, progress=progress)[2]
    np.testing.assert_array_equal(plain.acceptance, 1)


def test_a_ramp_grows_over_its_share_of_the_run_and_is_one_without():
    values = [float(losses.ramp(p, 0.5)) for p in (0.0, 0.25, 0.5, 1.0)]
    assert values == [0.0, 0.5, 1.0, 1.0]
    assert float(losses.ramp(0.0, 0.0)) == 1.0


NEGATIVES = "ired_jax.negatives"
TRAJECTORY = test_a_trajectory_gives_the_models_own_answer_of_each_level_noised

MUTANTS = [
    Mutant(
        "negatives",
        "known elements count in a trajectory's displacement",
        "ired_jax.negatives.on_trajectory",
        one("boxes.rms_free(box_of(box, x), by)", "trees.rms(by)"),
        test_a_trajectory_s_displacement_is_that_of_the_free_elements,
    ),
    Mutant(
        "negatives",
        "adversarial stays where there is no noise",
        "ired_jax.negatives.base",
        one(
            "jnp.where(schedule.s[t] > 0, schedule.beta[t], schedule.temperature[t])",
            "schedule.beta[t]",
        ),
        test_adversarial_moves_where_there_is_no_noise_too,
        {"units": "nats"},
    ),
    Mutant(
        "known",
        "a trajectory that does not know what is given",
        f"{NEGATIVES}.on_trajectory",
        one("bounds=box_of(box, x)", "bounds=None"),
        test_what_a_row_knows_stands_still_in_every_strategy,
        {"name": "on_trajectory"},
    ),
    Mutant(
        "known",
        "adversarial descent that does not know what is given",
        f"{NEGATIVES}.adversarial",
        one("limit = box_of(box, x)\n", "limit = None\n"),
        test_what_a_row_knows_stands_still_in_every_strategy,
        {"name": "adversarial"},
    ),
    Mutant(
        "006",
        "the step of a chain times the number of rows",
        f"{NEGATIVES}.langevin",
        one("step_at(t) * is_active", 'step_at(t) * is_active * len(rows["t"])'),
        test_a_row_of_a_chain_does_not_depend_on_the_other_rows,
    ),
    Mutant(
        "known",
        "known elements count in the step of an adjusted chain",
        f"{NEGATIVES}.langevin",
        one("boxes.count_free(box, y)", "boxes.count_free(None, y)"),
        test_an_adjusted_chain_s_default_step_is_that_of_the_free_elements,
        {"num_known": 12},
    ),
    Mutant(
        "langevin",
        "a curriculum that starts with no step at all",
        f"{NEGATIVES}.langevin",
        one(
            "jnp.maximum(1.0, share * chain.num_steps)",
            "share * chain.num_steps",
        ),
        test_a_curriculum_moves_a_growing_number_of_steps_and_the_others_not_at_all,
    ),
    Mutant(
        "langevin",
        "steps that stand still count as accepted",
        f"{NEGATIVES}.langevin",
        one("if curriculum:  # a step", "if False:  # a step"),
        test_the_acceptance_is_that_of_the_steps_that_move,
        {"progress": 0.0, "moving": 1},
    ),
    Mutant(
        "negatives",
        "one key for both parts of a mixture",
        f"{NEGATIVES}.mixed",
        one("jax.random.split(key), split(rows)", "(key, key), split(rows)"),
        test_no_two_rows_share_their_noise,
        {"name": "mixed"},
    ),
    Mutant(
        "negatives",
        "the step size of adversarial descent is never read",
        f"{NEGATIVES}.adversarial",
        one("descent_step_size * units", "1.0 * units"),
        test_adversarial_descends_before_it_is_renoised,
        {"multiple": 0.5},
    ),
    Mutant(
        "negatives",
        "adversarial ascends",
        f"{NEGATIVES}.adversarial",
        one("descent_step_size * units", "-descent_step_size * units"),
        test_adversarial_descends_before_it_is_renoised,
        {"multiple": 1.0},
    ),
    Mutant(
        "negatives",
        "renoised with other noise than the positive's",
        f"{NEGATIVES}.base",
        one(
            'return q_sample(schedule, y0, rows["t"], rows["eps"])',
            'return q_sample(schedule, y0, rows["t"], -rows["eps"])',
        ),
        test_noise_clips_the_start_in_y0_space_and_renoises_with_the_positives_eps,
    ),
    Mutant(
        "negatives",
        "the trajectory of another level",
        f"{NEGATIVES}.on_trajectory",
        one("place = schedule.num_levels - 1 - t", "place = t"),
        TRAJECTORY,
        {"in_nats": True},
    ),
    Mutant(
        "negatives",
        "a trajectory that descends U with steps of E",
        f"{NEGATIVES}.on_trajectory",
        one("units.scale(level) * energy_fn(y)", "energy_fn(y)"),
        TRAJECTORY,
        {"in_nats": True},
    ),
    Mutant(
        "bounds",
        "the bound of row 0 for all rows of the negatives",
        f"{NEGATIVES}.adversarial",
        one(
            "boxes.scale(limit, schedule.a[t])",
            'boxes.scale(limit, schedule.a[rows["t"][0]])',
        ),
        test_each_row_is_clamped_at_the_bound_of_its_own_level,
    ),
]
