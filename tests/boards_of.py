"""Sudokus for tests: few, made once, and the rules in NumPy."""

import functools
import itertools

import jax
import numpy as np
from pysat.solvers import Cadical153

from experiments.data import sudoku as puzzles
from ired_jax.tasks import sudoku
from tests import toys

SMALL = puzzles.Settings(num_puzzles=24, num_held_out=8)
COUNT = 64


@functools.cache
def sets():
    return puzzles.make(SMALL)


@functools.cache
def _drawn():
    source = sudoku.make_sudoku(sets()).train
    keys = jax.random.split(jax.random.key(0), 512)
    draw = toys.jit(jax.vmap(source.draw, (None, 0)))
    return jax.tree.map(np.asarray, draw(source.data, keys))


def examples(count=COUNT):
    """x int [N, 9, 9] and y [N, 9, 9, 9] as training draws them, at most 512."""
    return jax.tree.map(lambda leaf: leaf[:count], _drawn())


@functools.cache
def _rules():
    """The game as clauses: variable 81 r + 9 c + d + 1 says that d + 1 is at r, c."""
    number = np.arange(1, 730).reshape(9, 9, 9)
    by_digit = np.moveaxis(number, -1, 0)
    of_units = [units(plane) for plane in by_digit]
    groups = np.concatenate([*of_units, number.reshape(81, 9)]).tolist()
    never_two = [
        [-a, -b] for group in groups for a, b in itertools.combinations(group, 2)
    ]
    return [*groups, *never_two]


def solutions(puzzle, limit=2):
    """A SAT solver's: up to `limit` solutions of digits [9, 9], 0 where empty."""
    givens = [[9 * i + int(d)] for i, d in enumerate(np.ravel(puzzle)) if d]
    found = []
    with Cadical153(bootstrap_with=[*_rules(), *givens]) as solver:
        while len(found) < limit and solver.solve():
            true = [v for v in solver.get_model() if v > 0]
            found.append((np.array(true) - 1).reshape(9, 9) % 9 + 1)
            solver.add_clause([-v for v in true])
    return found


def lines(boards):
    return ["".join(map(str, np.ravel(board))) for board in boards]


def units(grid):
    """NumPy: [9, 9] -> the 27 rows, columns and blocks, [27, 9]."""
    blocks = grid.reshape(3, 3, 3, 3).swapaxes(1, 2).reshape(9, 9)
    return np.concatenate([grid, grid.T, blocks])


def is_solved(grid):
    return np.array_equal(np.sort(units(grid)), np.tile(np.arange(1, 10), (27, 1)))
