"""Rows on the own path, levels by their weight, and descent that carries gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ired_jax import diffusion, objectives
from ired_jax.objectives.base import Context, Parameters
from ired_jax.objectives.denoising import make_denoising
from ired_jax.objectives.unrolled import make_unrolled
from ired_jax.types import Box, Energy, Example, streams
from tests import toys
from tests.mutants import Mutant, one

D, T, ROWS = 3, 4, 64
SCHEDULE = diffusion.make_schedule("cosine", T)
A, S = np.float64(SCHEDULE.a), np.float64(SCHEDULE.s)
CALM = 0.3  # of a landscape: the share of a gap that a gradient closes


def box(x):
    """The first element is known, and is x's first."""
    known = jnp.array([True, False, False])
    return Box(jnp.where(known, x, -1.0), jnp.where(known, x, 1.0))


def _apply(params, x, y, t):
    """E = w |y - a v x|^2 / (2 s): its denoised answer is v x where w = 1."""
    gap = y - SCHEDULE.a[t] * params["v"] * x
    return params["w"] * jnp.sum(gap**2) / (2 * SCHEDULE.s[t])


ENERGY = Energy(lambda key: {}, _apply)


def _params(w=1.0, v=0.5):
    return {"w": np.float32(w), "v": np.float32(v)}


def _draws(objective, params, count):
    """The rows of so many steps."""

    @toys.jit
    def prepare(params, key, x):
        held = Parameters(params, {})
        context = Context(0, 0.0, streams(key, 0), held, held)
        return objective.prepare(context, (), Example(x, x))[0]

    for seed in range(count):
        x = np.random.default_rng(seed).choice(np.float32([-1, 1]), (ROWS, D))
        yield jax.tree.map(np.asarray, prepare(params, jax.random.key(seed), x))


def _rows(objective, params):
    return next(_draws(objective, params, 1))


def _loss(objective, params, rows):
    return _compiled_loss(objective)(params, rows)


def _compiled_loss(objective, transform=lambda loss: loss):
    loss = lambda params, rows: objective.loss(params, (), rows, None)[0]  # noqa: E731
    return toys.jit(transform(loss))


def test_levels_weigh_as_their_errors_in_the_answer_up_to_a_limit():
    params = _params(w=0.7)
    plain = make_denoising(SCHEDULE, ENERGY, box)
    rows = _rows(plain, params)
    t, x = rows["t"], np.float64(rows["x"])
    y = A[t][:, None] * x + S[t][:, None] * rows["eps"]
    start = (y - 0.7 * (y - A[t][:, None] * 0.5 * x)) / A[t][:, None]
    errors = np.mean(((start - x) ** 2)[:, 1:], axis=1)
    in_answers = make_denoising(SCHEDULE, ENERGY, box, max_weight=1e9)
    np.testing.assert_allclose(
        _loss(in_answers, params, rows), np.mean(errors), rtol=1e-4
    )
    limited = make_denoising(SCHEDULE, ENERGY, box, max_weight=3.0)
    weight = np.minimum((S / A) ** 2, 3.0)[t]
    np.testing.assert_allclose(
        _loss(limited, params, rows),
        np.mean(weight * errors * (A[t] / S[t]) ** 2),
        rtol=1e-4,
    )


def test_rows_of_the_own_path_hold_what_the_model_says_and_ask_for_the_truth():
    mixed = make_denoising(SCHEDULE, ENERGY, box, own_share=0.5)
    gaps = {True: [], False: []}
    for rows in _draws(mixed, _params(), 40):
        t, x = rows["t"], np.float64(rows["x"])
        y = A[t][:, None] * x + S[t][:, None] * rows["eps"]
        np.testing.assert_allclose(y[:, 0], A[t] * x[:, 0], rtol=1e-6)
        below = t == 1
        for is_own in gaps:
            of = below & ((np.arange(ROWS) < ROWS // 2) == is_own)
            gaps[is_own].append((y * x)[of, 1:].ravel())
    for is_own, said in ((True, 0.5), (False, 1.0)):
        values = np.concatenate(gaps[is_own])
        assert abs(values.mean() - A[1] * said) < 4 * S[1] / np.sqrt(values.size)
        assert abs(values.std() - S[1]) < 4 * S[1] / np.sqrt(2 * values.size)


@pytest.mark.parametrize("name", ["denoising", "unrolled"])
def test_the_own_path_is_that_of_the_held_parameters(name):
    make = objectives.__dict__[name].__dict__[f"make_{name}"]
    objective = make(SCHEDULE, ENERGY, box, own_share=1.0)
    first = _rows(objective, _params())
    other = _rows(objective, _params(v=-0.5))
    low = first["t"] < T - 1
    for key in {"eps", "y"} & set(first):
        assert np.all(first[key][low, 1:] != other[key][low, 1:])
        np.testing.assert_array_equal(first[key][~low], other[key][~low])
    if "y" in first:  # the energy's slope at what is known leads away from it
        known = np.float32(A)[first["t"]] * first["x"][:, 0]
        np.testing.assert_array_equal(first["y"][:, 0], known)


def test_one_unrolled_step_is_denoising_in_units_of_the_answer():
    params = _params(w=0.7)
    denoising = make_denoising(SCHEDULE, ENERGY, box, max_weight=1e9)
    unrolled = make_unrolled(
        SCHEDULE, ENERGY, box, steps=1, max_weight=1e9, own_share=0.0
    )
    rows = _rows(unrolled, params)
    same = _rows(denoising, params)
    np.testing.assert_array_equal(same["t"], rows["t"])
    first = _compiled_loss(denoising, jax.value_and_grad)(params, same)
    second = _compiled_loss(unrolled, jax.value_and_grad)(params, rows)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3)


def test_every_step_of_the_descent_counts_and_carries_gradient():
    objective = make_unrolled(
        SCHEDULE, ENERGY, box, steps=3, step_size=CALM, max_weight=5.0, own_share=0.0
    )
    rows = _rows(objective, _params())
    t, x, y = rows["t"], np.float64(rows["x"])[:, 1:], np.float64(rows["y"])[:, 1:]
    a, weight = A[t][:, None], np.minimum(A**-2, 5.0)[t]

    def expected(w, v):
        """The gap to a v x shrinks by 1 - m w at each step."""
        aim = a * v * x
        ys = [aim + (1 - CALM * w) ** k * (y - aim) for k in (1, 2, 3)]
        errors = [weight * np.mean((y - a * x) ** 2, axis=1) for y in ys]
        return np.mean(errors)

    value, grad = _compiled_loss(objective, jax.value_and_grad)(_params(0.8), rows)
    np.testing.assert_allclose(value, expected(0.8, 0.5), rtol=1e-4)
    for name, (dw, dv) in {"w": (1e-5, 0), "v": (0, 1e-5)}.items():
        ahead, back = expected(0.8 + dw, 0.5 + dv), expected(0.8 - dw, 0.5 - dv)
        np.testing.assert_allclose(grad[name], (ahead - back) / 2e-5, rtol=1e-3)


def test_what_is_known_stands_still_in_every_step_of_the_descent():
    """Of a coupled energy w (sum y)^2 / 2: what is known would move the rest."""
    energy = Energy(lambda key: {}, lambda p, x, y, t: p["w"] * jnp.sum(y) ** 2 / 2)
    objective = make_unrolled(
        SCHEDULE, energy, box, steps=2, step_size=CALM, max_weight=5.0, own_share=0.0
    )
    rows = _rows(objective, _params())
    t, x, y = rows["t"], np.float64(rows["x"]), np.float64(rows["y"])
    errors = []
    for _ in range(2):
        y[:, 1:] -= (CALM * S[t] * 0.8 * y.sum(axis=1))[:, None]
        gaps = (y - A[t][:, None] * x)[:, 1:]
        errors.append(np.minimum(A**-2, 5.0)[t] * np.mean(gaps**2, axis=1))
    value = _compiled_loss(objective)(_params(0.8), rows)
    np.testing.assert_allclose(value, np.mean(errors), rtol=1e-4)


@pytest.mark.parametrize("name", ["denoising", "unrolled"])
def test_own_rows_need_noise(name):
    clean = diffusion.make_schedule("clean", 1)
    make = objectives.__dict__[name].__dict__[f"make_{name}"]
    with pytest.raises(ValueError, match=rf"^{name}\.own_share=0\.5: must be 0 where"):
        make(clean, ENERGY, box, own_share=0.5)
    assert make(clean, ENERGY, box, own_share=0.0).metrics


PATHS, UNROLLED = "ired_jax.objectives.paths", "ired_jax.objectives.unrolled"
MUTANTS = [
    Mutant(
        "own path",
        "rows of a descent begin at 0 where there is no noise",
        UNROLLED,
        one('    paths.refuse_without_noise(schedule, "unrolled", own_share)\n', ""),
        test_own_rows_need_noise,
        {"name": "unrolled"},
    ),
    Mutant(
        "weights",
        "levels weigh as a / s",
        "ired_jax.objectives.denoising",
        one("(schedule.s / schedule.a) ** 2", "(schedule.a / schedule.s) ** 2"),
        test_levels_weigh_as_their_errors_in_the_answer_up_to_a_limit,
    ),
    Mutant(
        "weights",
        "the limit is from below",
        "ired_jax.objectives.denoising",
        one("weight = jnp.minimum(", "weight = jnp.maximum("),
        test_levels_weigh_as_their_errors_in_the_answer_up_to_a_limit,
    ),
    Mutant(
        "own path",
        "the rows after the first ones are replaced",
        PATHS,
        one(
            "jnp.concatenate([new, old[:, new.shape[1] :]], axis=1)",
            "jnp.concatenate([old[:, : -new.shape[1]], new], axis=1)",
        ),
        test_rows_of_the_own_path_hold_what_the_model_says_and_ask_for_the_truth,
    ),
    Mutant(
        "own path",
        "the noise that is asked for is the one drawn",
        "ired_jax.objectives.denoising",
        one(
            "eps = jax.vmap(partial(diffusion.predict_noise, schedule))(y, t, batch.y)",
            "eps = eps",
        ),
        test_rows_of_the_own_path_hold_what_the_model_says_and_ask_for_the_truth,
    ),
    Mutant(
        "unrolled",
        "the last step alone counts",
        UNROLLED,
        one("return jnp.mean(errors), metrics", "return errors[-1], metrics"),
        test_every_step_of_the_descent_counts_and_carries_gradient,
    ),
    Mutant(
        "unrolled",
        "gradient stops between steps",
        UNROLLED,
        one(
            "lambda y, grad: y - h * grad, y, grad)",
            "lambda y, grad: jax.lax.stop_gradient(y) - h * grad, y, grad)",
        ),
        test_every_step_of_the_descent_counts_and_carries_gradient,
    ),
    Mutant(
        "own path",
        "what the model says of known elements is handed over",
        PATHS,
        one("return boxes.clip(box_of(box, x), start)", "return start"),
        test_the_own_path_is_that_of_the_held_parameters,
        {"name": "unrolled"},
    ),
    Mutant(
        "unrolled",
        "known elements move",
        UNROLLED,
        one(
            "boxes.still(bounds, slope(",
            "(lambda b, g: g)(bounds, slope(",
        ),
        test_what_is_known_stands_still_in_every_step_of_the_descent,
    ),
    Mutant(
        "unrolled",
        "known elements count",
        UNROLLED,
        one("boxes.mean_free(bounds, gap)", "boxes.mean_free(None, gap)"),
        test_one_unrolled_step_is_denoising_in_units_of_the_answer,
    ),
]
