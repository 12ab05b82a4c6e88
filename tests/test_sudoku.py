"""Sudoku: what is drawn, what is known, what is right and what is wrong."""

from functools import partial

import jax
import numpy as np
import pytest

from experiments.data.sudoku_classes import fingerprints
from experiments.data.sudoku_files import published
from ired_jax.tasks import sudoku
from tests import boards_of, toys
from tests.mutants import Mutant, one


def _task():
    return sudoku.make_sudoku(boards_of.sets())


def test_drawn_puzzles_are_the_game_s_own_in_other_symmetries():
    x, y = boards_of.examples()
    source = _task().train
    grids = np.argmax(y, -1) + 1
    known = set(fingerprints(source.data["solution"]))
    assert known >= set(fingerprints(grids))
    for puzzle, grid in zip(x, grids, strict=True):
        assert boards_of.is_solved(grid)
        given = puzzle > 0
        np.testing.assert_array_equal(puzzle[given], grid[given])
    assert x.dtype == np.int8
    assert set(np.unique(y)) == {-1.0, 1.0}
    assert np.all(np.sum(y > 0, axis=-1) == 1)
    # Augmented: no board is seen twice, and every cell sees every digit.
    assert len({grid.tobytes() for grid in grids}) == boards_of.COUNT
    assert len({np.sum(puzzle > 0) for puzzle in x}) > 3
    counts = np.stack([(grids == digit).sum(0) for digit in range(1, 10)])
    # Each count is binomial, 64 draws of 1 / 9: above 24 or at 0 once in 1,000.
    assert np.max(counts) < 25


def test_every_row_of_a_finite_set_is_seen_as_it_stands_and_drawn():
    source = _task().train
    assert source.size == boards_of.SMALL.num_puzzles
    at = toys.jit(source.at)
    for index in (0, 23):
        x, y = at(source.data, np.int32(index))
        np.testing.assert_array_equal(x, source.data["puzzle"][index])
        np.testing.assert_array_equal(
            np.argmax(y, -1) + 1, source.data["solution"][index]
        )
    x, _ = boards_of.examples(512)
    # 512 draws of 24 rows: one is missing with probability 24 exp(-21).
    kinds = {int(np.sum(puzzle > 0)) for puzzle in x}
    assert kinds == set(np.sum(source.data["puzzle"] > 0, axis=(1, 2)).tolist())


def test_all_nine_elements_of_a_given_cell_are_known_and_no_others():
    x, y = boards_of.examples()
    free, inside, held, count = toys.in_box(_task().train, x, y)
    np.testing.assert_array_equal(free, np.repeat((x == 0)[..., None], 9, -1))
    assert inside.all()
    np.testing.assert_array_equal(held[~free], y[~free])
    np.testing.assert_array_equal(count, 9 * np.sum(x == 0, axis=(1, 2)))


def _broken(x, y):
    """NumPy: digits missing of a unit, and givens not kept."""
    grid = np.argmax(y, -1) + 1
    missing = sum(9 - len(set(unit)) for unit in boards_of.units(grid))
    return missing + np.sum((x > 0) & (grid != x))


def test_broken_rules_are_counted_and_none_are_where_the_board_is_right():
    x, y = boards_of.examples()
    task, rng = _task(), np.random.default_rng(0)
    noise = (rng.random(boards_of.COUNT) < 0.8)[:, None, None, None] * rng.normal(
        size=y.shape
    )
    answers = np.float32(y + 0.8 * noise)
    found = toys.jit(jax.vmap(task.residual))(x, answers)
    expected = [_broken(*pair) for pair in zip(x, answers, strict=True)]
    np.testing.assert_array_equal(found, expected)
    assert 0 in expected
    assert max(expected) > 10
    right = toys.jit(jax.vmap(task.metrics["boards"].of_row))(x, 0 * y, answers)
    np.testing.assert_array_equal(right, np.equal(expected, 0))


def test_a_solved_board_that_does_not_keep_its_givens_is_wrong():
    x, y = boards_of.examples()
    other = np.roll(y, 1, axis=-1)  # relabelled: valid, and another board
    boards = _task().metrics["boards"]
    is_right = toys.jit(jax.vmap(boards.of_row))
    for answer, value in ((y, 1), (other, 0)):
        found = is_right(x, y, answer)
        np.testing.assert_array_equal(found, np.full(boards_of.COUNT, value))
    assert boards.better == "high"


def test_cells_are_counted_over_the_unknown_alone():
    x, y = boards_of.examples()
    cells = toys.jit(jax.vmap(_task().metrics["cells"].of_row))
    rng = np.random.default_rng(1)
    answers = np.float32(y + rng.normal(size=y.shape))
    # The first of them has nothing unknown: right by what is given.
    given = np.concatenate([np.int8(np.argmax(y[:1], -1) + 1), x[1:]])
    found, of_full = cells(x, y, answers), cells(given, y, answers)[0]
    right = np.argmax(answers, -1) == np.argmax(y, -1)
    expected = [np.mean(r[puzzle == 0]) for r, puzzle in zip(right, x, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert of_full == 1


def test_a_corrupted_board_is_always_wrong_and_never_at_a_given():
    x, y = boards_of.examples()
    corrupt = toys.jit(jax.vmap(_task().corrupt))
    counts = []
    for seed in range(4):
        keys = jax.random.split(jax.random.key(seed), boards_of.COUNT)
        wrong = np.asarray(corrupt(keys, x, y))
        assert np.all(np.sum(wrong > 0, -1) == 1)
        assert set(np.unique(wrong)) == {-1.0, 1.0}
        is_moved = np.argmax(wrong, -1) != np.argmax(y, -1)
        assert not np.any(is_moved & (x > 0))
        assert np.all(is_moved.any((1, 2)))
        counts.append(is_moved.sum((1, 2)) / (x == 0).sum((1, 2)))
    # The share is uniform on [0, .5]: mean 1/4, deviation .144, and a cell's coin.
    share = np.ravel(counts)
    assert abs(np.mean(share) - 0.25) < 5 * 0.17 / np.sqrt(share.size)


def test_an_assumption_fills_one_cell_by_its_doubt_with_a_digit_by_its_chance():
    x = np.int8(sudoku.decode(boards_of.examples(1).y[0]))
    y = np.full((9, 9, 9), -1.0, np.float32)
    y[0, 0, :2], y[4, 5, 2:5], y[8, 8, 7] = (0.2, -0.2), (0.0, -0.5, -0.5), 1.0
    doubt = {(0, 0): 0.4, (4, 5): 0.5}  # none at (8, 8)
    for cell in (*doubt, (8, 8)):
        x[cell] = 0
    count = 20_000
    draw = toys.jit(jax.vmap(partial(sudoku.assume, x=x, y=y)))
    filled = np.asarray(draw(jax.random.split(jax.random.key(4), count)))
    assert filled.dtype == x.dtype
    is_new = filled != x
    assert np.all(is_new.sum((1, 2)) == 1)
    assert not np.any(is_new[:, x > 0])
    for cell, weight in doubt.items():
        share = weight / sum(doubt.values())
        error = np.sqrt(share * (1 - share) / count)
        assert abs(is_new[:, *cell].mean() - share) < 4 * error + 10 * sudoku.SURE
    digits = filled[:, 4, 5][is_new[:, 4, 5]]
    for digit, chance in ((3, 0.5), (4, 0.25), (5, 0.25)):
        error = np.sqrt(chance * (1 - chance) / len(digits))
        assert abs(np.mean(digits == digit) - chance) < 4 * error + 10 * sudoku.SURE
    whole = np.int8(sudoku.decode(boards_of.examples(1).y[0]))
    np.testing.assert_array_equal(sudoku.assume(jax.random.key(0), whole, y), whole)


def test_singles_give_only_what_follows_and_solve_easy_boards():
    sets = boards_of.sets()
    solve = toys.jit(jax.vmap(sudoku.solve_singles))
    val, hard = (np.asarray(solve(sets[name]["puzzle"])) for name in ("val", "hard"))
    for name, answers in (("val", val), ("hard", hard)):
        # A cell with one candidate holds the solution's digit, another may still.
        truth = np.where(sets[name]["solution"][..., None] == np.arange(1, 10), 1, -1)
        assert np.all(answers[truth > 0] > -1)
        assert np.all(np.abs(np.sum(answers, -1) + 7) < 1e-5)
    solved = [np.mean(np.max(answers, -1).min((1, 2)) == 1) for answers in (val, hard)]
    assert solved[0] > 0.7
    assert solved[0] >= solved[1]


def _candidates(puzzle):
    """By sets, a move at a time: {cell: digits} when no single is left."""
    cells = [(i, j) for i in range(9) for j in range(9)]
    kinds = (lambda i, j: i, lambda i, j: j + 9, lambda i, j: 18 + i // 3 * 3 + j // 3)
    units = [[c for c in cells if kind(*c) == n] for kind in kinds for n in range(27)]
    units = [unit for unit in units if unit]
    may = {c: {int(puzzle[c])} if puzzle[c] else {*range(1, 10)} for c in cells}
    before = None
    while before != (before := {cell: {*digits} for cell, digits in may.items()}):
        for unit in units:
            for cell in unit:
                if len(may[cell]) == 1:
                    for other in {*unit} - {cell}:
                        may[other] -= may[cell]
            for digit in range(1, 10):
                places = [cell for cell in unit if digit in may[cell]]
                if len(places) == 1:
                    may[places[0]] = {digit}
    return may


def test_singles_are_those_of_a_plain_solver_with_sets():
    """On boards of 17 givens, where hidden ones are most of what there is."""
    puzzles = published("royle17")["puzzle"][:8]
    answers = np.asarray(toys.jit(jax.vmap(sudoku.solve_singles))(puzzles))
    for puzzle, answer in zip(puzzles, answers, strict=True):
        for cell, digits in _candidates(puzzle).items():
            assert {d + 1 for d in range(9) if answer[cell][d] > -1} == digits


def test_data_of_other_shapes_are_refused():
    part = {"puzzle": np.zeros((3, 81)), "solution": np.zeros((3, 81))}
    with pytest.raises(ValueError, match=r"data\['val'\]"):
        sudoku.make_sudoku(boards_of.sets() | {"val": part})


MUTANTS = [
    Mutant(
        "sudoku",
        "a digit with one place in two of three units is no single",
        "ired_jax.tasks.sudoku",
        one("for unit in UNITS) > 0", "for unit in UNITS) % 2 > 0"),
        test_singles_are_those_of_a_plain_solver_with_sets,
    ),
    Mutant(
        "sudoku",
        "a corruption touches givens",
        "ired_jax.tasks.sudoku",
        (
            ("score = jnp.where(x == 0, jax", "score = jnp.where(True, jax"),
            ("is_wrong = (x == 0) & (", "is_wrong = ("),
        ),
        test_a_corrupted_board_is_always_wrong_and_never_at_a_given,
    ),
    Mutant(
        "sudoku",
        "a corruption leaves the digit as it is",
        "ired_jax.tasks.sudoku",
        one("x.shape, 1, 9)", "x.shape, 0, 9)"),
        test_a_corrupted_board_is_always_wrong_and_never_at_a_given,
    ),
    Mutant(
        "sudoku",
        "rows leave their bands",
        "ired_jax.tasks.sudoku",
        one(
            "return (3 * bands[:, None] + within).reshape(9)",
            "return jax.random.permutation(key, 9)",
        ),
        test_drawn_puzzles_are_the_game_s_own_in_other_symmetries,
    ),
    Mutant(
        "sudoku",
        "the puzzle and its solution are moved apart",
        "ired_jax.tasks.sudoku",
        one(
            "encode(move(solution))",
            "encode(draw_symmetry(key)(solution))",
        ),
        test_drawn_puzzles_are_the_game_s_own_in_other_symmetries,
    ),
    Mutant(
        "sudoku",
        "a board may drop its givens",
        "ired_jax.tasks.sudoku",
        one("(missing + not_kept)", "missing"),
        test_a_solved_board_that_does_not_keep_its_givens_is_wrong,
    ),
    Mutant(
        "sudoku",
        "only the given digit's element is known",
        "ired_jax.tasks.sudoku",
        one(
            "unknown, known = (x == 0)[..., None], enc",
            "unknown, known = encode(x) < 0, enc",
        ),
        test_all_nine_elements_of_a_given_cell_are_known_and_no_others,
    ),
    Mutant(
        "sudoku",
        "blocks are not looked at",
        "ired_jax.tasks.sudoku",
        one("blocks.any((1, 3))", "is_digit.any(0)"),
        test_broken_rules_are_counted_and_none_are_where_the_board_is_right,
    ),
    Mutant(
        "search",
        "an assumption is the likeliest digit, always",
        "ired_jax.tasks.sudoku",
        one(
            "jax.random.categorical(key_digit, jnp.log(chance).reshape(81, 9)[cell])",
            "jnp.argmax(chance.reshape(81, 9)[cell])",
        ),
        test_an_assumption_fills_one_cell_by_its_doubt_with_a_digit_by_its_chance,
    ),
    Mutant(
        "search",
        "an assumption goes by the order of cells, not their doubt",
        "ired_jax.tasks.sudoku",
        one("jnp.log(doubt).ravel())", "jnp.log(doubt > 0).ravel())"),
        test_an_assumption_fills_one_cell_by_its_doubt_with_a_digit_by_its_chance,
    ),
]
