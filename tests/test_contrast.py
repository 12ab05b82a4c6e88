"""The contrastive term: its gradient, masks, penalty and metrics, against NumPy."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.build import build
from ired_jax import diffusion, losses
from ired_jax.losses import PairLoss
from ired_jax.objectives.contrast import Weight, contrastive_loss
from ired_jax.types import Box, Energy, PartError
from tests import references, tiny, toys
from tests.mutants import Mutant, one

_, _, A, S = references.schedule("cosine", toys.T)
SHARE = (toys.LEVELS[1] - toys.LEVELS[0] + 1) / toys.T  # of the levels in the range
WEIGHT = 0.05
THETA = np.float32(np.linspace(0.5, 1.5, toys.T))


def make_pairs(num_rows=toys.ROWS, *, levels=range(1, 8), seed=0):
    """Rows {x, y0, t, y_pos, y, keep} that nothing has refined."""
    rng = np.random.default_rng(seed)
    shape = num_rows, toys.D
    x = rng.uniform(-1, 1, shape)
    t = np.int32([levels[i % len(levels)] for i in range(num_rows)])
    y_pos = A[t][:, None] * x + S[t][:, None] * rng.standard_normal(shape)
    y = A[t][:, None] * x + 2 * S[t][:, None] * rng.standard_normal(shape)
    rows = {"x": x, "y0": x, "y_pos": y_pos, "y": y, "keep": np.ones(num_rows)}
    return {name: np.float32(value) for name, value in rows.items()} | {"t": t}


def nats_per_theta(pairs, y):
    """dU / dtheta of the ideal energy in float64: |y - a_t x|^2 / (2 s_t^2)."""
    t = pairs["t"]
    offset = np.float64(pairs[y]) - A[t][:, None] * np.float64(pairs["x"])
    return np.sum(offset**2, axis=1) / (2 * S[t] ** 2)


def sum_over_level(values, t):
    return np.bincount(t, weights=values, minlength=toys.T)


def contrastive(contrast, pairs, params=None, step=0):
    """The contrastive loss, its gradient in theta, and its metrics."""

    def loss(params):
        return contrastive_loss(contrast, params, pairs, jnp.int32(step))

    params = {"theta": jnp.asarray(THETA)} if params is None else params
    (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return float(value), np.asarray(grads["theta"]), metrics


# Gradient of the contrastive term


@pytest.mark.parametrize("in_nats", [True, False])
@pytest.mark.parametrize("level_weights", [None, np.linspace(0.5, 2, toys.T)])
def test_the_gradient_is_that_of_constant_samples_through_both_energies(
    in_nats, level_weights
):
    pairs = make_pairs()
    pairs["keep"][::3] = 0
    factor = pairs["keep"] * (1.0 if in_nats else S[pairs["t"]])
    if level_weights is not None:
        factor = factor * level_weights[pairs["t"]]
    gap = nats_per_theta(pairs, "y_pos") - nats_per_theta(pairs, "y")
    expected = sum_over_level(factor * gap, pairs["t"]) / (toys.D * toys.ROWS)
    contrast = toys.contrast(
        in_nats=in_nats,
        level_weights=None if level_weights is None else jnp.float32(level_weights),
    )
    loss, actual, _ = contrastive(contrast, pairs)
    np.testing.assert_allclose(actual, WEIGHT * SHARE * expected, rtol=1e-4, atol=1e-7)
    # The loss is linear in theta.
    assert loss == pytest.approx(np.sum(THETA * WEIGHT * SHARE * expected), rel=1e-4)


def test_the_gradient_is_that_of_finite_differences():
    contrast, pairs = toys.contrast(), make_pairs()

    def loss(theta):
        params = {"theta": jnp.asarray(theta)}  # chex asks in NumPy
        return contrastive_loss(contrast, params, pairs, 0)[0]

    # Linear in theta: a difference has no error but that of rounding.
    chex.assert_numerical_grads(loss, (jnp.asarray(THETA),), order=1, atol=1e-3)


def test_the_gradient_through_the_negatives_energy_is_not_zero():
    contrast = toys.contrast(pair_loss=PairLoss(lambda u_pos, u_neg, size: -u_neg))
    pairs = make_pairs()
    expected = -sum_over_level(nats_per_theta(pairs, "y"), pairs["t"]) / toys.ROWS
    _, actual, _ = contrastive(contrast, pairs)
    assert np.all(actual[1:8] < 0)
    np.testing.assert_allclose(actual, WEIGHT * SHARE * expected, rtol=1e-4, atol=1e-7)


def test_one_step_on_the_contrastive_term_alone_widens_the_gap():
    pairs = make_pairs()
    _, gradient, before = contrastive(toys.contrast(), pairs)
    params = {"theta": THETA - 0.1 * gradient}
    _, _, after = contrastive(toys.contrast(), pairs, params)
    gap = {
        name: float(m["energy_pos"] - m["energy_neg"])
        for name, m in (("before", before), ("after", after))
    }
    assert gap["after"] < gap["before"] < 0


def test_the_contrastive_gradient_does_not_change_with_the_number_of_rows():
    pairs = make_pairs()
    twice = {name: np.concatenate([v, v]) for name, v in pairs.items()}
    loss, gradient, _ = contrastive(toys.contrast(), pairs)
    same, doubled, _ = contrastive(toys.contrast(num_rows=2 * toys.ROWS), twice)
    np.testing.assert_allclose(doubled, gradient, rtol=1e-5)
    assert same == pytest.approx(loss, rel=1e-5)


def test_the_contrastive_gradient_changes_with_the_elements_only_by_its_definition():
    # The same gap in nats, spread over twice the elements, counts half.
    half = PairLoss(lambda u, v, size: (u - v) / (2 * size))
    _, gradient, _ = contrastive(toys.contrast(), make_pairs())
    _, halved, _ = contrastive(toys.contrast(pair_loss=half), make_pairs())
    np.testing.assert_allclose(halved, gradient / 2, rtol=1e-5)


def test_shapes_that_would_broadcast_over_the_batch_are_refused():
    ideal, pairs = toys.ideal_energy(), make_pairs()

    def column_bind(*args):
        energy_fn = ideal.bind(*args)
        return lambda y: energy_fn(y)[None]

    column = Energy(ideal.init, lambda *a: ideal.apply(*a)[None], column_bind)
    wrong_keep = pairs | {"keep": pairs["keep"][:, None]}
    contrast, params = toys.contrast(in_nats=False), ideal.init(None)
    wrong = ((column, pairs, PartError), (ideal, wrong_keep, AssertionError))
    for energy, rows, error in wrong:
        spec = contrast._replace(loss_energy=energy)
        with jax.numpy_rank_promotion("allow"), pytest.raises(error):
            contrastive_loss(spec, params, rows, 0)


def test_the_weight_is_taken_at_the_step():
    contrast = toys.contrast(weight=partial(losses.warmup, maximum=0.4, num_steps=8))
    first, at_two, late = (
        contrastive(contrast, make_pairs(), step=step)[0] for step in (0, 2, 80)
    )
    assert first == 0
    assert late == pytest.approx(4 * at_two, rel=1e-6)


# Masks


def test_a_filtered_row_contributes_nothing_and_leaves_the_others_as_they_are():
    pairs = make_pairs()
    kept = np.arange(toys.ROWS) % 3 != 1

    def loss(samples, keep):
        rows = pairs | samples | {"keep": np.float32(keep)}
        contrast, params = toys.contrast(), {"theta": jnp.asarray(THETA)}
        return contrastive_loss(contrast, params, rows, 0)[0]

    samples = {name: jnp.asarray(pairs[name]) for name in ("y", "y_pos")}
    whole = jax.grad(loss)(samples, np.ones(toys.ROWS))
    masked = jax.grad(loss)(samples, kept)
    for name in samples:
        assert np.all(np.asarray(masked[name])[~kept] == 0)
        np.testing.assert_array_equal(masked[name][kept], whole[name][kept])
        assert np.all(np.asarray(whole[name]) != 0)


def test_a_level_range_has_the_expected_loss_of_a_mask_over_all_levels():
    # Every level once: the expectation over the level of a row is an average.
    everything = make_pairs(toys.T, levels=range(toys.T))
    inside = (everything["t"] >= 1) & (everything["t"] <= 7)
    masked = everything | {"keep": np.float32(inside)}
    contrast = toys.contrast(levels=(0, toys.T - 1), num_rows=toys.T)
    expected = contrastive(contrast, masked)
    ranged = {name: value[inside] for name, value in everything.items()}
    actual = contrastive(toys.contrast(levels=(1, 7), num_rows=7), ranged)
    assert actual[0] == pytest.approx(expected[0], rel=1e-5)
    np.testing.assert_allclose(actual[1], expected[1], rtol=1e-5)


def test_the_penalty_is_there_when_every_row_is_filtered():
    pairs = make_pairs()
    pairs["keep"][:] = 0
    contrast = toys.contrast(
        penalty_weight=lambda step: 0.25,
    )
    loss, gradient, _ = contrastive(contrast, pairs)
    t = pairs["t"]
    squares = nats_per_theta(pairs, "y_pos") ** 2 + nats_per_theta(pairs, "y") ** 2
    squares = 0.25 * squares / (toys.D**2 * toys.ROWS)
    assert loss == pytest.approx(np.sum(THETA[t] ** 2 * squares), rel=1e-4)
    expected = sum_over_level(2 * THETA[t] * squares, t)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-7)


def test_masked_rows_of_all_levels_have_the_loss_of_a_mask_and_the_whole_penalty():
    """The documents' form: rows of all levels, pair loss masked, penalty not."""
    pairs = make_pairs(toys.T, levels=range(toys.T))
    inside = (pairs["t"] >= 1) & (pairs["t"] <= 7)
    masked = toys.contrast(num_rows=toys.T, masked=True)
    whole = toys.contrast(num_rows=toys.T, levels=(0, toys.T - 1))
    expected = contrastive(whole, pairs | {"keep": np.float32(inside)})
    actual = contrastive(masked, pairs)
    assert actual[0] == pytest.approx(expected[0], rel=1e-5)
    np.testing.assert_allclose(actual[1], expected[1], rtol=1e-5)
    penalised = contrastive(masked._replace(penalty_weight=lambda step: 0.25), pairs)
    t = pairs["t"]
    squares = nats_per_theta(pairs, "y_pos") ** 2 + nats_per_theta(pairs, "y") ** 2
    squares = 0.25 * THETA[t] ** 2 * squares / (toys.D**2 * toys.T)
    assert penalised[0] - actual[0] == pytest.approx(np.sum(squares), rel=1e-4)


def test_a_row_s_gap_is_divided_by_the_number_of_its_own_free_elements():
    """Rows whose answer is known in k of D elements: E+ - E- over D - k."""
    known = np.arange(toys.D) < np.arange(toys.ROWS)[:, None] % toys.D

    def box(x):
        return Box(jnp.where(x["known"], 0.0, -2.0), jnp.where(x["known"], 0.0, 2.0))

    ideal, pairs = toys.ideal_energy(), make_pairs()
    energy = Energy(ideal.init, lambda p, x, y, t: ideal.apply(p, x["x"], y, t))
    rows = pairs | {"x": {"x": pairs["x"], "known": known}}
    contrast = toys.contrast(energy=energy, box=box)
    loss, _, _ = contrastive(contrast, rows)
    gap = nats_per_theta(pairs, "y_pos") - nats_per_theta(pairs, "y")
    of_row = THETA[pairs["t"]] * gap / (toys.D - known.sum(axis=1))
    assert loss == pytest.approx(WEIGHT * SHARE * np.mean(of_row), rel=1e-4)


@pytest.mark.parametrize("in_nats", [True, False])
def test_a_person_reads_nats_whatever_the_loss_is_in(in_nats):
    pairs = make_pairs()
    _, _, metrics = contrastive(toys.contrast(in_nats=in_nats), pairs)
    for name, y in {"energy_pos": "y_pos", "energy_neg": "y"}.items():
        expected = np.mean(THETA[pairs["t"]] * nats_per_theta(pairs, y))
        assert float(metrics[name]) == pytest.approx(expected, rel=1e-4)
    margin = THETA[pairs["t"]] * (
        nats_per_theta(pairs, "y") - nats_per_theta(pairs, "y_pos")
    )
    assert float(metrics["margin"]) == pytest.approx(np.mean(margin), rel=1e-4)


def test_the_energy_metrics_are_means_of_the_pairs_in_nats():
    pairs = make_pairs()
    _, _, metrics = contrastive(
        toys.contrast(pair_loss=losses.make_cd()._replace(tau=lambda size: 2.0)), pairs
    )
    u_pos, u_neg = (
        THETA[pairs["t"]] * nats_per_theta(pairs, y) for y in ("y_pos", "y")
    )
    expected = {
        "energy_pos": u_pos.mean(),
        "energy_neg": u_neg.mean(),
        "margin": (u_neg - u_pos).mean(),
        "frac_sat": np.mean(1 / (1 + np.exp((u_neg - u_pos) / 2)) < 0.01),
    }
    assert 0 < expected["frac_sat"] < 1
    for name, value in expected.items():
        assert float(metrics[name]) == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize("in_nats", [True, False])
def test_a_divided_gradient_is_a_temperature_divided_by_the_batch(in_nats):
    """softplus(B dE): F = E / B is what denoises, and what a person reads."""
    factor, pairs = 16, make_pairs()
    pair_loss = losses.make_logistic(tau=8.0, per_element=False)
    spec = toys.contrast(pair_loss=pair_loss, in_nats=in_nats, factor=factor)
    loss, _, metrics = contrastive(spec, pairs)
    u_pos, u_neg = (
        THETA[pairs["t"]] * nats_per_theta(pairs, y) for y in ("y_pos", "y")
    )
    gap = (u_pos - u_neg) * (1 if in_nats else S[pairs["t"]])
    expected = WEIGHT * SHARE * np.mean(np.logaddexp(0, factor * gap / 8))
    assert loss == pytest.approx(expected, rel=1e-4)
    assert float(metrics["margin"]) == pytest.approx(-np.mean(u_pos - u_neg), rel=1e-4)
    saturated = 1 / (1 + np.exp(-factor * (u_pos - u_neg) / 8)) < 0.01
    assert float(metrics["frac_sat"]) == pytest.approx(np.mean(saturated))


def test_the_divided_form_takes_the_batch_of_the_run():
    config = tiny.get_config("logistic", loss__divided=True)
    assert build(config).contrast.factor == config.train.batch_size
    assert build(tiny.get_config("logistic")).contrast.factor == 1


PAIR_OF_ENERGIES = "return energy_fn(y_pos), energy_fn(y)"
REATTACHED = f"""pull = jax.grad(energy_fn)(y)
        y = y - pull + jax.lax.stop_gradient(pull)
        {PAIR_OF_ENERGIES}"""
HELD = "bind(spec.loss_energy, jax.lax.stop_gradient(params), x, t)(y)"
TERM = 'spec.pair_loss.value(u_pos, u_neg, size) * pairs["keep"]'
CONTRAST = "ired_jax.objectives.contrast"
THROUGH_BOTH = test_the_gradient_is_that_of_constant_samples_through_both_energies
IN_NATS = {"in_nats": True, "level_weights": None}


def test_levels_without_noise_weigh_the_same():
    clean = diffusion.make_schedule("clean", 1)
    assert Weight(level_power=2.0).of_levels(clean) == 1.0


MUTANTS = [
    Mutant(
        "losses",
        "a level without noise has no weight",
        "ired_jax.objectives.contrast",
        one(
            "losses.level_weights(schedule.temperature,",
            "losses.level_weights(schedule.s,",
        ),
        test_levels_without_noise_weigh_the_same,
    ),
    Mutant(
        "010",
        "the pair handed over in the wrong order",
        CONTRAST,
        one("value(u_pos, u_neg, size)", "value(u_neg, u_pos, size)"),
        test_one_step_on_the_contrastive_term_alone_widens_the_gap,
    ),
    Mutant(
        "001",
        "contrastive divergence with the sign of its loss flipped",
        "ired_jax.losses",
        one("(u_pos - u_neg) / num_elements", "(u_neg - u_pos) / num_elements"),
        test_one_step_on_the_contrastive_term_alone_widens_the_gap,
    ),
    Mutant(
        "003",
        "the loss attaches the samples to the parameters again",
        CONTRAST,
        one(PAIR_OF_ENERGIES, REATTACHED),
        THROUGH_BOTH,
        IN_NATS,
    ),
    Mutant(
        "detached",
        "the energy of the negatives detached instead of the negatives",
        CONTRAST,
        one(PAIR_OF_ENERGIES, PAIR_OF_ENERGIES.replace("energy_fn(y)", HELD)),
        test_the_gradient_through_the_negatives_energy_is_not_zero,
    ),
    Mutant(
        "004",
        "the contrastive term divided by the number of rows twice",
        CONTRAST,
        one("* share * jnp.mean(value)", "* share * jnp.mean(value) / value.size"),
        test_the_contrastive_gradient_does_not_change_with_the_number_of_rows,
    ),
    Mutant(
        "005",
        "energies of any shape are broadcast",
        CONTRAST,
        one('chex.assert_shape([u_pos, u_neg, pairs["keep"]], t.shape)', "pass"),
        test_shapes_that_would_broadcast_over_the_batch_are_refused,
    ),
    Mutant(
        "shape",
        "the mask averaged into the scalar weight",
        CONTRAST,
        (
            (TERM, TERM.removesuffix(' * pairs["keep"]')),
            (
                "* share * jnp.mean(value)",
                '* share * jnp.mean(pairs["keep"]) * jnp.mean(value)',
            ),
        ),
        test_a_filtered_row_contributes_nothing_and_leaves_the_others_as_they_are,
    ),
    Mutant(
        "shape",
        "a level range that forgets its share of the levels",
        CONTRAST,
        one("(high - low + 1) / num_levels", "1.0"),
        test_a_level_range_has_the_expected_loss_of_a_mask_over_all_levels,
    ),
    Mutant(
        "shape",
        "the masked form has the range's share as well",
        CONTRAST,
        one("value, 0.0), 1.0", "value, 0.0), share"),
        test_masked_rows_of_all_levels_have_the_loss_of_a_mask_and_the_whole_penalty,
    ),
    Mutant(
        "reg",
        "the penalty masked by the filter",
        CONTRAST,
        one("jnp.mean(penalty)", 'jnp.mean(penalty * pairs["keep"])'),
        test_the_penalty_is_there_when_every_row_is_filtered,
    ),
    Mutant(
        "temperature",
        "E for U in the loss",
        CONTRAST,
        one("scale = spec.units.scale(t)", "scale = jnp.ones(())"),
        THROUGH_BOTH,
        IN_NATS,
    ),
    Mutant(
        "nats",
        "margin and U+ printed in units of E in the earlier form",
        CONTRAST,
        one(
            "to_nats = scale / diffusion.temperature(spec.schedule, t)",
            "to_nats = jnp.ones(())",
        ),
        test_a_person_reads_nats_whatever_the_loss_is_in,
        {"in_nats": False},
    ),
    Mutant(
        "nats",
        "U- alone printed in units of E",
        CONTRAST,
        one('"energy_neg": jnp.mean(u_neg)', '"energy_neg": jnp.mean(u_neg / to_nats)'),
        test_a_person_reads_nats_whatever_the_loss_is_in,
        {"in_nats": False},
    ),
    Mutant(
        "nats",
        "a pair counts as saturated by its gap in units of E",
        CONTRAST,
        (
            (
                "losses.saturation(u_pos, u_neg, tau=tau)",
                "losses.saturation(u_pos * s, u_neg * s, tau=tau)",
            ),
            (
                "tau = spec.pair_loss",
                "s = spec.schedule.s[t]\n    tau = spec.pair_loss",
            ),
        ),
        test_a_divided_gradient_is_a_temperature_divided_by_the_batch,
        {"in_nats": False},
    ),
    Mutant(
        "006",
        "a divided gradient multiplies the temperature",
        CONTRAST,
        one("spec.units.scale(t) / spec.factor", "spec.units.scale(t) * spec.factor"),
        test_a_divided_gradient_is_a_temperature_divided_by_the_batch,
        {"in_nats": True},
    ),
    Mutant(
        "006",
        "the divided form asked for and not taken",
        CONTRAST,
        one("batch_size if weight.divided else 1", "1"),
        test_the_divided_form_takes_the_batch_of_the_run,
    ),
    Mutant(
        "known",
        "known elements counted in D",
        "ired_jax.negatives.base",
        one("boxes.count_free(box_of(box, x), y))", "boxes.count_free(None, y))"),
        test_a_row_s_gap_is_divided_by_the_number_of_its_own_free_elements,
    ),
]
