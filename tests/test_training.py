"""The train step: denoising, gradient flow, average, metrics, phases, determinism."""

import functools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ired_jax import losses, training
from ired_jax.energies.mlp import make_mlp
from ired_jax.negatives.adversarial import make_adversarial
from ired_jax.negatives.filters import ResidualFilter
from ired_jax.negatives.mixed import make_mixed
from ired_jax.negatives.noise import make_noise
from ired_jax.negatives.random import make_random
from ired_jax.objectives.base import Objective
from ired_jax.objectives.denoising import make_denoising
from ired_jax.objectives.pairs import Replay
from ired_jax.tasks.base import Source
from ired_jax.tasks.inverse import make_inverse
from ired_jax.types import Box, Energy, Example, PartError
from tests import references, toys
from tests.mutants import Mutant, one
from tests.test_contrast import THETA, WEIGHT, sum_over_level

_, _, A, S = references.schedule("cosine", toys.T)


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


@toys.jit
@partial(jax.value_and_grad, has_aux=True)
def _denoising(params, batch):
    return toys.denoising().loss(params, (), batch, None)


def denoising(params, batch):
    """The denoising loss, its gradient in theta, and its metrics."""
    (value, metrics), grads = _denoising(params, batch)
    return float(value), np.asarray(grads["theta"]), metrics


def test_on_the_ideal_landscape_denoising_is_exact():
    batch = make_batch(30)
    loss, _, metrics = denoising({"theta": np.ones(toys.T, np.float32)}, batch)
    eps, y0 = np.float64(batch["eps"]), np.float64(batch["y0"])
    # (y - a x) / s loses one rounding of y / s at the sharpest level.
    assert loss < (10 * np.finfo(np.float32).eps / S[0]) ** 2
    assert float(metrics["grad_norm_pos"]) == pytest.approx(np.mean(eps**2), rel=1e-5)
    assert float(metrics["pred_norm"]) == pytest.approx(np.mean(y0**2), rel=1e-3)


def test_known_elements_have_no_noise_and_do_not_count():
    """The loss over free elements alone, and y_t = a_t y_0 at the others."""
    known = np.arange(toys.D) < 3

    def box(x):
        return Box(jnp.where(known, x, -2.0), jnp.where(known, x, 2.0))

    ideal = toys.ideal_energy()
    term = make_denoising(toys.schedule(), ideal, box)

    @toys.jit
    def prepared(theta):
        state = toys.sgd_step()[1]
        context, batch = toys.context(state), toys.batch_of(state)
        rows, _, _ = term.prepare(context, (), batch)
        free, _, _ = toys.denoising().prepare(context, (), batch)
        return rows, free, term.loss({"theta": theta}, (), rows, context)[0]

    rows, free, loss = jax.tree.map(np.asarray, prepared(np.float32(THETA)))
    assert np.all(rows["eps"][:, known] == 0)
    np.testing.assert_array_equal(rows["eps"][:, ~known], free["eps"][:, ~known])
    # The gradient is theta eps: the loss is mean (theta_t - 1)^2 eps^2 of the free one.
    error = (THETA - 1.0)[rows["t"]] * np.float64(free["eps"])[:, 3]
    assert float(loss) == pytest.approx(np.mean(error**2), rel=1e-4)


def test_a_pytree_of_answers_is_denoised_as_its_elements_are():
    """Two leaves of y against the same elements in one vector."""
    levels = toys.schedule()

    def apply(params, x, y, t):
        flat = jnp.concatenate([y["a"].ravel(), y["b"].ravel()])
        return toys.ideal_energy().apply(params, x, flat, t)

    split = {"a": lambda v: v[:, :1, None], "b": lambda v: v[:, 1:]}
    term = make_denoising(levels, Energy(None, apply), None)
    batch = make_batch(30)
    cut = batch | {
        name: {leaf: of(batch[name]) for leaf, of in split.items()}
        for name in ("y0", "eps")
    }
    params = {"theta": np.float32(THETA)}
    loss, metrics = toys.jit(lambda p, b: term.loss(p, (), b, None))(params, cut)
    expected, _, same = denoising(params, batch)
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    for name in metrics:
        assert float(metrics[name]) == pytest.approx(float(same[name]), rel=1e-6)


def test_a_rows_input_gradient_does_not_depend_on_the_batch():
    # The gradient is theta eps: the loss is mean (theta_t - 1)^2 eps^2 at any size.
    params = {"theta": np.float32(THETA)}
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
            "replay": Replay(share=0.9, capacity=16),
            "residual_filter": ResidualFilter("running_quantile", denoised=False),
            "penalty_weight": lambda step: 1e-3,
        }
        | changes
    )


def mixed():
    parts = toys.schedule(), toys.box
    noise = make_noise(*parts, noise_scale=3.0)
    descent = make_adversarial(*parts, toys.units(), noise_scale=3.0)
    return make_mixed(first=noise, second=descent, share=0.5)


def classic_contrast():
    """The earlier form: E for U, a hot clipped chain in a box, y alone replayed."""
    return toys.contrast(
        strategy=toys.langevin(in_nats=False, grad_clip=0.01, bounds=2.0),
        in_nats=False,
        masked=True,
        num_rows=toys.BATCH,
        replay=Replay(
            share=0.9,
            capacity=16,
            num_buckets=16,
            conditional=False,
            per_row_coin=False,
        ),
        residual_filter=ResidualFilter(
            "batch_quantile", per_level=False, denoised=False
        ),
        penalty_weight=lambda step: 5e-3,
    )


VARIANTS = {
    # what is trained, and the parts of the negative phase that leave metrics
    "none": (lambda: None, ()),
    "nce_random": (
        lambda: toys.contrast(
            strategy=make_random(toys.schedule(), toys.box),
            pair_loss=losses.make_logistic(),
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
    def params():  # two of them: a donated buffer cannot be held twice
        return state.params._replace(energy={"theta": jnp.asarray(THETA)})

    return state._replace(params=params(), ema_params=params())


@functools.cache
def gradients(name, *, inside):
    """Gradient of the whole loss, the pairs drawn inside of what is differentiated."""
    contrast = VARIANTS[name][0]()
    state = with_theta(toys.sgd_step(contrast)[1])
    terms, batch = toys.objectives(contrast), toys.batch_of(state)

    def rows_at(params):
        held = toys.context(state._replace(params=params))
        return {
            term: objective.prepare(held, state.memory[term], batch)[0]
            for term, objective in terms.items()
        }

    def loss(params, rows):
        context = toys.context(state)
        values = [
            objective.loss(params.energy, params.own[term], rows[term], context)[0]
            for term, objective in terms.items()
        ]
        return sum(values)

    def both(params):
        if inside:
            return jax.grad(lambda p: loss(p, rows_at(p)))(params)
        return jax.grad(loss)(params, rows_at(params))

    return np.asarray(toys.jit(both)(state.params).energy["theta"])


@pytest.mark.parametrize("name", ["mixed", "full"])
def test_the_gradient_with_chains_inside_is_that_with_the_negatives_as_constants(name):
    inside, outside = (gradients(name, inside=where) for where in (True, False))
    chex.assert_trees_all_close(inside, outside, rtol=1e-5)


def test_the_step_moves_along_the_gradient_with_the_negatives_as_constants():
    _, state, after, _ = first_step("mixed")
    before, now = (s.params.energy["theta"] for s in (state, after))
    moved = np.asarray(before - now)
    # theta is of size 1 and moves by lr times the gradient: rounding over lr is left.
    np.testing.assert_allclose(
        moved / LEARNING_RATE,
        gradients("mixed", inside=False),
        rtol=1e-4,
        atol=4 * np.finfo(np.float32).eps / LEARNING_RATE,
    )


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
        names |= {"chain/acceptance", "chain/displacement", "chain/clipped"}
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
    moved = {
        name: np.asarray(first_step(name)[2].params.energy["theta"])
        for name in VARIANTS
    }
    names = list(moved)
    for i, first in enumerate(names):
        for second in names[:i]:
            assert np.abs(moved[first] - moved[second]).max() > 1e-4, (first, second)


def test_a_step_reports_the_roots_of_its_mean_squares():
    step, state = toys.sgd_step()
    term = toys.denoising()

    @toys.jit
    def both(state):
        context = toys.context(state)
        rows, _, _ = term.prepare(context, (), toys.batch_of(state))
        return step(state)[1], term.loss(state.params.energy, (), rows, context)[1]

    metrics, squares = both(state)
    assert set(term.roots) == {"grad_norm_pos", "pred_norm"}
    for name in term.roots:
        expected = np.sqrt(np.float64(squares[name]))
        assert float(metrics[name]) == pytest.approx(expected, rel=1e-5)
        assert abs(expected - expected**2) > 1e-4  # ten times what is allowed above


def test_the_denoising_loss_is_the_same_under_every_variant():
    loss = {name: float(first_step(name)[3]["train/denoise_mse"]) for name in VARIANTS}
    assert max(loss.values()) == pytest.approx(min(loss.values()), rel=1e-5)


def test_an_objective_with_parameters_and_memory_of_its_own_trains_both():
    """|w - mean x|^2 with a memory that counts steps, beside denoising."""

    def prepare(context, memory, batch):
        return {"x": batch.x}, memory + 1, {}

    def loss(params, own, rows, context):
        del params, context
        return jnp.mean((own[None] - rows["x"]) ** 2), {"own": jnp.mean(own)}

    own = Objective(
        prepare,
        loss,
        lambda key, example: (jnp.ones(toys.D), jnp.int32(0)),
        metrics={"own": ("-", "mean of w")},
    )
    terms, optimizer = toys.objectives() | {"own": own}, optax.sgd(0.5 * toys.D)
    make = partial(training.make_train_step, toys.source())
    options = {"batch_size": 8, "num_steps": 9, "ema": training.Ema()}
    step = make(terms, optimizer=optimizer, **options)
    state = training.init_state(
        jax.random.key(0),
        energy=toys.ideal_energy(),
        objectives=terms,
        optimizer=optimizer,
        example=jax.eval_shape(partial(toys.draw, ()), jax.random.key(0)),
    )
    after, metrics = toys.jit(step)(state, ())
    mean = np.mean(np.asarray(toys.batch_of(state, 8).x), axis=0)
    np.testing.assert_allclose(after.params.own["own"], mean, rtol=1e-5, atol=1e-6)
    assert int(after.memory["own"]) == 1
    assert float(metrics["own"]) == 1.0
    # A phase without it leaves its parameters and its memory as they are.
    early = make(toys.objectives(), optimizer=optimizer, **options)
    rests, _ = toys.jit(early)(state, ())
    np.testing.assert_array_equal(rests.params.own["own"], np.ones(toys.D))
    assert int(rests.memory["own"]) == 0


def test_no_parameters_share_their_draws():
    """Of an energy that splits its key, and of three objectives of one kind."""
    energy = toys.ideal_energy()._replace(init=lambda key: jax.random.split(key, 20))
    objective = Objective(None, None, lambda key, example: (key, ()))
    root = jax.random.key(0)
    params = training.init_state(
        root,
        energy=energy,
        objectives=dict.fromkeys("abc", objective),
        optimizer=optax.set_to_zero(),
        example=None,
    ).params
    folded = jax.random.fold_in(jax.random.fold_in(root, 0), 9)
    draw = jax.vmap(lambda key: jax.random.bits(key, (2,)))
    split, own = draw(params.energy), draw(jnp.stack([*params.own.values()]))
    np.testing.assert_array_equal(split, draw(jax.random.split(folded, 20)))
    rows = np.concatenate([split, own])
    assert len(np.unique(rows, axis=0)) == len(rows) == 23


def test_what_rests_stays_put_whatever_the_momentum():
    """Two steps of momentum on |v|^2 + |w|^2, then two of a phase without w."""

    def square(start):
        def loss(params, own, rows, context):
            return own**2, {}

        return Objective(
            lambda context, memory, batch: ((), memory, {}),
            loss,
            lambda key, example: (jnp.float32(start), ()),
        )

    terms = {"stays": square(1.0), "rests": square(2.0)}
    optimizer = optax.sgd(0.1, momentum=0.9)
    options = {"batch_size": 4, "num_steps": 9, "ema": training.Ema()}
    options |= {"optimizer": optimizer}
    both, alone = (
        training.make_train_step(toys.source(), objectives, **options)
        for objectives in (terms, {"stays": terms["stays"]})
    )

    @toys.jit
    def run(key):
        state = training.init_state(
            key,
            energy=toys.ideal_energy(),
            objectives=terms,
            optimizer=optimizer,
            example=jax.eval_shape(partial(toys.draw, ()), key),
        )
        own = [state.params.own]
        for step in (both, both, alone, alone):
            state, metrics = step(state, ())
            own.append(state.params.own)
        return own, metrics["norm/update"]

    own, update = run(jax.random.key(0))
    v, w, velocity_v, velocity_w = 1.0, 2.0, 0.0, 0.0
    for index, found in enumerate(own):
        assert float(found["stays"]) == pytest.approx(v, rel=1e-6)
        assert float(found["rests"]) == pytest.approx(w, rel=1e-6)
        velocity_v = 0.9 * velocity_v + 2 * v
        velocity_w = 0.9 * velocity_w + 2 * w
        v = v - 0.1 * velocity_v
        w = w - 0.1 * velocity_w if index < 2 else w
    moved = float(own[-1]["stays"]) - float(own[-2]["stays"])
    assert float(update) == pytest.approx(abs(moved), rel=1e-5)
    assert own[2]["rests"] == own[3]["rests"] == own[4]["rests"]


def test_a_data_set_is_an_argument_of_the_step_and_no_constant_in_it():
    table = jnp.linspace(0.25, 0.75, 32 * toys.D).reshape(32, toys.D)

    def draw(data, key):
        row = data[jax.random.randint(key, (), 0, 32)]
        return Example(row, row)

    step = training.make_train_step(
        Source(draw, data=table),
        toys.objectives(),
        optimizer=optax.sgd(0.1),
        batch_size=8,
        num_steps=9,
        ema=training.Ema(),
    )
    _, state = toys.sgd_step()
    state = state._replace(
        params=toys.parameters(state.params.energy, {"denoising": ()}),
        ema_params=toys.parameters(state.ema_params.energy, {"denoising": ()}),
        opt_state=optax.sgd(0.1).init(()),
    )
    program = jax.jit(step)
    one, two = (program(state, data)[1]["pred_norm"] for data in (table, 2 * table))
    assert float(two) == pytest.approx(2 * float(one), rel=1e-4)
    assert "0.258" not in program.lower(state, table).as_text()


@pytest.mark.parametrize("fields", [{"batch_size": 0}, {"num_steps": 0}])
def test_sizes_below_one_are_refused_by_name(fields):
    options = {"batch_size": 8, "num_steps": 9} | fields
    with pytest.raises(ValueError, match=f"{next(iter(fields))}=0"):
        training.make_train_step(
            toys.source(),
            toys.objectives(),
            optimizer=optax.sgd(0.1),
            ema=training.Ema(),
            **options,
        )


def test_no_objective_is_refused():
    with pytest.raises(ValueError, match="objectives: must name at least one"):
        training.make_train_step(
            toys.source(),
            {},
            optimizer=optax.sgd(0.1),
            batch_size=8,
            num_steps=9,
            ema=training.Ema(),
        )


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
    steps = training.repeat(lambda state, data: raw(state), 3)
    at_once, stacked = toys.jit(steps)(state, ())
    for i in range(3):
        state, metrics = step(state)
        mine = {name: value[i] for name, value in stacked.items()}
        chex.assert_trees_all_close(mine, metrics, rtol=1e-4, atol=1e-6)
    assert int(at_once.step) == int(state.step) == 3
    rings, again = (s.memory["contrast"]["replay"] for s in (at_once, state))
    np.testing.assert_array_equal(rings.size, again.size)
    np.testing.assert_array_equal(rings.rows["t"], again.rows["t"])
    chex.assert_trees_all_close(
        at_once._replace(key=0), state._replace(key=0), rtol=1e-4, atol=1e-5
    )


# What the penalty does to the denoiser


def trained(*, in_nats=True, penalty=0.0, **chain):
    """The metrics of 200 steps at n = 5: means over the last 50."""
    task, energy = make_inverse(n=5), make_mlp(25, 25, width=64)
    contrast = toys.contrast(
        energy=energy,
        in_nats=in_nats,
        strategy=toys.langevin(in_nats=in_nats, num_elements=25, **chain),
        num_rows=16,
        penalty_weight=lambda step: penalty,
    )
    terms = toys.objectives(contrast, energy)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(4e-3))
    step = training.make_train_step(
        task.train,
        terms,
        optimizer=optimizer,
        batch_size=32,
        num_steps=200,
        ema=training.Ema(),
    )
    first = partial(
        training.init_state,
        energy=energy,
        objectives=terms,
        optimizer=optimizer,
        example=task.example,
    )
    state = toys.jit(first)(jax.random.key(0))
    _, metrics = toys.jit(training.repeat(step, 200))(state, task.train.data)
    return {name: float(np.mean(value[-50:])) for name, value in metrics.items()}


def test_the_classic_penalty_collapses_the_denoiser_and_the_default_keeps_it():
    default = trained()
    classic = trained(in_nats=False, penalty=0.1 * WEIGHT, grad_clip=0.01, bounds=2.0)
    assert abs(default["grad_norm_pos"] - 1) < 0.15
    assert classic["grad_norm_pos"] < 0.75
    assert classic["train/denoise_mse"] > 2 * default["train/denoise_mse"]


STEP = "ired_jax.training"
STOPPED = 'jax.lax.stop_gradient((rows | {"y_pos": y_pos}, memory))'


def test_an_objective_cannot_write_the_norms_of_a_step():
    def loss(params, own, rows, context):
        return jnp.sum(params), {"norm/grad": jnp.float32(7.0)}

    own = Objective(
        lambda context, memory, batch: (batch.x, memory, {}),
        loss,
        metrics={"norm/grad": ("-", "of something else")},
    )
    given = {"objectives": {"own": own}, "optimizer": optax.sgd(0.1)}
    step = training.make_train_step(
        toys.source(), batch_size=4, num_steps=10, ema=training.Ema(), **given
    )
    example = jax.eval_shape(partial(toys.draw, ()), jax.random.key(0))
    energy = Energy(lambda key: jnp.ones(1), lambda p, x, y, t: p[0] * jnp.sum(y))
    init = partial(training.init_state, energy=energy, example=example, **given)
    with pytest.raises(PartError, match="'norm/grad' is given twice"):
        jax.eval_shape(lambda: step(init(jax.random.key(0)), ()))


MUTANTS = [
    Mutant(
        "training",
        "an objective's metric is written over by a norm of the step",
        "ired_jax.training",
        one("joined(joined(metrics, more), norms)", "joined(metrics, more) | norms"),
        test_an_objective_cannot_write_the_norms_of_a_step,
        error=pytest.fail.Exception,
    ),
    Mutant(
        "002",
        "samples leave the negative phase with their gradient",
        "ired_jax.objectives.pairs",
        one(STOPPED, 'rows | {"y_pos": y_pos}, memory'),
        test_the_gradient_with_chains_inside_is_that_with_the_negatives_as_constants,
        {"name": "full"},
    ),
    Mutant(
        "006",
        "the input gradient of the denoising loss times the batch size",
        "ired_jax.objectives.denoising",
        one(
            "values = trees.subtract(grad, eps), grad, start",
            "values = trees.subtract(30 * grad, eps), grad, start",
        ),
        test_a_rows_input_gradient_does_not_depend_on_the_batch,
    ),
    Mutant(
        "known",
        "noise on what is known",
        "ired_jax.objectives.paths",
        one("eps = still(box, batch.x, eps)", "pass"),
        test_known_elements_have_no_noise_and_do_not_count,
    ),
    Mutant(
        "known",
        "D counts what is known",
        "ired_jax.objectives.denoising",
        one("boxes.mean_free(box, trees", "boxes.mean_free(None, trees"),
        test_known_elements_have_no_noise_and_do_not_count,
    ),
    Mutant(
        "training",
        "mean squares reported for their roots",
        STEP,
        one("jnp.sqrt(more[k]) for", "more[k] for"),
        test_a_step_reports_the_roots_of_its_mean_squares,
    ),
    Mutant(
        "training",
        "only the last objective's gradient is taken",
        STEP,
        one("jax.tree.map(jnp.add, grads, part)", "part"),
        test_the_step_moves_along_the_gradient_with_the_negatives_as_constants,
    ),
    Mutant(
        "training",
        "keys of objectives are among those that an energy splits off",
        STEP,
        one("fold_in(init_own, index)", "fold_in(init, index + 1)"),
        test_no_parameters_share_their_draws,
    ),
    Mutant(
        "training",
        "momentum moves what rests",
        STEP,
        one("updates._replace(own=updates.own | rest)", "updates"),
        test_what_rests_stays_put_whatever_the_momentum,
    ),
    Mutant(
        "training",
        "an objective's memory is lost",
        STEP,
        one("opt_state, memory)", "opt_state, state.memory)"),
        test_an_objective_with_parameters_and_memory_of_its_own_trains_both,
    ),
    Mutant(
        "training",
        "the data set of the maker instead of the argument",
        STEP,
        one("partial(source.draw, data)", "partial(source.draw, source.data)"),
        test_a_data_set_is_an_argument_of_the_step_and_no_constant_in_it,
    ),
    Mutant(
        "average",
        "decay and its complement exchanged",
        STEP,
        one("decay * a + (1 - decay) * p", "(1 - decay) * a + decay * p"),
        test_the_average_copies_until_the_warm_up_and_then_decays_every_few_steps,
    ),
]
