"""Boards as a person writes, reads and sees them."""

import jax
import numpy as np
import pytest

from experiments.data import sudoku_files
from experiments.errors import UserError
from experiments.views import sudoku as view
from ired_jax.tasks import sudoku
from tests import boards_of
from tests.mutants import Mutant, one


def test_boards_are_read_as_lines_and_written_as_lines(tmp_path):
    part = boards_of.sets()["val"]
    path = tmp_path / "boards.txt"
    lines = ["".join(map(str, puzzle.ravel())) for puzzle in part["puzzle"]]
    text = "\n".join([lines[0].replace("0", "."), "", *lines[1:]]) + "\n"
    path.write_text(text, encoding="utf-8-sig")  # with the mark that Windows writes
    inputs = view.read(str(path))
    assert view.check(inputs) == [None] * len(lines)
    x = np.stack([view.to_x(row) for row in inputs])
    np.testing.assert_array_equal(x, part["puzzle"])
    answers = np.asarray(jax.vmap(sudoku.encode)(part["solution"]))
    view.write(tmp_path / "out.txt", np.append(answers, np.nan * answers[:1], 0))
    *written, none = (tmp_path / "out.txt").read_text().split()
    assert none == "." * 81
    assert written == ["".join(map(str, grid.ravel())) for grid in part["solution"]]
    for at, (board, answer) in enumerate(zip(x, answers, strict=True)):
        assert view.describe(board, answer) == {"broken rules": 0}
        assert view.is_right(board, answer)
        other = answers[at - 1]  # a solved board, of other givens
        assert view.describe(board, other)["broken rules"] > 0
        assert not view.is_right(board, other)


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


def test_boards_are_read_from_the_first_column_of_a_table(tmp_path):
    part = boards_of.sets()["val"]
    puzzles, answers = (boards_of.lines(part[n]) for n in ("puzzle", "solution"))
    rows = [",".join(pair) for pair in zip(puzzles, answers, strict=True)]
    for header in ([], ["quizzes,solutions"], ["puzzle.1,solution"]):
        for path in (tmp_path / "boards.CSV", tmp_path / "boards.csv"):
            path.write_text("\n".join([*header, *rows]))
            assert view.read(str(path)) == puzzles
    for cut in (puzzles[0][1:], puzzles[0][:30]):
        path.write_text(f"{cut},{answers[0]}\n{rows[1]}\n")
        assert view.read(str(path)) == [cut, puzzles[1]]
    path.write_text(f'"puzzle" ; "solution"\n"{puzzles[0]}" ; "{answers[0]}"\n')
    assert view.read(str(path)) == puzzles[:1]
    path.write_text("quizzes,solutions\n")
    with pytest.raises(UserError, match="holds no board"):
        view.read(str(path))
    with pytest.raises(UserError, match="is not a readable text file"):
        view.read("boards\0.csv")


def test_boards_are_read_as_they_are_published_with_their_solutions(tmp_path):
    published = sudoku_files.published("top95")
    assert view.read(str(sudoku_files.HERE / "top95.txt")) == [
        line.replace("0", ".") for line in boards_of.lines(published["puzzle"])
    ]
    path, line = tmp_path / "boards.txt", boards_of.lines(published["puzzle"][:1])[0]
    path.write_text(f"{line[1:]} {line}\n{line}{line}\n# {line}\n")
    cut, twice = view.check(view.read(str(path)))
    assert cut.startswith("holds ' '")
    assert twice == "has 162 characters, must be 81"


def test_a_board_with_a_cell_that_is_no_number_is_not_called_right():
    x, grid = (boards_of.sets()["val"][part][0] for part in ("puzzle", "solution"))
    answer = np.array(sudoku.encode(grid))
    assert view.is_right(x, answer) is True
    answer[grid == 1] = np.nan  # of which the first digit is the likeliest
    assert view.is_right(x, answer) is None


# Solved by no search as plain as ours, and no rule that `check` knows is broken.
IMPOSSIBLE = (
    ".....5.8....6.1.43..........1.5........1.6...3.......553.....61........4........."
)


def test_a_board_without_a_solution_is_named_before_and_one_of_several_after():
    part = boards_of.sets()["hard"]
    (line,) = boards_of.lines(part["puzzle"][:1])
    i, j = np.argwhere(part["puzzle"][0] == 0)[0]
    truth = part["solution"][0, i, j]
    wrong = []
    for digit in range(1, 10):
        board = part["puzzle"][0].copy()
        board[i, j] = digit
        is_open = view._problem(board) is None
        assert len(boards_of.solutions(board)) == (digit == truth)
        wrong += boards_of.lines([board]) if is_open and digit != truth else []
    assert wrong
    assert view.check([line, *wrong]) == [None] + ["has no solution"] * len(wrong)
    assert view.warn([line, "." * 81]) == [None, "has more than one solution"]


def test_a_search_that_takes_too_long_says_nothing(monkeypatch):
    monkeypatch.setattr(view, "MOST_TRIES", 50)
    view._num_solutions.cache_clear()
    assert view.check([IMPOSSIBLE]) == [None]
    assert view.warn([IMPOSSIBLE]) == [None]
    view._num_solutions.cache_clear()


def test_a_board_in_characters_has_its_lines_and_its_givens_marked():
    part = boards_of.sets()["val"]
    x, answer = part["puzzle"][0], np.array(sudoku.encode(part["solution"][0]))
    lines = view.text(x, answer).split("\n")
    assert len(lines) == 13
    assert {lines[i] for i in (0, 4, 8, 12)} == {"+-------+-------+-------+"}
    rows = [line for line in lines if line.startswith("|")]
    for row, given, digits in zip(rows, x, part["solution"][0], strict=True):
        assert row.count("[bold]") == np.sum(given > 0)
        plain = row.replace("[bold]", "").replace("[/]", "")
        assert len(plain) == 25
        assert [int(c) for c in plain if c.isdigit()] == digits.tolist()
    answer[0, 0] = np.nan
    assert view.text(x, answer).split("\n")[1].startswith("| .")


MUTANTS = [
    Mutant(
        "sudoku",
        "what is not a number is the digit 1",
        "experiments.views.sudoku",
        one(
            "return is_board if np.isfinite(answer).all() else None", "return is_board"
        ),
        test_a_board_with_a_cell_that_is_no_number_is_not_called_right,
    ),
    Mutant(
        "sudoku",
        "a solution after a board makes it none",
        "experiments.views.sudoku",
        one("return word if len(word) == 81 else line", "return line"),
        test_boards_are_read_as_they_are_published_with_their_solutions,
    ),
    Mutant(
        "sudoku",
        "a board without a solution is let through",
        "experiments.views.sudoku",
        one("if _num_solutions(line) == 0 else None", "if False else None"),
        test_a_board_without_a_solution_is_named_before_and_one_of_several_after,
    ),
    Mutant(
        "sudoku",
        "a board that drops its givens is called right",
        "experiments.views.sudoku",
        one("missing + int(np.sum((x > 0) & (grid != x)))", "missing"),
        test_boards_are_read_as_lines_and_written_as_lines,
    ),
]
