"""Sudoku: x [9, 9] digits, 0 where unknown; y [9, 9, 9] one-hot in +-1, digit last.

The nine elements of a given cell are known. Puzzles are a finite set with one solution
each, seen in another of the game's 9! 2 6^8 exact symmetries at every draw. A board is
right when all cells are filled, all givens are kept and every row, column and block has
each digit once: no truth is asked. Source: arXiv 2406.11179, section 5.2.
"""

from collections.abc import Mapping
from typing import Annotated

import chex
import jax
import jax.numpy as jnp

from ired_jax.fields import Part
from ired_jax.tasks.base import Inference, Metric, Source, Task
from ired_jax.types import Array, Box, Example, Tree

# As training's; fewer givens, dug; 17 to 34 givens; published hard ones.
SPLITS = "val", "hard", "minimal", "top95"
SURE = 1e-4  # the least doubt of a cell and the least chance of a digit
INFERENCE = Inference(num_levels=4, num_steps=2, noise=True)


def make_sudoku(
    data: Mapping[str, Mapping[str, Array]],
    *,
    inference: Annotated[Inference, Part(Inference, "eval")] = INFERENCE,
) -> Task:
    """Makes the task.

    Args:
      data: "train" and each of SPLITS -> {"puzzle", "solution"}, int8 [N, 9, 9]
        digits, 0 in a puzzle where unknown.
      inference: how answers are found.

    Raises:
      ValueError: a set is missing or is not of boards.
    """
    for name in ("train", *SPLITS):
        if name not in data:
            raise ValueError(f"data: has no set {name!r}")
        shapes = [data[name][part].shape for part in ("puzzle", "solution")]
        if shapes[0] != shapes[1] or shapes[0][1:] != (9, 9) or not shapes[0][0]:
            raise ValueError(f"data[{name!r}] of shapes {shapes}: must be [N, 9, 9]")

    def source(rows: Mapping[str, Array]) -> Source:
        return Source(draw, box_of, rows, len(rows["puzzle"]), at)

    return Task(
        train=source(data["train"]),
        splits={name: source(data[name]) for name in SPLITS},
        metrics={
            "boards": Metric(board_is_right, "high", "share of boards"),
            "cells": Metric(cells_right, "high", "share of unknown cells"),
        },
        primary="val/boards",
        inference=inference,
        residual=broken_rules,
        corrupt=corrupt,
        round=lambda y: encode(decode(y)),
        assume=assume,
        solvers={"singles": solve_singles},
        fitted=(),
    )


def at(data: Tree, index: Array) -> Example:
    """Row `index` as it stands: x int8 [9, 9], y float32 [9, 9, 9]."""
    puzzle, solution = (jnp.asarray(data[k])[index] for k in ("puzzle", "solution"))
    return Example(puzzle, encode(solution))


def draw(data: Tree, key: Array) -> Example:
    """A row drawn with replacement, in a symmetry of its own."""
    key_row, key_game = jax.random.split(key)
    index = jax.random.randint(key_row, (), 0, data["puzzle"].shape[0])
    puzzle, solution = (jnp.asarray(data[k])[index] for k in ("puzzle", "solution"))
    move = draw_symmetry(key_game)
    return Example(move(puzzle), encode(move(solution)))


def draw_symmetry(key: Array):
    """One of the game's symmetries: a function of digits [9, 9] int8, 0 stays 0."""
    keys = jax.random.split(key, 4)
    digits = jnp.append(0, 1 + jax.random.permutation(keys[0], 9))
    rows, columns = _lines(keys[1]), _lines(keys[2])
    is_turned = jax.random.bernoulli(keys[3])

    def move(board: Array) -> Array:
        board = board[rows][:, columns]
        board = jnp.where(is_turned, board.T, board)
        return digits[board].astype(board.dtype)

    return move


def _lines(key: Array) -> Array:
    """An order of nine lines that keeps bands together: [9] int."""
    key_bands, key_within = jax.random.split(key)
    bands = jax.random.permutation(key_bands, 3)
    within = jax.vmap(lambda k: jax.random.permutation(k, 3))(
        jax.random.split(key_within, 3)
    )
    return (3 * bands[:, None] + within).reshape(9)


def encode(board: Array) -> Array:
    """Digits [9, 9], 1 to 9 -> one-hot in +-1, float32 [9, 9, 9]; 0: all are -1."""
    return 2 * jax.nn.one_hot(board.astype(int) - 1, 9) - 1


def decode(y: Array) -> Array:
    """The likeliest digits 1 to 9 of y [9, 9, 9]: int [9, 9]."""
    chex.assert_shape(y, (9, 9, 9))
    return jnp.argmax(y, axis=-1) + 1


def box_of(x: Array) -> Box:
    """+-1 where x is unknown; a given cell's nine elements are known."""
    unknown, known = (x == 0)[..., None], encode(x)
    return Box(jnp.where(unknown, -1.0, known), jnp.where(unknown, 1.0, known))


def broken_rules(x: Array, y: Array) -> Array:
    """Of the decoded board: digits missing of a unit and givens not kept, () float32.

    0 exactly where the board is right. At most 27 * 8 + 81.
    """
    chex.assert_shape(x, (9, 9))
    board = decode(y)
    is_digit = jax.nn.one_hot(board - 1, 9, dtype=bool)
    blocks = is_digit.reshape(3, 3, 3, 3, 9)
    of_units = is_digit.any(0), is_digit.any(1), blocks.any((1, 3))
    missing = sum(jnp.sum(~found) for found in of_units)
    not_kept = jnp.sum((x > 0) & (board != x))
    return (missing + not_kept).astype(jnp.float32)


def board_is_right(x: Array, truth: Array, answer: Array) -> Array:
    """1 where the board keeps its givens and breaks no rule, else 0: () float32."""
    del truth
    return (broken_rules(x, answer) == 0).astype(jnp.float32)


def cells_right(x: Array, truth: Array, answer: Array) -> Array:
    """Share of the unknown cells whose digit is the truth's, 1 without any: ()."""
    unknown = x == 0
    right = unknown & (decode(answer) == decode(truth))
    count = jnp.sum(unknown)
    return jnp.where(count > 0, jnp.sum(right) / jnp.maximum(count, 1), 1.0)


def corrupt(key: Array, x: Array, y: Array, *, most: float = 0.5) -> Array:
    """y with other digits in a share of its unknown cells, uniform in [0, most].

    At least one cell is wrong and no given is: a puzzle of one solution has no other
    right answer. Without an unknown cell y itself.
    """
    keys = jax.random.split(key, 3)
    score = jnp.where(x == 0, jax.random.uniform(keys[0], x.shape), jnp.inf)
    share = jax.random.uniform(keys[1], maxval=most)
    is_wrong = (x == 0) & ((score < share) | (score == jnp.min(score)))
    shift = jax.random.randint(keys[2], x.shape, 1, 9)
    other = (decode(y) - 1 + shift) % 9 + 1
    return jnp.where(is_wrong[..., None], encode(other), y)


def assume(key: Array, x: Array, y: Array) -> Array:
    """x with one unknown cell filled by what y says of it: int8 [9, 9].

    The cell in proportion to its doubt, 1 less the chance of its likeliest digit, and
    the digit in proportion to its chance. Without an unknown cell x itself.
    """
    chance = jnp.maximum(1 + y, SURE)
    chance = chance / jnp.sum(chance, -1, keepdims=True)
    doubt = jnp.where(x == 0, jnp.maximum(1 - jnp.max(chance, -1), SURE), 0.0)
    key_cell, key_digit = jax.random.split(key)
    cell = jax.random.categorical(key_cell, jnp.log(doubt).ravel())
    digit = 1 + jax.random.categorical(key_digit, jnp.log(chance).reshape(81, 9)[cell])
    is_cell = (jnp.arange(81) == cell).reshape(9, 9) & (x == 0)
    return jnp.where(is_cell, digit, x).astype(x.dtype)


def solve_singles(x: Array) -> Array:
    """Naked and hidden singles until no more are found: x [9, 9] -> y [9, 9, 9].

    The moves of a beginner, without a guess. What stays open is spread evenly over the
    digits that are left.
    """
    start = jnp.where((x == 0)[..., None], True, encode(x) > 0)

    def narrowed(may: Array) -> Array:
        is_set = jnp.sum(may, -1, keepdims=True) == 1
        fixed = may & is_set
        may = may & (is_set | ~_seen(fixed))
        # Hidden: the only place for a digit in some unit.
        is_only = sum((_count(may, unit) == 1).astype(int) for unit in UNITS) > 0
        hidden = may & is_only
        return jnp.where(hidden.any(-1, keepdims=True), hidden, may)

    def step(carry):
        may, _ = carry
        new = narrowed(may)
        return new, (new != may).any()

    may, _ = jax.lax.while_loop(lambda carry: carry[1], step, (start, jnp.array(True)))
    return 2 * may / jnp.maximum(jnp.sum(may, -1, keepdims=True), 1) - 1.0


UNITS = ("row", "column", "block")


def _count(marks: Array, unit: str) -> Array:
    """How many marks [9, 9, 9] the unit of each cell has, by digit: [9, 9, 9]."""
    if unit == "block":
        sums = marks.reshape(3, 3, 3, 3, 9).sum((1, 3))
        return sums.repeat(3, 0).repeat(3, 1)
    axis = 1 if unit == "row" else 0
    return jnp.broadcast_to(marks.sum(axis, keepdims=True), marks.shape)


def _seen(marks: Array) -> Array:
    """Whether a mark stands in the row, column or block of each cell: [9, 9, 9]."""
    return jnp.any(jnp.stack([_count(marks, unit) for unit in UNITS]) > 0, axis=0)
