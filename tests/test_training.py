"""The train step: gradient flow, masks, replay, average, metrics, determinism."""

import functools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ired_jax import diffusion, losses, negatives, replay, training
from ired_jax.energies.mlp import make_mlp
from ired_jax.tasks.inverse import make_inverse
from ired_jax.types import Energy
from tests import references, toys

_, _, A, S = references.schedule("cosine", toys.T)
SIGMAS = 4.5  # standard errors, two-sided chance of 1e-5 for each comparison
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
        return training.contrastive_loss(
            toys.problem(), contrast, params, pairs, jnp.int32(step)
        )

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


def test_the_gradient_through_the_negatives_energy_is_not_zero():
    contrast = toys.contrast(pair_loss=lambda u_pos, u_neg: u_pos - u_pos - u_neg)
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
    half = partial(losses.contrastive_divergence, num_elements=2 * toys.D)
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
    for energy, rows in ((column, pairs), (ideal, wrong_keep)):
        problem = toys.problem(energy=energy)
        with jax.numpy_rank_promotion("allow"), pytest.raises(AssertionError):
            training.contrastive_loss(problem, contrast, params, rows, 0)


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
        return training.contrastive_loss(toys.problem(), contrast, params, rows, 0)[0]

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
        penalty=partial(losses.energy_penalty, num_elements=toys.D),
        penalty_weight=lambda step: 0.25,
    )
    loss, gradient, _ = contrastive(contrast, pairs)
    t = pairs["t"]
    squares = nats_per_theta(pairs, "y_pos") ** 2 + nats_per_theta(pairs, "y") ** 2
    squares = 0.25 * squares / (toys.D**2 * toys.ROWS)
    assert loss == pytest.approx(np.sum(THETA[t] ** 2 * squares), rel=1e-4)
    expected = sum_over_level(2 * THETA[t] * squares, t)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-7)


def test_the_energy_metrics_are_means_of_the_pairs_in_nats():
    pairs = make_pairs()
    _, _, metrics = contrastive(toys.contrast(tau=2.0), pairs)
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


# Denoising


def make_batch(num_rows):
    rng = np.random.default_rng(2)
    y0, eps = (
        rng.uniform(-1, 1, (num_rows, toys.D)),
        rng.normal(size=(num_rows, toys.D)),
    )
    t = np.arange(num_rows) % toys.T
    return {"x": np.float32(y0), "y0": np.float32(y0), "t": np.int32(t)} | {
        "eps": np.float32(eps)
    }


def denoising(params, batch):
    """The denoising loss, its gradient in theta, and its metrics."""

    def loss(params):
        return training.denoising_loss(toys.problem(), params, batch)

    (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return float(value), np.asarray(grads["theta"]), metrics


def test_on_the_ideal_landscape_denoising_is_exact():
    batch = make_batch(30)
    loss, _, metrics = denoising({"theta": jnp.ones(toys.T)}, batch)
    eps, y0 = np.float64(batch["eps"]), np.float64(batch["y0"])
    # (y - a x) / s loses one rounding of y / s at the sharpest level.
    assert loss < (10 * np.finfo(np.float32).eps / S[0]) ** 2
    assert float(metrics["grad_norm_pos"]) == pytest.approx(np.mean(eps**2), rel=1e-5)
    assert float(metrics["pred_norm"]) == pytest.approx(np.mean(y0**2), rel=1e-3)


def test_a_rows_input_gradient_does_not_depend_on_the_batch():
    # The gradient is theta eps: the loss is mean (theta_t - 1)^2 eps^2 at any size.
    params = {"theta": jnp.asarray(THETA)}
    for num_rows in (1, 7, 30):
        batch = make_batch(num_rows)
        error = (THETA - 1.0)[batch["t"]][:, None] * np.float64(batch["eps"])
        loss, gradient, _ = denoising(params, batch)
        assert loss == pytest.approx(np.mean(error**2), rel=1e-4)
        of_row = 2 * np.mean(error * np.float64(batch["eps"]), axis=1) / num_rows
        expected = sum_over_level(of_row, batch["t"])
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


# No gradient through samples


def full_contrast(**changes):
    """Langevin with replay, a running filter and a penalty: every part at work."""
    return toys.contrast(
        **{
            "replay": training.Replay(share=0.9, capacity=16),
            "residual_filter": negatives.ResidualFilter(
                "running_quantile", denoised=False
            ),
            "penalty": partial(losses.energy_penalty, num_elements=toys.D),
            "penalty_weight": lambda step: 1e-3,
        }
        | changes
    )


def mixed():
    levels = toys.schedule()
    noise = negatives.nce_noise(levels, scale=(3.0, 3.0), bounds=2.0)
    descent = negatives.adversarial(
        levels,
        scale=(3.0, 3.0),
        bounds=2.0,
        num_steps=2,
        step_size=lambda t: levels.beta[t],
    )
    return negatives.mixed(noise, descent, share=0.5)


def classic_contrast():
    """The earlier form: E for U, a hot clipped chain in a box, y alone replayed."""
    step_size = partial(diffusion.descent_step_size, toys.schedule())
    return toys.contrast(
        strategy=toys.langevin(
            step_size=step_size, grad_clip=lambda t: 0.01, bounds=2.0
        ),
        in_nats=False,
        replay=training.Replay(
            share=0.9,
            capacity=16,
            num_buckets=16,
            conditional=False,
            per_row_coin=False,
        ),
        residual_filter=negatives.ResidualFilter(
            "batch_quantile", per_level=False, denoised=False
        ),
        penalty=partial(losses.energy_penalty, num_elements=1),
        penalty_weight=lambda step: 5e-3,
    )


VARIANTS = {
    # what is trained, and the parts of the negative phase that leave metrics
    "none": (lambda: None, ()),
    "nce_random": (
        lambda: toys.contrast(
            strategy=negatives.nce_random(toys.schedule(), bounds=2.0),
            pair_loss=partial(losses.logistic, tau=1.0),
        ),
        ("pairs",),
    ),
    "mixed": (lambda: toys.contrast(strategy=mixed()), ("pairs",)),
    "adjusted": (
        lambda: toys.contrast(strategy=toys.langevin(adjusted=True)),
        ("pairs",),
    ),
    "full": (full_contrast, ("pairs", "replay", "filter")),
    "classic": (classic_contrast, ("pairs", "replay", "filter")),
}
LEARNING_RATE = 0.1


@functools.cache
def first_step(name):
    """(step, first state, state after it, its metrics) of a variant, compiled."""
    step, state = toys.sgd_step(VARIANTS[name][0](), LEARNING_RATE)
    state = with_theta(state)
    step = toys.jit(step)
    return step, state, *step(state)


def with_theta(state):
    return state._replace(
        params={"theta": jnp.asarray(THETA)}, ema_params={"theta": jnp.asarray(THETA)}
    )


@functools.cache
def gradients(name, *, inside):
    """Gradient of the whole loss, the pairs drawn inside of what is differentiated."""
    problem, contrast = toys.problem(), VARIANTS[name][0]()
    _, state = toys.sgd_step(contrast)
    state = with_theta(state)
    batch = training.draw_batch(problem, state, toys.BATCH)

    def pairs_at(params):
        held = state._replace(params=params)
        pairs, _ = training.draw_pairs(problem, contrast, held, batch, jnp.float32(0))
        pairs.pop("thresholds", None)
        return pairs

    def loss(params, pairs):
        term, _ = training.contrastive_loss(
            problem, contrast, params, pairs, state.step
        )
        return training.denoising_loss(problem, params, batch)[0] + term

    def both(params):
        if inside:
            return jax.grad(lambda p: loss(p, pairs_at(p)))(params)
        return jax.grad(loss)(params, pairs_at(params))

    return np.asarray(toys.jit(both)(state.params)["theta"])


@pytest.mark.parametrize("name", ["mixed", "full"])
def test_the_gradient_with_chains_inside_is_that_with_the_negatives_as_constants(name):
    np.testing.assert_allclose(
        gradients(name, inside=True), gradients(name, inside=False), rtol=1e-5
    )


def test_the_step_moves_along_the_gradient_with_the_negatives_as_constants():
    _, state, after, _ = first_step("mixed")
    moved = np.asarray(state.params["theta"] - after.params["theta"])
    # theta is of size 1 and moves by lr times the gradient: rounding over lr is left.
    np.testing.assert_allclose(
        moved / LEARNING_RATE,
        gradients("mixed", inside=False),
        rtol=1e-4,
        atol=4 * np.finfo(np.float32).eps / LEARNING_RATE,
    )


# Negatives and their rows


@pytest.mark.parametrize("part", ["energy", "loss_energy", "chain_energy"])
def test_each_part_of_a_step_sees_its_own_energy(part):
    """Filter, losses and chains in turn have an energy that must not be called."""

    class Called(Exception):
        pass

    def refuse(*arguments):
        raise Called

    ideal = toys.ideal_energy()
    energies = dict.fromkeys(("energy", "loss_energy", "chain_energy"), ideal)
    energies[part] = Energy(ideal.init, refuse, refuse)
    chain_energy = energies.pop("chain_energy")
    problem = toys.problem(**energies)
    spec = negatives.ResidualFilter("batch_quantile")
    chains = toys.contrast(chain_energy=chain_energy)
    _, state = toys.sgd_step(toys.contrast(residual_filter=spec))
    batch = training.draw_batch(problem, state, toys.BATCH)
    still = negatives.nce_noise(problem.schedule, scale=(1.0, 1.0), bounds=2.0)
    calls = {
        "energy": lambda: training.draw_pairs(
            problem,
            chains._replace(strategy=still, residual_filter=spec),
            state,
            batch,
            0.0,
        ),
        "loss_energy": lambda: training.denoising_loss(problem, state.params, batch),
        "loss_energy of pairs": lambda: training.contrastive_loss(
            problem, chains, state.params, make_pairs(), state.step
        ),
        "chain_energy": lambda: training.draw_pairs(problem, chains, state, batch, 0.0),
    }
    for name, call in calls.items():
        if name.startswith(part):
            with pytest.raises(Called):
                jax.eval_shape(call)
        else:
            jax.eval_shape(call)


def draw_pairs(contrast, state, *, progress=0.0):
    problem = toys.problem()

    def draw(state):
        batch = training.draw_batch(problem, state, toys.BATCH)
        pairs, _ = training.draw_pairs(problem, contrast, state, batch, progress)
        return batch, pairs

    return jax.tree.map(np.asarray, draw(state))


def test_the_negative_phase_draws_its_levels_from_the_range_and_rows_of_the_batch():
    contrast = toys.contrast(strategy=unrefined())
    _, state = toys.sgd_step(contrast)
    seen = set()
    for step in range(8):
        at_step = state._replace(step=jnp.int32(step))
        batch, pairs = draw_pairs(contrast, at_step)
        seen |= set(pairs["t"].tolist())
        np.testing.assert_array_equal(pairs["x"], batch["x"][: toys.ROWS])
        np.testing.assert_array_equal(pairs["y0"], batch["y0"][: toys.ROWS])
        # The phase's noise is its own, not that of the denoising loss.
        assert np.all(pairs["eps"] != batch["eps"][: toys.ROWS])
        assert_is_noised_answer(pairs)
    assert seen == set(range(1, 8))  # each is missed with a chance of 8 * .86^192


def assert_is_noised_answer(pairs):
    a, s = A[pairs["t"]][:, None], S[pairs["t"]][:, None]
    expected = a * pairs["y0"] + s * pairs["eps"]
    np.testing.assert_allclose(pairs["y_pos"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_rows", [0, toys.BATCH + 1])
def test_more_pairs_than_rows_or_none_are_refused_by_name(num_rows):
    with pytest.raises(ValueError, match=f"num_rows={num_rows}"):
        toys.sgd_step(toys.contrast(num_rows=num_rows))


def opposite(x, y):
    """A residual that falls where the energy grows."""
    return 1 / (1 + toys.distance(x, y))


@pytest.mark.parametrize("per_level", [True, False])
def test_the_filter_keeps_by_the_tasks_residual_and_not_by_the_energy(per_level):
    spec = negatives.ResidualFilter(
        "batch_quantile", per_level=per_level, denoised=False
    )
    contrast = toys.contrast(strategy=unrefined(), residual_filter=spec, bounds=1e6)
    _, state = toys.sgd_step(contrast)
    problem = toys.problem(residual=opposite)
    batch = training.draw_batch(problem, state, toys.BATCH)
    pairs, metrics = training.draw_pairs(problem, contrast, state, batch, 0.0)
    t = np.asarray(pairs["t"])
    y0 = np.float64(pairs["y"]) / A[t][:, None]
    residual = 1 / (1 + np.sqrt(np.mean((y0 - np.float64(pairs["x"])) ** 2, axis=1)))
    group = t if per_level else np.zeros_like(t)
    limits = np.array([np.quantile(residual[group == i], 0.3) for i in group])
    # A row that is its level's quantile itself sits on the threshold.
    clear = np.abs(residual / limits - 1) > 1e-5
    expected = residual >= limits
    assert np.sum(clear) > toys.ROWS / 2
    assert 0 < np.sum(expected[clear]) < np.sum(clear)
    np.testing.assert_array_equal(np.asarray(pairs["keep"])[clear], expected[clear])
    assert float(metrics["filter/kept"]) == pytest.approx(np.mean(pairs["keep"]))


# Replay


def unrefined():
    """Fresh starts of noise, not refined: |y| < 20 always."""
    return negatives.nce_random(toys.schedule(), bounds=2.0)


def filled(contrast, *, buckets=range(1, 8), y=None):
    """A state whose buckets hold the rows x = 100 + j, y0 = 200 + j, y = 300 + j."""
    _, state = toys.sgd_step(contrast)
    t = np.int32([bucket for bucket in buckets for _ in range(4)])
    mark = np.broadcast_to(
        np.arange(t.size, dtype=np.float32)[:, None], (t.size, toys.D)
    )
    rows = {"x": 100 + mark, "y0": 200 + mark, "y": 300 + mark, "t": t}
    return state._replace(replay=replay.insert(state.replay, rows, jnp.asarray(t)))


def replayed_pairs(*, buckets=range(1, 8), step=0, **changes):
    """Pairs drawn from marked buckets, without refinement."""
    spec = training.Replay(**{"share": 1.0, "capacity": 4} | changes)
    contrast = toys.contrast(strategy=unrefined(), replay=spec)
    state = filled(contrast, buckets=buckets)._replace(step=jnp.int32(step))
    return draw_pairs(contrast, state)


def test_a_replayed_row_brings_its_own_condition_answer_and_level():
    _, pairs = replayed_pairs()
    mark = pairs["y"] - 300
    assert np.all((mark >= 0) & (mark < 28))
    np.testing.assert_array_equal(pairs["x"], 100 + mark)
    np.testing.assert_array_equal(pairs["y0"], 200 + mark)
    np.testing.assert_array_equal(pairs["t"], 1 + mark[:, 0] // 4)


def test_the_positive_of_a_replayed_row_is_its_own_answer_noised_afresh():
    _, pairs = replayed_pairs()
    assert np.all(pairs["y0"] >= 200)
    assert_is_noised_answer(pairs)
    noise = (pairs["y_pos"] - A[pairs["t"]][:, None] * pairs["y0"]) / S[pairs["t"]][
        :, None
    ]
    assert 0.5 < noise.std() < 1.5


def test_the_unconditional_form_replays_y_alone():
    batch, pairs = replayed_pairs(conditional=False)
    assert np.all(pairs["y"] >= 300)
    np.testing.assert_array_equal(pairs["x"], batch["x"][: toys.ROWS])
    np.testing.assert_array_equal(pairs["y0"], batch["y0"][: toys.ROWS])


def test_rows_of_empty_buckets_start_fresh_and_the_others_are_replayed():
    batch, pairs = replayed_pairs(buckets=(2, 5))
    is_replayed = pairs["y"][:, 0] >= 300
    np.testing.assert_array_equal(is_replayed, np.isin(pairs["t"], (2, 5)))
    assert 0 < is_replayed.sum() < toys.ROWS
    fresh = batch["x"][: toys.ROWS][~is_replayed]
    np.testing.assert_array_equal(pairs["x"][~is_replayed], fresh)
    assert np.all(pairs["y"][~is_replayed] != 0)


def test_each_row_has_its_own_coin():
    share, replayed = 0.5, []
    for step in range(6):
        _, pairs = replayed_pairs(share=share, step=step)
        replayed.append(np.mean(pairs["y"][:, 0] >= 300))
    rows = 6 * toys.ROWS
    assert abs(np.mean(replayed) - share) < SIGMAS * (share * (1 - share) / rows) ** 0.5
    assert all(0 < count < 1 for count in replayed)


def test_one_coin_for_the_batch_replays_all_rows_or_none():
    replayed = set()
    for step in range(6):
        _, pairs = replayed_pairs(share=0.5, step=step, per_row_coin=False)
        replayed.add(float(np.mean(pairs["y"][:, 0] >= 300)))
    assert replayed == {0.0, 1.0}


def test_the_replay_share_grows_over_its_curriculum():
    spec = training.Replay(share=1.0, capacity=4, curriculum=0.5)
    contrast = toys.contrast(strategy=unrefined(), replay=spec)
    state = filled(contrast)
    share = {}
    for progress in (0.0, 0.25, 0.5):
        _, pairs = draw_pairs(contrast, state, progress=progress)
        share[progress] = np.mean(pairs["y"][:, 0] >= 300)
    assert share[0.0] == 0
    assert 0 < share[0.25] < 1
    assert share[0.5] == 1


def test_replayed_chains_move_and_lower_their_energy_without_noise():
    contrast = toys.contrast(
        strategy=toys.langevin(temperature=0.0), replay=training.Replay(1.0, 4)
    )
    state = filled(contrast)
    _, pairs = draw_pairs(contrast, state)
    # y = 300 + j was stored with y0 = 200 + j: both name the row.
    before = pairs | {"y": pairs["y0"] + 100}
    lowered = nats_per_theta(pairs, "y") / nats_per_theta(before, "y")
    # Three steps, each multiplying the offset from the minimum by 1 - h / s^2 = 3/4.
    np.testing.assert_allclose(lowered, 0.75**6, rtol=1e-3)


@functools.cache
def many_stored_rows():
    """Rings after one step with 8 x 4096 chains on the ideal landscape."""
    num_rows = 8 * 4096
    contrast = toys.contrast(
        strategy=toys.langevin(num_steps=10),
        levels=(1, 8),
        num_rows=num_rows,
        replay=training.Replay(capacity=num_rows // 4),
    )
    problem = toys.problem()
    state = training.init_state(jax.random.key(0), problem, optax.sgd(0.0), contrast)

    @toys.jit
    def rings(state):
        batch = training.draw_batch(problem, state, num_rows)
        pairs, _ = training.draw_pairs(problem, contrast, state, batch, 0.0)
        return training.insert_pairs(contrast, state.replay, pairs, toys.T), pairs

    return jax.tree.map(np.asarray, rings(state))


def test_a_stored_entry_is_the_chains_end_with_the_spread_of_its_level():
    # Ten steps from 1.5 s with h = s^2 / 4 on the ideal landscape: their exact law.
    rings, _ = many_stored_rows()
    decay = 0.75**20
    width = np.sqrt(decay * 1.5**2 + 0.5 * (1 - decay) / (1 - 0.75**2))
    assert np.sum(rings.size) == 8 * 4096
    for t in range(1, 9):
        rows = {name: value[t, : rings.size[t]] for name, value in rings.rows.items()}
        assert rings.size[t] > 3500
        assert np.all(rows["t"] == t)
        z = (rows["y"] - A[t] * np.float64(rows["y0"])) / S[t]
        assert abs(z.std() / width - 1) < SIGMAS / (2 * z.size) ** 0.5
        assert abs(z.mean()) < SIGMAS * width / z.size**0.5


def test_the_refined_rows_are_stored_with_what_they_belong_to():
    rings, pairs = many_stored_rows()
    for name in ("x", "y0", "y"):
        stored = np.concatenate(
            [rings.rows[name][t, : rings.size[t]] for t in range(10)]
        )
        order = np.argsort(pairs["t"], kind="stable")
        np.testing.assert_array_equal(stored, pairs[name][order])


# The parameter average


def test_the_average_copies_until_the_warm_up_and_then_decays_every_few_steps():
    ema, rng = training.Ema(decay=0.8, every=3, warmup=5), np.random.default_rng(1)
    update = toys.jit(partial(training.update_ema, ema))
    actual, expected = jnp.zeros(4), np.zeros(4)
    for step in range(1, 20):
        params = rng.normal(size=4).astype(np.float32)
        actual = update(jnp.int32(step), actual, params)
        if step <= 5:
            expected = np.float64(params)
        elif step % 3 == 0:
            expected = 0.8 * expected + 0.2 * np.float64(params)
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


# Whole steps


def metric_names(parts):
    names = {"train/loss", "train/denoise_mse", "grad_norm_pos", "pred_norm"}
    names |= {"norm/param", "norm/grad", "norm/update"}
    if "pairs" in parts:
        names |= {"energy_pos", "energy_neg", "margin", "frac_sat"}
        names |= {"chain/acceptance", "chain/displacement"}
    if "replay" in parts:
        names |= {"replay/size"}
    if "filter" in parts:
        quantiles = [(q, t) for q in (10, 50, 90) for t in range(1, 8)]
        names |= {"filter/kept"} | {f"filter/q{q}_level{t}" for q, t in quantiles}
    return names


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_reports_its_metrics_and_stays_finite(name):
    _, _, state, metrics = first_step(name)
    assert set(metrics) == metric_names(VARIANTS[name][1])
    chex.assert_shape(list(metrics.values()), ())
    chex.assert_type(list(metrics.values()), jnp.float32)
    chex.assert_tree_all_finite((state.params, state.ema_params, metrics))
    assert int(state.step) == 1


def test_no_two_variants_have_the_same_gradient():
    moved = {name: np.asarray(first_step(name)[2].params["theta"]) for name in VARIANTS}
    names = list(moved)
    for i, first in enumerate(names):
        for second in names[:i]:
            assert np.abs(moved[first] - moved[second]).max() > 1e-4, (first, second)


def test_a_step_reports_the_roots_of_its_mean_squares():
    step, state = toys.sgd_step()
    _, metrics = toys.jit(step)(state)
    batch = training.draw_batch(toys.problem(), state, toys.BATCH)
    _, squares = training.denoising_loss(toys.problem(), state.params, batch)
    for name in training.ROOT_MEAN_SQUARES:
        expected = np.sqrt(np.float64(squares[name]))
        assert float(metrics[name]) == pytest.approx(expected, rel=1e-5)
        assert abs(expected - expected**2) > 1e-4  # ten times what is allowed above


def test_the_denoising_loss_is_the_same_under_every_variant():
    loss = {name: float(first_step(name)[3]["train/denoise_mse"]) for name in VARIANTS}
    assert max(loss.values()) == pytest.approx(min(loss.values()), rel=1e-5)


def test_the_same_state_gives_the_same_bits():
    step, state, after, metrics = first_step("full")
    again, same = step(state)
    data = [jax.random.key_data(s.key) for s in (state, after, again)]
    chex.assert_trees_all_equal(data[1:], data[:1] * 2)  # the key never advances
    chex.assert_trees_all_equal(again._replace(key=0), after._replace(key=0))
    chex.assert_trees_all_equal(same, metrics)


def test_another_step_draws_other_numbers():
    step, state, _, metrics = first_step("none")
    _, other = step(state._replace(step=jnp.int32(1)))
    assert other["train/denoise_mse"] != metrics["train/denoise_mse"]


def test_three_steps_in_one_dispatch_are_three_steps():
    step, state, *_ = first_step("full")
    contrast = VARIANTS["full"][0]()
    raw, _ = toys.sgd_step(contrast, LEARNING_RATE)
    at_once, stacked = toys.jit(training.repeat(raw, 3))(state)
    for i in range(3):
        state, metrics = step(state)
        mine = {name: value[i] for name, value in stacked.items()}
        chex.assert_trees_all_close(mine, metrics, rtol=1e-4, atol=1e-6)
    assert int(at_once.step) == int(state.step) == 3
    np.testing.assert_array_equal(at_once.replay.size, state.replay.size)
    np.testing.assert_array_equal(at_once.replay.rows["t"], state.replay.rows["t"])
    chex.assert_trees_all_close(
        at_once._replace(key=0), state._replace(key=0), rtol=1e-4, atol=1e-5
    )


# What the penalty does to the denoiser


def trained(changes, step_size, **chain):
    """The metrics of 200 steps at n = 5: means over the last 50."""
    task, levels = make_inverse(5), toys.schedule()
    energy = make_mlp(25, 25, width=64)
    problem = training.Problem(task.train.draw, task.residual, energy, levels)
    contrast = toys.contrast(
        strategy=toys.langevin(step_size=step_size, **chain),
        pair_loss=partial(losses.contrastive_divergence, num_elements=25),
        num_rows=16,
        **changes,
    )
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(4e-3))
    step = training.make_train_step(
        problem,
        optimizer=optimizer,
        batch_size=32,
        num_steps=200,
        ema=training.Ema(),
        contrast=contrast,
    )
    state = training.init_state(jax.random.key(0), problem, optimizer, contrast)
    _, metrics = toys.jit(training.repeat(step, 200))(state)
    return {name: float(np.mean(value[-50:])) for name, value in metrics.items()}


def test_the_classic_penalty_collapses_the_denoiser_and_the_default_keeps_it():
    levels = toys.schedule()
    default = trained({}, partial(diffusion.langevin_step_size, levels, multiple=0.25))
    classic = trained(
        {
            "in_nats": False,
            "penalty": partial(losses.energy_penalty, num_elements=1),
            "penalty_weight": lambda step: 0.1 * WEIGHT,
        },
        partial(diffusion.descent_step_size, levels),
        grad_clip=lambda t: 0.01,
        bounds=2.0,
    )
    assert abs(default["grad_norm_pos"] - 1) < 0.15
    assert classic["grad_norm_pos"] < 0.75
    assert classic["train/denoise_mse"] > 2 * default["train/denoise_mse"]
