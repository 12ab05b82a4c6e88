"""Proposals: their errors, what they are trained on, and what reaches the energy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ired_jax import boxes, diffusion
from ired_jax.energies import aimed
from ired_jax.energies.aimed import Answering
from ired_jax.objectives import paths, proposal
from ired_jax.objectives.base import Context, Parameters
from ired_jax.types import Box, Energy, Example, PartError, streams
from tests import toys
from tests.mutants import Mutant, one

D, T, ROWS = 3, 4, 32
SCHEDULE = diffusion.make_schedule("cosine", T)
A, S = np.float64(SCHEDULE.a), np.float64(SCHEDULE.s)


def box(x):
    """The first element is known, and is x's first."""
    known = jnp.array([True, False, False])
    return Box(jnp.where(known, x, -1.0), jnp.where(known, x, 1.0))


def _energy(answering=None):
    """Round r says w tanh(r x) for every y: what it aims at is known."""

    def answers(params, x, y, t, rounds):
        del y, t
        steps = 1.0 + jnp.arange(rounds)[:, None]
        return params["w"] * jnp.tanh(steps * x[None])

    return aimed.around(SCHEDULE, box, lambda key: PARAMS, answers, 2, answering)


PARAMS = {"w": np.float32(0.8)}


def _batch():
    rng = np.random.default_rng(0)
    x = np.float32(rng.choice([-1.0, 1.0], (ROWS, D)))
    return Example(x, x)


def _draws(count, energy=None, **options):
    """The objective, and its rows of so many steps."""
    objective = proposal.make_proposal(
        SCHEDULE, energy or _energy(), box, ROWS, **options
    )
    params = Parameters(PARAMS, {})

    @jax.jit
    def prepare(key):
        context = Context(0, 0.0, streams(key, 0), params, params)
        return objective.prepare(context, (), _batch())[0]

    rows = [prepare(jax.random.key(seed)) for seed in range(count)]
    return objective, jax.tree.map(np.asarray, rows)


def _prepared(energy=None, **options):
    objective, (rows,) = _draws(1, energy, **options)
    return objective, rows


def test_errors_are_those_of_the_textbook():
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(4), size=3)
    truth = np.full((3, 4), -1.0)
    truth[np.arange(3), [0, 2, 1]] = 1
    low = np.concatenate([truth[:1], np.full((2, 4), -2.0)])  # the first row is known
    given = Box(low, truth), 2 * p - 1, truth
    found = [
        float(toys.jit(error)(*jax.tree.map(np.float32, given)))
        for error in (proposal.categorical, proposal.binary, proposal.squared)
    ]
    right = np.where(truth > 0, p, 1 - p)[1:]
    expected = [
        -np.mean(np.log(p[[1, 2], [2, 1]])),
        -np.mean(np.log(right)),
        np.mean((2 * p - 1 - truth)[1:] ** 2),
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("error", proposal.ERRORS)
def test_a_wrong_answer_has_a_finite_error_and_a_gradient(error):
    truth, wrong = np.float32([1, 1]), np.float32([-1, 0.5])
    of_answer = partial(proposal.ERRORS[error], Box(-1.0, 1.0), truth=truth)
    value, grad = toys.jit(jax.value_and_grad(lambda y: of_answer(answer=y)))(wrong)
    assert np.isfinite(value)
    assert np.all(grad < 0)


def test_the_loss_is_the_mean_over_rows_and_rounds():
    objective, rows = _prepared(own_share=0.0, noise_share=0.0)
    loss = lambda rows, of=objective: of.loss(PARAMS, (), rows, None)  # noqa: E731
    value, metrics = toys.jit(loss)(rows)
    x = np.float64(_batch().x)
    errors = [np.mean((0.8 * np.tanh(r * x) - x)[:, 1:] ** 2) for r in (1, 2)]
    np.testing.assert_allclose(value, np.mean(errors), rtol=1e-5)
    np.testing.assert_allclose(metrics["proposal/first"], errors[0], rtol=1e-5)
    np.testing.assert_allclose(metrics["proposal/error"], errors[1], rtol=1e-5)
    heavier, _ = _prepared(weight=3.0)
    found, _ = toys.jit(lambda rows: loss(rows, heavier))(rows)
    np.testing.assert_allclose(found, 3 * value)


def test_rows_are_noised_truths_the_own_path_and_noise_and_known_elements_are_exact():
    _, rows = _prepared(own_share=0.25, noise_share=0.25)
    x, y, t = (np.float64(rows[name]) for name in ("x", "y", "t"))
    levels = np.int32(t)
    assert set(levels) == set(range(T))
    np.testing.assert_allclose(y[:, 0], A[levels] * x[:, 0], rtol=1e-6)
    assert np.all(levels[-8:] == T - 1)
    # Of what the model answers and of the truth, many draws: the means say which.
    ys, lows = [], []
    for more in _draws(150, own_share=0.25, noise_share=0.25)[1]:
        part = more["y"][:, 1:] * more["x"][:, 1:]
        low = more["t"] == 1
        ys.append([part[:8][low[:8]].sum(), part[8:24][low[8:24]].sum()])
        lows.append([low[:8].sum(), low[8:24].sum()])
    mean = np.sum(ys, 0) / (2 * np.sum(lows, 0))
    error = S[1] / np.sqrt(2 * np.sum(lows, 0))
    answer = 0.8 * np.tanh(2)
    np.testing.assert_array_less(np.abs(mean - A[1] * np.array([answer, 1])), 4 * error)


def test_noise_alone_has_variance_1_where_inference_starts():
    _, rows = _draws(40, own_share=0.0, noise_share=1.0)
    values = np.concatenate([each["y"][:, 1:] for each in rows]).ravel()
    assert abs(values.var() - 1) < 4 * np.sqrt(2 / values.size)


def test_the_own_path_walks_down_as_inference_does():
    seen = []

    def answers(params, x, y, t, rounds):
        jax.debug.callback(lambda t: seen.append(int(t)), t)
        return jnp.broadcast_to(0.5 * x, (rounds, D))

    energy = aimed.around(SCHEDULE, box, lambda key: (), answers, 1)
    x = jnp.float32([1.0, -1.0, 1.0])
    denoise = partial(paths.by_proposal, energy, ())
    path = partial(paths.own_path, SCHEDULE, denoise, box, jax.random.key(0))
    y = path(x, x, jnp.int32(0))
    jax.effects_barrier()
    assert seen == [3, 2, 1]  # the last answer is the row's own, in the loss
    start = path(x, x, jnp.int32(T - 1))
    np.testing.assert_allclose(start[0], A[-1], rtol=1e-6)
    assert not np.array_equal(y, start)


def test_what_cannot_be_is_one_sentence():
    clean = diffusion.make_schedule("clean", 1)
    with pytest.raises(ValueError, match=r"proposal\.own_share=0\.2: must be 0"):
        proposal.make_proposal(clean, _energy(), box, ROWS, own_share=0.2)
    with pytest.raises(ValueError, match="at most 1 together"):
        _prepared(own_share=0.6, noise_share=0.5)
    flat = Energy(lambda key: (), lambda params, x, y, t: jnp.sum(y))
    with pytest.raises(ValueError, match="needs an energy with a network"):
        _prepared(energy=flat)


def test_a_proposal_without_the_axis_of_rounds_is_refused():
    """Its elements would be taken for rounds, each compared with the whole answer."""
    whole = _energy()
    last = whole._replace(propose=lambda *point: whole.propose(*point)[-1])
    objective, rows = _prepared(last, own_share=0.0, noise_share=0.0)
    with pytest.raises(PartError, match=r"propose gives float32\[3\] for one example"):
        jax.eval_shape(lambda rows: objective.loss(PARAMS, (), rows, None), rows)


def test_answers_are_ranked_by_doubt_where_that_is_asked():
    deeper = _energy(Answering(rounds=5, denoise="gradient", choose="doubt")).answering
    y0 = jnp.array([1.0, 0.5, 0.0])
    np.testing.assert_allclose(deeper.score(PARAMS, y0, y0), 0.75 + 1.0)
    assert deeper.denoise is None
    x = jnp.ones(D)
    assert deeper.propose(PARAMS, x, y0, jnp.int32(0)).shape == (5, D)
    by_energy = _energy(Answering()).answering
    assert by_energy.score is None
    answer = by_energy.denoise(PARAMS, x, y0, jnp.int32(0))
    np.testing.assert_allclose(answer, [1.0, *2 * [0.8 * np.tanh(2)]], rtol=1e-6)


def test_an_answer_begins_with_rounds_of_its_own():
    deeper = _energy(Answering(rounds=2, first_rounds=5)).answering
    assert deeper.rounds == (2, 2, 2, 5)
    x, y = jnp.float32([1.0, 0.5, -0.3]), jnp.float32([7.0, 0.1, 0.2])
    both = toys.jit(
        lambda t: (deeper(PARAMS, x, y, t), deeper.denoise(PARAMS, x, y, t))
    )
    for t, rounds in enumerate(deeper.rounds):
        value, answer = both(np.int32(t))
        aim = 0.8 * np.tanh(rounds * np.float64(x[1:]))
        np.testing.assert_allclose(answer, [1.0, *aim], rtol=1e-6)
        gap = y[1:] - A[t] * aim
        np.testing.assert_allclose(value, np.sum(gap**2) / (2 * S[t]), rtol=1e-5)


def test_the_gradient_of_an_energy_around_a_constant_denoises_to_it():
    energy, x = _energy(), jnp.float32([1.0, -1.0, 1.0])
    y = boxes.hold(boxes.scale(box(x), SCHEDULE.a[2]), jnp.float32([0.0, 0.3, 2.0]))
    grad = toys.jit(jax.grad(energy, 2))(PARAMS, x, y, jnp.int32(2))
    start = diffusion.predict_start(SCHEDULE, y, jnp.int32(2), grad)
    np.testing.assert_allclose(start[1:], 0.8 * np.tanh(2) * x[1:], rtol=1e-5)
    assert grad[0] == 0


MUTANTS = [
    Mutant(
        "proposal",
        "the sharpest level has the rounds of the first one of an answer",
        "ired_jax.energies.aimed",
        one("jax.lax.cond(t == last,", "jax.lax.cond(t == 0,"),
        test_an_answer_begins_with_rounds_of_its_own,
    ),
    Mutant(
        "proposal",
        "the last round alone is trained",
        "ired_jax.objectives.proposal",
        one("return jnp.mean(errors), errors[-1]", "return errors[-1], errors[-1]"),
        test_the_loss_is_the_mean_over_rows_and_rounds,
    ),
    Mutant(
        "proposal",
        "the own path is handed over without noise",
        "ired_jax.objectives.paths",
        one(
            "below = noised(denoise(x, y, level), level - 1)",
            "below = denoise(x, y, level)",
        ),
        test_rows_are_noised_truths_the_own_path_and_noise_and_known_elements_are_exact,
    ),
    Mutant(
        "proposal",
        "the own path goes down one level too far",
        "ired_jax.objectives.paths",
        one("trees.where(level > t,", "trees.where(level >= t,"),
        test_rows_are_noised_truths_the_own_path_and_noise_and_known_elements_are_exact,
    ),
    Mutant(
        "proposal",
        "known elements count in the error",
        "ired_jax.objectives.proposal",
        one("is_one = boxes.still(bounds, jax", "is_one = boxes.still(None, jax"),
        test_errors_are_those_of_the_textbook,
    ),
    Mutant(
        "proposal",
        "inference denoises by the first round",
        "ired_jax.energies.aimed",
        one("denoise=aim", "denoise=lambda *at: deeper.propose(*at)[0]"),
        test_answers_are_ranked_by_doubt_where_that_is_asked,
    ),
]
