"""Sudokus for tests: few, made once, and the rules in NumPy."""

import functools

import jax
import numpy as np

from experiments.data import sudoku as puzzles
from ired_jax.tasks import sudoku
from tests import toys

SMALL = puzzles.Settings(num_puzzles=24, num_held_out=8)
COUNT = 64


@functools.cache
def sets():
    return puzzles.make(SMALL)


@functools.cache
def examples(count=COUNT):
    """x int [N, 9, 9] and y [N, 9, 9, 9] as training draws them."""
    source = sudoku.make_sudoku(sets()).train
    keys = jax.random.split(jax.random.key(0), count)
    draw = toys.jit(jax.vmap(source.draw, (None, 0)))
    return jax.tree.map(np.asarray, draw(source.data, keys))


def units(grid):
    """NumPy: [9, 9] -> the 27 rows, columns and blocks, [27, 9]."""
    blocks = grid.reshape(3, 3, 3, 3).swapaxes(1, 2).reshape(9, 9)
    return np.concatenate([grid, grid.T, blocks])


def is_solved(grid):
    return np.array_equal(np.sort(units(grid)), np.tile(np.arange(1, 10), (27, 1)))
