"""A rule added at inference: its energy, the sum, the puzzles, and guiding by it."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ired_jax as ij
from examples import diagonals
from ired_jax.tasks import sudoku
from tests import boards_of, toys
from tests.mutants import Mutant, one


@functools.cache
def _puzzles():
    made = [diagonals.make_puzzle(seed) for seed in range(6)]
    return [(np.reshape(cells, (9, 9)), count) for cells, count in made]


@functools.cache
def _solved():
    """[9, 9]: the first puzzle's solution by all rules."""
    found = boards_of.solutions(_puzzles()[0][0], 51)
    (grid,) = [grid for grid in found if _obeys(grid)]
    return grid


def _obeys(grid):
    lines = np.diag(grid), np.diag(grid[:, ::-1])
    return all(np.array_equal(np.sort(line), np.arange(1, 10)) for line in lines)


def _rule():
    return toys.jit(jax.vmap(lambda board: diagonals.rule(sudoku.encode(board))))


def test_the_rule_is_0_exactly_where_it_is_obeyed():
    pairs = itertools.combinations(range(81), 2)
    boards = [_solved()]
    for a, b in pairs:
        board = _solved().copy().ravel()
        board[[a, b]] = board[[b, a]]
        boards.append(board.reshape(9, 9))
    values = np.asarray(_rule()(np.array(boards)))
    obeyed = np.array([_obeys(board) for board in boards])
    assert obeyed[0]
    assert 0 < obeyed[1:].sum() < len(boards) - 1
    np.testing.assert_array_equal(values == 0, obeyed)
    assert np.all(values >= 0)


def test_the_gradient_of_the_rule_is_that_of_finite_differences():
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 2)
        y, move = (jax.random.normal(k, (9, 9, 9), jnp.float64) for k in keys)
        slope = jnp.vdot(jax.grad(diagonals.rule)(y), move)
        # A quadratic: central differences are exact but for rounding.
        ahead, behind = (diagonals.rule(y + s * 1e-3 * move) for s in (1, -1))
        np.testing.assert_allclose(slope, (ahead - behind) / 2e-3, rtol=1e-8)


def test_energies_add():
    schedule = ij.make_schedule("cosine", 4)
    first = ij.Energy(
        lambda key: jnp.float32(2.0),
        lambda params, x, y, t: params * jnp.sum((y - x[..., None]) ** 2) + t,
    )
    total = diagonals.with_rule(first, schedule, 3.0)
    x = jnp.asarray(_puzzles()[0][0])
    params, y0 = total.init(jax.random.key(0)), sudoku.encode(jnp.asarray(_solved()))
    wrong = y0.at[0, 0].set(-1.0)  # a cell of a diagonal has no digit
    for t in range(4):
        y = schedule.a[t] * wrong
        gap = total(params, x, y, t) - first(params, x, y, t)
        np.testing.assert_allclose(gap, 3.0, rtol=1e-2)
        y = schedule.a[t] * y0
        np.testing.assert_allclose(total(params, x, y, t), first(params, x, y, t))


@pytest.mark.parametrize("index", range(6))
def test_a_puzzle_has_one_solution_by_all_rules_and_several_without(index):
    puzzle, count = _puzzles()[index]
    found = boards_of.solutions(puzzle, diagonals.MOST_SOLUTIONS + 1)
    assert len(found) == count
    assert 2 <= count <= diagonals.MOST_SOLUTIONS
    assert sum(map(_obeys, found)) == 1
    assert np.sum(puzzle > 0) >= diagonals.LEAST_GIVENS


def test_what_is_guided_is_near_and_obeys():
    digits = jax.random.normal(jax.random.key(1), (9, 9, 9))
    p = jax.nn.softmax(digits)
    q = toys.jit(diagonals.guide)(p)
    np.testing.assert_allclose(q.sum(-1), 1, rtol=1e-5)
    assert diagonals.rule(2 * q - 1) < 0.1 * diagonals.rule(2 * p - 1)
    is_elsewhere = np.ones(81, bool)
    is_elsewhere[np.ravel(diagonals.DIAGONALS)] = False
    away = np.abs(q - p).reshape(81, 9)
    np.testing.assert_allclose(away[is_elsewhere], 0, atol=1e-2)
    obeyed = jax.nn.one_hot(jnp.asarray(_solved()) - 1, 9)
    np.testing.assert_allclose(toys.jit(diagonals.guide)(obeyed), obeyed, atol=1e-2)


def test_guided_answers_obey_where_the_energy_alone_cannot_know():
    """An energy whose F says what y says, any digit as good: only the rule decides."""
    schedule = ij.make_schedule("cosine", 4)

    def denoise(params, x, y, t):
        return 2 * jax.nn.softmax(8 * y) - 1

    energy = ij.Energy(lambda key: (), lambda *args: 0.0, denoise=denoise)
    x = jnp.where(jnp.asarray(_solved()) > 4, jnp.asarray(_solved()), 0)
    broken = {}
    for is_guided in (False, True):
        how = {"levels": (3, 1, 0, 0), "is_guided": is_guided}
        find = functools.partial(diagonals.answer, energy, schedule, (), **how)
        y0 = toys.jit(find)(jax.random.key(0), x)
        assert y0.shape == (diagonals.ANSWERS, 9, 9, 9)
        broken[is_guided] = float(jnp.mean(jax.vmap(diagonals.rule)(y0)))
    assert broken[True] < 0.5 * broken[False]


MUTANTS = [
    Mutant(
        "diagonals",
        "one of the two diagonals is forgotten",
        "examples.diagonals",
        one("p[jnp.array(DIAGONALS)]", "p[jnp.array(DIAGONALS[:1])]"),
        test_the_rule_is_0_exactly_where_it_is_obeyed,
    ),
    Mutant(
        "diagonals",
        "the rule sees y and not y_0",
        "examples.diagonals",
        one("rule(y / schedule.a[t])", "rule(y)"),
        test_energies_add,
    ),
    Mutant(
        "diagonals",
        "several solutions obey",
        "examples.diagonals",
        one("and sum(map(obeys, found)) == 1", "and sum(map(obeys, found)) >= 1"),
        test_a_puzzle_has_one_solution_by_all_rules_and_several_without,
        {"index": 0},
    ),
    Mutant(
        "diagonals",
        "the guide pushes away from the rule",
        "examples.diagonals",
        one("log_p - pull * slope", "log_p + pull * slope"),
        test_what_is_guided_is_near_and_obeys,
    ),
]
