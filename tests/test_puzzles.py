"""Puzzles that are made, kept, read and written."""

import random

import jax
import numpy as np
import pytest

from experiments.data import sudoku as puzzles
from experiments.errors import UserError
from experiments.views import sudoku as view
from ired_jax.tasks import sudoku
from tests import boards_of
from tests.mutants import Mutant, one

OTHER = boards_of.SMALL._replace(data_seed=1)


def _solve(puzzle, limit=2):
    """An oracle of its own: sets of candidates, the fewest first."""
    grid, found = np.array(puzzle), []

    def candidates(i, j):
        block = grid[i // 3 * 3 :, j // 3 * 3 :][:3, :3]
        seen = {*grid[i], *grid[:, j], *block.ravel()}
        return [d for d in range(1, 10) if d not in seen]

    def search():
        empty = [(len(candidates(i, j)), i, j) for i, j in np.argwhere(grid == 0)]
        if not empty:
            found.append(grid.copy())
            return len(found) >= limit
        _, i, j = min(empty)
        for digit in candidates(i, j):
            grid[i, j] = digit
            if search():
                return True
        grid[i, j] = 0
        return False

    search()
    return found


@pytest.mark.parametrize("name, low, high", [("val", 31, 42), ("hard", 22, 28)])
def test_a_puzzle_has_exactly_its_one_solution_and_its_number_of_givens(
    name, low, high
):
    part = boards_of.sets()[name]
    assert part["puzzle"].dtype == part["solution"].dtype == np.int8
    for puzzle, solution in zip(part["puzzle"], part["solution"], strict=True):
        assert boards_of.is_solved(solution)
        assert low <= np.sum(puzzle > 0) <= high
        found = _solve(puzzle)
        assert len(found) == 1
        np.testing.assert_array_equal(found[0], solution)


def test_puzzles_follow_from_their_settings_and_from_nothing_else():
    again, other = (
        puzzles.make(boards_of.SMALL),
        puzzles.make(boards_of.SMALL._replace(data_seed=1)),
    )
    for name, part in boards_of.sets().items():
        np.testing.assert_array_equal(again[name]["puzzle"], part["puzzle"])
        assert np.any(other[name]["puzzle"] != part["puzzle"])
    # More of them begin as fewer do.
    more = puzzles.make(boards_of.SMALL._replace(num_puzzles=30))["train"]["puzzle"]
    np.testing.assert_array_equal(more[:24], boards_of.sets()["train"]["puzzle"])


def _moved(grid, draws):
    """NumPy: one symmetry of the game at random."""
    order = [
        np.concatenate([3 * b + np.array(draws.sample(range(3), 3)) for b in bands])
        for bands in (draws.sample(range(3), 3), draws.sample(range(3), 3))
    ]
    digits = np.array([0, *draws.sample(range(1, 10), 9)])
    moved = digits[grid[order[0]][:, order[1]]]
    return moved.T if draws.random() < 0.5 else moved


def test_a_fingerprint_is_that_of_all_symmetries_and_of_no_other_grid():
    draws = random.Random(0)
    grids = [part["solution"] for part in boards_of.sets().values()]
    kinds = []
    for grid in np.concatenate(grids):
        kind = puzzles.fingerprint(grid.ravel().tolist())
        for _ in range(3):
            moved = _moved(grid, draws)
            assert boards_of.is_solved(moved)
            assert puzzles.fingerprint(moved.ravel().tolist()) == kind
        kinds.append(kind)
    # The held-out sets hold no grid of training in another symmetry.
    assert len(set(kinds)) == len(kinds)


def test_a_grid_that_training_has_is_left_out_of_the_held_out_sets():
    made = [puzzles.make_puzzle("0 train", (31, 42), index) for index in range(4)]
    others = {"0 train": made[1], "0 val": made[2], "0 hard": made[3]}

    def repeat(stream, givens, index):
        return made[0] if index == 0 else others[stream]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(puzzles, "make_puzzle", repeat)
        sets = puzzles.make(puzzles.Settings(num_puzzles=2, num_held_out=1))
    expected = np.reshape(made[2].solution, (9, 9))
    np.testing.assert_array_equal(sets["val"]["solution"][0], expected)


def test_puzzles_are_kept_and_a_damaged_file_is_made_anew(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    settings = puzzles.Settings(num_puzzles=3, num_held_out=2)
    first = puzzles.load(settings)
    path = puzzles.cache_path(settings)
    assert settings.digest in path.name
    assert puzzles.cache_path(settings._replace(data_seed=1)) != path
    whole = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(puzzles, "make", None)  # nothing is made where a file is whole
        jax.tree.map(np.testing.assert_array_equal, puzzles.load(settings), first)
    middle = len(whole) // 2
    for damaged in (b"", whole[:middle], whole[:100] + b"\7" * 60 + whole[160:]):
        path.write_bytes(damaged)
        jax.tree.map(np.testing.assert_array_equal, puzzles.load(settings), first)
        assert path.read_bytes()[:2] == b"PK"


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"num_puzzles": 0}, "num_puzzles=0"),
        ({"givens_low": 12}, "givens_low=12"),
        ({"hard_low": 30}, "hard_low=30: must be at most hard_high=28"),
    ],
)
def test_settings_of_which_no_puzzle_can_be_made_are_refused(changes, says):
    with pytest.raises(UserError, match=says):
        puzzles.load(boards_of.SMALL._replace(**changes))


# --- what a person reads and writes -----------------------------------------------


def test_boards_are_read_as_lines_and_written_as_lines(tmp_path):
    part = boards_of.sets()["val"]
    path = tmp_path / "boards.txt"
    lines = ["".join(map(str, puzzle.ravel())) for puzzle in part["puzzle"]]
    path.write_text("\n".join([lines[0].replace("0", "."), "", *lines[1:]]) + "\n")
    inputs = view.read(str(path))
    assert view.check(inputs) == [None] * len(lines)
    x = np.stack([view.to_x(row) for row in inputs])
    np.testing.assert_array_equal(x, part["puzzle"])
    answers = np.asarray(jax.vmap(sudoku.encode)(part["solution"]))
    view.write(tmp_path / "out.txt", np.append(answers, np.nan * answers[:1], 0))
    *written, none = (tmp_path / "out.txt").read_text().split()
    assert none == "." * 81
    assert written == ["".join(map(str, grid.ravel())) for grid in part["solution"]]
    assert view.describe(x[0], answers[0]) == {"valid": True, "broken rules": 0}
    assert not view.describe(x[0], answers[1])["valid"]


@pytest.mark.parametrize(
    "line, says",
    [
        ("1" * 80, "has 80 characters, must be 81"),
        ("x" + "." * 80, "holds 'x', allowed are digits, and 0 or . where empty"),
    ],
)
def test_a_line_that_is_no_board_is_named_and_the_others_can_be_solved(
    tmp_path, line, says
):
    good = "".join(map(str, boards_of.sets()["val"]["puzzle"][0].ravel()))
    path = tmp_path / "boards.txt"
    path.write_text(f"{line}\n{good}\n")
    assert view.check(view.read(str(path))) == [says, None]


def test_a_file_without_a_board_is_refused_in_one_sentence(tmp_path):
    path = tmp_path / "boards.txt"
    path.write_text("\n")
    with pytest.raises(UserError, match="holds no board"):
        view.read(str(path))
    with pytest.raises(UserError, match="no such file"):
        view.read(str(tmp_path / "none.txt"))


def test_givens_that_contradict_are_said_by_row():
    good = "".join(map(str, boards_of.sets()["val"]["puzzle"][0].ravel()))
    twice = "5.......5" + "." * 72
    nowhere = "12345678." + "........9" + "." * 63
    first, second, third = view.check([good, twice, nowhere])
    assert first is None
    assert "two 5s" in second
    assert "no digit is left for row 1, column 9" in third


def test_a_board_is_drawn_with_its_givens_and_its_answers():
    from matplotlib.figure import Figure

    part = boards_of.sets()["val"]
    x, truth = part["puzzle"][0], np.asarray(sudoku.encode(part["solution"][0]))
    axis = Figure().subplots()
    view.draw(axis, x, truth, truth)
    shown = sorted(text.get_text() for text in axis.texts)
    assert shown == sorted(map(str, part["solution"][0].ravel()))
    colours = {text.get_color() for text in axis.texts}
    assert len(colours) > 1


MUTANTS = [
    Mutant(
        "sudoku",
        "a puzzle may have two solutions",
        "experiments.data.sudoku",
        one("if len(solutions(tried, 2)) == 1:", "if solutions(tried, 1):"),
        test_a_puzzle_has_exactly_its_one_solution_and_its_number_of_givens,
        {"name": "hard", "low": 22, "high": 28},
    ),
    Mutant(
        "sudoku",
        "a fingerprint knows the order of the bands",
        "experiments.data.sudoku",
        one("return tuple(sorted(parts))", "return tuple(parts)"),
        test_a_fingerprint_is_that_of_all_symmetries_and_of_no_other_grid,
    ),
    Mutant(
        "sudoku",
        "held-out grids may be those of training",
        "experiments.data.sudoku",
        one("taken |= {row.kind for row in rows}", "taken |= set()"),
        test_a_grid_that_training_has_is_left_out_of_the_held_out_sets,
    ),
]
