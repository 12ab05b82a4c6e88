"""A chain over answers: its law, and that nothing is lost."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.build import build
from experiments.errors import UserError
from experiments.score.solver import solver
from ired_jax.samplers import search
from ired_jax.types import Energy
from tests import tiny, toys
from tests.mutants import Mutant, one

ENERGIES = np.array([0.0, 0.7, 2.0, 0.3, 1.1])  # of five answers, on a circle
TEMPERATURE = 0.8
CHAINS, MOVES = 8_000, 60


def _energy(y):
    return jnp.take(jnp.float32(ENERGIES), y.astype(int))


def _step_aside(key, y):
    """To one of the two neighbours: as likely there as back."""
    return (y + 2.0 * jax.random.bernoulli(key) - 1.0) % len(ENERGIES)


def _chains(temperature, move=_step_aside, count=CHAINS):
    run = partial(
        search.metropolis,
        energy_fn=_energy,
        move=move,
        num_moves=MOVES,
        temperature=temperature,
    )
    keys = jax.random.split(jax.random.key(3), count)
    starts = jnp.arange(count) % len(ENERGIES) * 1.0
    return starts, *toys.jit(jax.vmap(lambda key, y: run(key, y=y)))(keys, starts)


def test_where_moves_are_symmetric_the_law_is_that_of_the_temperature():
    _, _, info = _chains(TEMPERATURE)
    found = np.bincount(np.int32(info.last), minlength=len(ENERGIES)) / CHAINS
    weights = np.exp(-ENERGIES / TEMPERATURE)
    law = weights / weights.sum()
    # Starts are even over the answers, so what is left of them is far below this.
    np.testing.assert_array_less(np.abs(found - law), 4 * np.sqrt(law / CHAINS))


def test_the_best_answer_is_kept_and_is_never_worse_than_the_start():
    starts, best, info = _chains(TEMPERATURE, count=400)
    np.testing.assert_array_equal(info.energy, _energy(best))
    assert np.all(info.energy <= _energy(starts))
    assert np.all(info.energy <= _energy(info.last))
    assert np.mean(_energy(info.last)) > np.mean(info.energy) + 0.1


def test_at_temperature_0_only_falls_are_taken():
    starts, best, info = _chains(0.0, count=400)
    np.testing.assert_array_equal(best, info.last)
    # 0 and 3 are lower than both their neighbours: nobody leaves them.
    for bottom in (0.0, 3.0):
        assert np.all(info.last[starts == bottom] == bottom)
    assert set(np.unique(info.last)) == {0.0, 3.0}


def test_the_least_number_that_can_be_drawn_refuses_no_fall():
    """A key whose coin falls on 0, one of 2^23: its logarithm times 0 is NaN."""
    key = jax.random.key(55054)
    best, _ = search.metropolis(
        key, jnp.sum, lambda key, y: y - 1, jnp.ones(()), num_moves=1, temperature=0.0
    )
    assert best == 0


@pytest.mark.parametrize("temperature", [0.0, TEMPERATURE])
def test_a_start_whose_energy_is_not_a_number_is_left_and_not_come_back_to(temperature):
    def energy_fn(y):  # of 0 to 4; only 1 and 3 have one
        return jnp.where(y % 2 == 1, y, jnp.nan)

    def move(key, y):
        return jnp.mod(y + 1, 5.0)

    run = partial(search.metropolis, jax.random.key(0), energy_fn, move)
    best, info = run(jnp.float32(2), num_moves=3, temperature=temperature)
    assert (best, info.energy, info.last) == (3, 3, 3)
    assert float(info.acceptance) == pytest.approx(1 / 3)
    best, info = run(jnp.float32(4), num_moves=1, temperature=temperature)
    assert (best, info.energy, info.acceptance) == (4, np.inf, 0)


def test_a_move_that_stays_is_no_move():
    _, best, info = _chains(0.0, move=lambda key, y: y, count=5)
    np.testing.assert_array_equal(best, np.arange(5.0))
    np.testing.assert_array_equal(info.acceptance, 0)


def test_values_that_cannot_be_are_one_sentence():
    with pytest.raises(ValueError, match="num_moves=-1: must be a whole number"):
        search.metropolis(
            jax.random.key(0), _energy, _step_aside, jnp.zeros(()),
            num_moves=-1, temperature=0.0,
        )  # fmt: skip
    with pytest.raises(ValueError, match="move_level=4: must be below"):
        search.make_noise_move(4, move_level=4)


def test_an_answer_to_an_assumption_is_judged_by_the_question_as_it_was():
    """Each move has one given more than the question, and counts as an answer to it."""
    changes = {"eval__moves": 4, "eval__move": "assumption", "eval__num_steps": 0}
    experiment = build(tiny.get_config("sudoku", **changes))

    def known(x):
        return jnp.sum(x > 0) / 1.0

    energy = Energy(
        init=None,
        apply=lambda params, x, y, t: jnp.float32(0),
        denoise=lambda params, x, y, t: jnp.full_like(y, known(x) / 100),
        score=lambda params, x, y: 10 * known(x) - jnp.median(y),
    )
    experiment = experiment._replace(energy=energy)
    x = jnp.zeros((1, 9, 9), jnp.int8).at[0, 3, 4].set(7).at[0, 8, 8].set(1)
    answer, info = solver(experiment, experiment.task.train)((), x, jnp.arange(1))
    assert float(info.energy[0]) == pytest.approx(20 - 0.03, rel=1e-6)
    assert float(jnp.median(answer)) == pytest.approx(0.03)
    plain = solver(experiment._replace(search=None), experiment.task.train)
    _, info = plain((), x, jnp.arange(1))
    assert float(info.energy[0]) == pytest.approx(20 - 0.02, rel=1e-6)


def test_a_task_without_parts_to_assume_refuses_it():
    with pytest.raises(UserError, match=r"eval.move='assumption': must be noise"):
        build(tiny.get_config("none", eval__moves=1, eval__move="assumption"))


MUTANTS = [
    Mutant(
        "search",
        "a start that is not a number is never left",
        "ired_jax.samplers.search",
        one("jnp.where(jnp.isnan(energy), jnp.inf, energy)", "energy"),
        test_a_start_whose_energy_is_not_a_number_is_left_and_not_come_back_to,
        {"temperature": 0.0},
    ),
    Mutant(
        "search",
        "a coin of 0 refuses a fall",
        "ired_jax.samplers.search",
        one("energy.dtype, least)", "energy.dtype, 1e-38)"),
        test_the_least_number_that_can_be_drawn_refuses_no_fall,
    ),
    Mutant(
        "search",
        "a rise is as welcome as a fall",
        "ired_jax.samplers.search",
        one("new[1] - energy < ", "jnp.abs(new[1] - energy) * 0 < "),
        test_at_temperature_0_only_falls_are_taken,
    ),
    Mutant(
        "search",
        "the temperature counts twice",
        "ired_jax.samplers.search",
        one("temperature * heat", "2 * temperature * heat"),
        test_where_moves_are_symmetric_the_law_is_that_of_the_temperature,
    ),
    Mutant(
        "search",
        "the answer is where the chain stands",
        "ired_jax.samplers.search",
        one("return best[0], SearchInfo(", "return last, SearchInfo("),
        test_the_best_answer_is_kept_and_is_never_worse_than_the_start,
    ),
    Mutant(
        "search",
        "what was assumed is not in the question",
        "experiments.score.solver",
        one("descend(key, assume(key_part, x, y0), tr", "descend(key, x, tr"),
        test_an_answer_to_an_assumption_is_judged_by_the_question_as_it_was,
    ),
]
