"""A rule added at inference: its energy, the sum, the puzzles, and guiding by it."""

import functools
import itertools
from types import SimpleNamespace

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
        y, move = np.random.default_rng(0).normal(size=(2, 9, 9, 9))
        both = toys.jit(jax.value_and_grad(diagonals.rule))
        slope = np.vdot(both(y)[1], move)
        # A quadratic: central differences are exact but for rounding.
        ahead, behind = (both(y + s * 1e-3 * move)[0] for s in (1, -1))
        np.testing.assert_allclose(slope, (ahead - behind) / 2e-3, rtol=1e-8)


def test_energies_add():
    schedule = ij.make_schedule("cosine", 4)
    first = ij.Energy(
        lambda key: jnp.float32(2.0),
        lambda params, x, y, t: params * jnp.sum((y - x[..., None]) ** 2) + t,
    )
    total = diagonals.with_rule(first, schedule, 3.0)

    @toys.jit
    def both(x, y0, t):
        params, y = total.init(jax.random.key(0)), schedule.a[t] * y0
        return total(params, x, y, t), first(params, x, y, t)

    x = _puzzles()[0][0]
    y0 = np.asarray(sudoku.encode(jnp.asarray(_solved())))
    wrong = y0.copy()
    wrong[0, 0] = -1  # a cell of a diagonal has no digit
    for t in range(4):
        added, alone = both(x, wrong, t)
        np.testing.assert_allclose(added - alone, 3.0, rtol=1e-2)
        np.testing.assert_allclose(*both(x, y0, t))


@pytest.mark.parametrize("index", range(6))
def test_a_puzzle_has_one_solution_by_all_rules_and_several_without(index):
    puzzle, count = _puzzles()[index]
    found = boards_of.solutions(puzzle, diagonals.MOST_SOLUTIONS + 1)
    assert len(found) == count
    assert 2 <= count <= diagonals.MOST_SOLUTIONS
    assert sum(map(_obeys, found)) == 1
    assert np.sum(puzzle > 0) >= diagonals.LEAST_GIVENS


def test_what_is_guided_is_near_and_obeys():
    weights = np.exp(np.random.default_rng(1).normal(size=(9, 9, 9)))
    p = np.float32(weights / weights.sum(-1, keepdims=True))
    guide, rule = toys.jit(diagonals.guide), toys.jit(diagonals.rule)
    q = np.asarray(guide(p))
    np.testing.assert_allclose(q.sum(-1), 1, rtol=1e-5)
    assert rule(2 * q - 1) < 0.1 * rule(2 * p - 1)
    is_elsewhere = np.ones(81, bool)
    is_elsewhere[np.ravel(diagonals.DIAGONALS)] = False
    away = np.abs(q - p).reshape(81, 9)
    np.testing.assert_allclose(away[is_elsewhere], 0, atol=1e-2)
    obeyed = np.eye(9, dtype=np.float32)[_solved() - 1]
    np.testing.assert_allclose(guide(obeyed), obeyed, atol=1e-2)


def test_guided_answers_obey_where_the_energy_alone_cannot_know():
    """An energy whose F says what y says, any digit as good: only the rule decides."""
    schedule = ij.make_schedule("cosine", 4)

    def denoise(params, x, y, t):
        return 2 * jax.nn.softmax(8 * y) - 1

    energy = ij.Energy(lambda key: (), lambda *args: 0.0, denoise=denoise)
    x = np.where(_solved() > 4, _solved(), 0)
    broken = {}
    for is_guided in (False, True):
        how = {"levels": (3, 1, 0, 0), "is_guided": is_guided}
        find = functools.partial(diagonals.answer, energy, schedule, (), **how)
        y0 = toys.jit(find)(jax.random.key(0), x)
        assert y0.shape == (diagonals.ANSWERS, 9, 9, 9)
        rules = toys.jit(jax.vmap(diagonals.rule))(y0)
        broken[is_guided] = float(np.mean(rules))
    assert broken[True] < 0.5 * broken[False]


@pytest.mark.parametrize("task, levels", [("inverse", 10), ("sudoku", 1)])
def test_a_model_that_cannot_take_the_rule_is_refused(
    monkeypatch, capsys, task, levels
):
    """Of a net of one level a gather of level 3 would be that of level 0."""
    energy = SimpleNamespace(answering=object())
    experiment = SimpleNamespace(
        energy=energy, schedule=SimpleNamespace(a=[1] * levels)
    )
    config = SimpleNamespace(task=SimpleNamespace(name=task))
    model = SimpleNamespace(config=config, experiment=experiment)
    monkeypatch.setattr(diagonals.trained, "load", lambda _: model)
    with pytest.raises(SystemExit, match="2"):
        diagonals.main(["--workdir=run", "--num_puzzles=0"])
    said = "--workdir=run: must be of a Sudoku energy of 4 levels"
    assert said in capsys.readouterr().err


MUTANTS = [
    Mutant(
        "diagonals",
        "levels that are not there are taken",
        "examples.diagonals",
        one("<= max(levels):", "< 0:"),
        test_a_model_that_cannot_take_the_rule_is_refused,
        {"task": "sudoku", "levels": 1},
        error=IndexError,
    ),
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
