"""Boards as a person writes, reads and sees them."""

import jax
import numpy as np
import pytest

from experiments.errors import UserError
from experiments.views import sudoku as view
from ired_jax.tasks import sudoku
from tests import boards_of


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
