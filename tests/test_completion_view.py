"""Tables with holes: read, refused in a sentence, completed, written, drawn."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments.errors import UserError
from experiments.views import addition
from experiments.views import completion as view
from tests.mutants import Mutant, one

HOLES = np.array([[0.5, np.nan, -0.25], [np.nan, 0.125, 1.0]], np.float32)


def test_tables_are_read_from_npy_and_csv_alike(tmp_path):
    for name, saved in (("one.npy", HOLES), ("many.npy", np.stack([HOLES, HOLES]))):
        np.save(tmp_path / name, saved)
        tables = view.read(str(tmp_path / name))
        np.testing.assert_array_equal(tables[-1], HOLES)
        assert tables.shape == (2 if name == "many.npy" else 1, 2, 3)
    for name in ("one.csv", "ONE.CSV"):
        (tmp_path / name).write_text("0.5,,-0.25\nnan,0.125,1\n")
        np.testing.assert_array_equal(view.read(str(tmp_path / name)), HOLES[None])
    assert view.sizes(tables) == {"task.n": 2, "task.m": 3}


def test_an_empty_line_of_a_single_column_is_an_unseen_number(tmp_path):
    """Elsewhere it is no row: rows that shift would be answered for others."""
    (tmp_path / "column.csv").write_text("0.5\n\n\n2\n")
    (table,) = view.read(str(tmp_path / "column.csv"))
    np.testing.assert_array_equal(table[:, 0], [0.5, np.nan, np.nan, 2])
    (tmp_path / "spaced.csv").write_text("1,2\n\n3,4\n")
    (table,) = view.read(str(tmp_path / "spaced.csv"))
    np.testing.assert_array_equal(table, [[1, 2], [3, 4]])


def test_what_is_seen_is_marked_and_what_is_not_is_0():
    values, seen = view.to_x(HOLES)
    np.testing.assert_array_equal(values, [[0.5, 0, -0.25], [0, 0.125, 1]])
    np.testing.assert_array_equal(seen, [[1, 0, 1], [0, 1, 1]])
    assert values.dtype == seen.dtype == np.float32


def test_files_that_hold_no_table_are_refused(tmp_path):
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "ragged.csv").write_text("1,2\n3\n")
    (tmp_path / "headed.csv").write_text("left,right\n3,4\n")
    (tmp_path / "empty.csv").write_text("\n")
    np.save(tmp_path / "line.npy", np.ones(3))
    np.save(tmp_path / "words.npy", np.array(["a"]))
    for name, said in (
        ("none.npy", "no such file"),
        ("none.csv", "no such file"),
        ("text.npy", "not a readable .npy"),
        ("ragged.csv", "different lengths"),
        ("headed.csv", "has 'left' in row 0, column 0, must be a number"),
        ("empty.csv", "shape"),
        ("line.npy", "shape"),
        ("words.npy", "real numbers"),
    ):
        with pytest.raises(UserError, match=said):
            view.read(str(tmp_path / name))


def test_tables_without_an_answer_get_a_sentence_each_and_others_none():
    tables = np.stack([HOLES, np.full_like(HOLES, np.nan), HOLES, 9 * HOLES])
    tables[2, 0, 0] = np.inf
    found = view.check(tables)
    assert found[0] is found[3] is None
    assert "nothing seen" in found[1]
    assert "infinite" in found[2]
    warned = view.warn([tables[0], tables[3]])
    assert warned[0] is None
    assert "scale it" in warned[1]
    empty = HOLES.copy()
    empty[0] = np.nan
    assert "2 rows or columns" in view.warn([empty])[0]


@pytest.mark.parametrize("kind, shape", [(view, (2, 2)), (addition, (2, 2, 2))])
def test_what_float32_does_not_hold_is_said_and_warned_of_by_nobody(
    kind, shape, tmp_path
):
    np.save(tmp_path / "huge.npy", np.full(shape, 1e300))
    (said,) = kind.check(kind.read(str(tmp_path / "huge.npy")))
    assert said.endswith("in float32")


def test_completed_tables_are_written_and_nothing_calls_them_right(tmp_path):
    answers = np.stack([np.nan_to_num(HOLES), np.full_like(HOLES, np.nan)])
    view.write(tmp_path / "out.npy", answers)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), answers)
    said = view.describe(view.to_x(HOLES), answers[0])
    assert not hasattr(view, "is_right")
    assert said["residual"] == 0
    assert said["share seen"] == pytest.approx(4 / 6)
    moved = answers[0] + [[3, 9, 0], [9, 4, 0]]  # 9 where nothing is seen
    assert view.describe(view.to_x(HOLES), moved)["residual"] == pytest.approx(5)


@pytest.mark.parametrize("with_truth", [True, False])
def test_what_is_seen_the_answer_and_the_truth_are_drawn_side_by_side(with_truth):
    figure = Figure()
    axis, answer = figure.subplots(), np.nan_to_num(HOLES)
    view.draw(axis, view.to_x(HOLES), answer if with_truth else None, answer)
    image = np.ma.filled(axis.images[0].get_array(), np.nan)
    assert image.shape == (2, 11 if with_truth else 7)
    np.testing.assert_array_equal(image[:, :3], HOLES)
    np.testing.assert_array_equal(image[:, 4:7], answer)
    assert "seen, answer" in axis.get_title()


MUTANTS = [
    Mutant(
        "views",
        "NumPy warns of what a check names",
        "experiments.views.arrays",
        one('with np.errstate(over="ignore")', "with np.errstate()"),
        test_what_float32_does_not_hold_is_said_and_warned_of_by_nobody,
        {"kind": addition, "shape": (2, 2, 2)},
        error=RuntimeWarning,
    ),
    Mutant(
        "views",
        "empty lines of a column are left out",
        "experiments.views.completion",
        one('empty = [""] if', "empty = [] if"),
        test_an_empty_line_of_a_single_column_is_an_unseen_number,
    ),
    Mutant(
        "completion",
        "the residual counts what is unseen",
        "experiments.views.completion",
        one("gap = (np.float64(answer) - x[0]) * x[1]", "gap = answer - x[0]"),
        test_completed_tables_are_written_and_nothing_calls_them_right,
    ),
    Mutant(
        "completion",
        "a word in a table counts as unseen",
        "experiments.views.completion",
        one('float(cell.strip() or "nan")', 'float("nan")'),
        test_files_that_hold_no_table_are_refused,
        error=pytest.fail.Exception,
    ),
]
