"""Answers to a person's boards: checked, started again, watched. The energy is none."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import cli, solve
from experiments.score import thinking, trained
from experiments.score.restarts import until_right
from experiments.views import base
from ired_jax.samplers.inference import SolveInfo
from ired_jax.tasks import sudoku
from ired_jax.tasks.base import Inference
from ired_jax.types import Example
from tests import boards_of
from tests.mutants import Mutant, one

STEPS = 3


def _solver(answer_of, calls=None):
    """As `experiments.score.solver`: answer_of(index, restart) -> (y, energy)."""

    def solver(params, x, index, restarts=0):
        pairs = [*zip(index, np.broadcast_to(restarts, len(index)), strict=True)]
        if calls is not None:
            calls.append([(int(restart), int(i)) for i, restart in pairs])
        rows = [answer_of(int(i), int(restart)) for i, restart in pairs]
        y, energy = (np.array(part, np.float32) for part in zip(*rows, strict=True))
        steps = np.full((len(index), 1), STEPS)
        energies, answers = energy[:, None], y[:, None]
        return y, SolveInfo(energy, energies, None, steps, answers)

    return solver


# --- restarts ------------------------------------------------------------------------


def test_only_rows_that_are_not_right_are_started_again():
    first_right = np.array([0, 2, 1, 99, 2])  # the restart that is right of each row
    calls = []

    def answer_of(i, restart):
        is_right = restart == first_right[i]
        return [float(is_right), restart], 10.0 * is_right - restart

    x = np.arange(5)[:, None]
    y, energy, steps = until_right(
        *(_solver(answer_of, calls), None, x, np.arange(5), range(4)),
        lambda x, y: bool(y[0]),
        block=5,
    )
    went_on = [[i for _, i in call] for call in calls]
    assert list(map(set, went_on)) == [{0, 1, 2, 3, 4}, {1, 2, 3, 4}, {1, 3, 4}, {3}]
    # A right answer counts whatever its energy, else the lowest energy does.
    np.testing.assert_array_equal(y, [[1, 0], [1, 2], [1, 1], [0, 3], [1, 2]])
    np.testing.assert_array_equal(energy, [10, 8, 9, -3, 8])
    np.testing.assert_array_equal(steps, STEPS * np.array([1, 3, 2, 4, 3]))


def test_a_row_that_is_right_at_once_is_not_searched():
    plain, searches = [], []
    y, energy, steps = until_right(
        _solver(lambda i, restart: ([i, i == restart], 4.0), searches),
        *(None, np.zeros((3, 1)), np.array([7, 0, 1]), range(3)),
        lambda x, y: bool(y[1]),
        block=2,
        first=_solver(lambda i, restart: ([i, i == 7], 5.0), plain),
    )
    # Every restart has its search, the first one, too, where its answer was wrong.
    assert plain == [[(0, 7), (0, 0)], [(0, 1), (0, 1)]]
    assert searches == [[(0, 0), (0, 1)], [(1, 1), (2, 1)]]
    np.testing.assert_array_equal(y, [[7, 1], [0, 1], [1, 1]])
    np.testing.assert_array_equal(energy, [5, 4, 4])
    np.testing.assert_array_equal(steps, STEPS * np.array([1, 2, 3]))


def test_where_no_answer_can_be_checked_the_lowest_energy_counts():
    energies = np.array([[3.0, np.nan, 2.0], [1.0, 5.0, 4.0], [2.0, 4.0, 9.0]])
    y, energy, steps = until_right(
        _solver(lambda i, restart: ([restart], energies[restart, i])),
        *(None, np.zeros((3, 1)), np.arange(3), range(3)),
        lambda x, y: None,
    )
    np.testing.assert_array_equal(y[:, 0], [1, 2, 0])
    np.testing.assert_array_equal(energy, [1, 4, 2])
    np.testing.assert_array_equal(steps, 3 * [3 * STEPS])


def test_rows_that_become_fewer_are_solved_in_blocks_of_one_size(monkeypatch):
    calls, count = [], 10
    y, _, _ = until_right(
        _solver(lambda i, restart: ([i, i < 5 * restart], 0.0), calls),
        *(None, np.zeros((count, 1)), np.arange(count), range(4)),
        lambda x, y: bool(y[1]),
        block=4,
    )
    np.testing.assert_array_equal(y[:, 0], np.arange(count))
    assert {len(call) for call in calls} == {4}
    assert [call[0][0] for call in calls] == [0, 0, 0, 1, 1, 1, 2, 2]


def test_places_that_rows_leave_in_a_block_are_for_further_restarts():
    calls = []
    y, energy, steps = until_right(
        _solver(lambda i, restart: ([i, restart], -float(restart)), calls),
        *(None, np.zeros((2, 1)), np.array([5, 8]), range(7)),
        lambda x, y: y.tolist() == [5, 1],
        block=6,
    )
    first = [(restart, i) for restart in range(3) for i in (5, 8)]
    assert calls == [first, [(restart, 8) for restart in (3, 4, 5, 6, 6, 6)]]
    # What came after the right one, at once with it, does not count.
    np.testing.assert_array_equal(y, [[5, 1], [8, 6]])
    np.testing.assert_array_equal(energy, [-1, -6])
    np.testing.assert_array_equal(steps, [2 * STEPS, 7 * STEPS])


# --- the command ---------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Runs `solve` on lines, where answer_of(line number, restart) is the energy's."""

    def run(lines, answer_of, *options, how=Inference(num_levels=1)):
        example = Example(np.zeros((9, 9), np.int8), np.zeros((9, 9, 9), np.float32))
        experiment = SimpleNamespace(
            task=SimpleNamespace(splits={"val": None}),
            inference=how,
            search=None,
            evaluation=SimpleNamespace(batch_size=8, block=4),
            example=example,
        )
        config = SimpleNamespace(task=SimpleNamespace(name="sudoku"))
        model = trained.Trained(experiment, config, None, step=0, seed=0)
        solver = _solver(answer_of)
        monkeypatch.setattr(solve, "solver", lambda *_, **__: solver)
        monkeypatch.setattr(thinking, "solver", lambda *_, **__: solver)
        monkeypatch.setattr(trained, "load", lambda *_: model)
        monkeypatch.setattr(trained, "changed", lambda config, _: config)
        monkeypatch.setattr(trained, "on_task", lambda *_: experiment)
        monkeypatch.setattr(solve.workdir, "read_config", lambda _: config)
        (tmp_path / "puzzles.txt").write_text("\n".join(lines))
        files = (
            f"--input={tmp_path / 'puzzles.txt'}",
            f"--output={tmp_path / 'out.txt'}",
        )
        try:
            cli.run(solve.main, ["solve", "--workdir=run", *files, *options])
            code = 0
        except SystemExit as end:
            code = end.code
        out = tmp_path / "out.txt"
        answers = out.read_text().split() if out.exists() else None
        table = []
        if out.exists():
            with out.with_suffix(".csv").open() as file:
                table = list(csv.DictReader(file))
        return code, answers, table

    return run


def _boards():
    part = boards_of.sets()["hard"]
    answers = [np.asarray(sudoku.encode(grid)) for grid in part["solution"]]
    lines = boards_of.lines(part["puzzle"]), boards_of.lines(part["solution"])
    return *lines, answers


def test_each_row_is_right_or_wrong_by_the_rules_or_refused_and_the_code_says_so(
    command, capsys
):
    puzzles, solved, answers = _boards()
    lines = [puzzles[0], puzzles[1][:80], puzzles[2], "55" + "." * 79, puzzles[4]]

    def answer_of(i, restart):
        return answers[3 if i == 2 else i], 1.0 + i

    code, written, table = command(lines, answer_of)
    assert code == 1
    assert [row["verdict"] for row in table] == ["right", "", "wrong", "", "right"]
    assert written == [solved[0], "." * 81, solved[3], "." * 81, solved[4]]
    assert [row["energy"] for row in table] == ["1.0", "", "3.0", "", "5.0"]
    refused, wrong = capsys.readouterr().err.strip().split("\n")
    assert refused == (
        "error: input 1 has 80 characters, must be 81; input 3 row 1 has two 5s"
    )
    assert wrong == "error: input 2 has an answer that is wrong"


def test_all_right_ends_well_and_nothing_to_solve_ends_with_two(command, capsys):
    puzzles, solved, answers = _boards()
    code, written, _ = command(puzzles[:2], lambda i, _: (answers[i], 0.0))
    assert (code, written) == (0, solved[:2])
    shown = capsys.readouterr().out
    assert shown.count("+-------+-------+-------+") == 8
    code, _, _ = command(["5"], lambda i, _: (answers[i], 0.0))
    assert code == 2
    assert "input 0 has 1 characters, must be 81" in capsys.readouterr().err


def test_a_board_of_several_solutions_is_solved_with_a_warning(command, capsys):
    *_, answers = _boards()
    code, _, table = command(["." * 81], lambda i, _: (answers[0], 0.0))
    assert code == 0
    assert table[0]["verdict"] == "right"
    assert "input 0 has more than one solution" in " ".join(
        capsys.readouterr().out.split()
    )


def test_restarts_of_the_command_go_on_until_the_board_is_right(command):
    puzzles, solved, answers = _boards()

    def answer_of(i, restart):
        return answers[i if restart == 2 * i else 5], float(-restart)

    code, written, table = command(puzzles[:2], answer_of, "--restarts=9")
    assert (code, written) == (0, solved[:2])
    assert [int(row["steps"]) for row in table] == [STEPS, 3 * STEPS]


def test_an_answer_is_watched_level_by_level(command, tmp_path):
    puzzles, _, answers = _boards()
    path = tmp_path / "new" / "think.png"
    options = [f"--picture={path}", "--picture_row=1", "--restarts=3"]
    seen = []

    def picture(view, thought):
        seen.append(thought)
        return thinking.picture(view, thought)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solve, "picture", picture)
        code, _, _ = command(
            puzzles[:2],
            lambda i, restart: (answers[i if restart == 1 else 5], restart),
            *options,
        )
    assert code == 0
    assert path.read_bytes()[:4] == b"\x89PNG"
    (thought,) = seen  # of the start that was right
    np.testing.assert_array_equal(thought.answers, answers[1][None])
    np.testing.assert_array_equal(thought.x, boards_of.sets()["hard"]["puzzle"][1])


@pytest.mark.parametrize(
    "right, expected", [([0, 1, 0, 1], 1), ([0, 0, 0, 0], 2), (None, 2)]
)
def test_watched_is_the_start_whose_answer_is_kept(monkeypatch, right, expected):
    energies, calls = [np.nan, 2.0, 1.0, 4.0], []
    fake = _solver(lambda i, restart: ([restart], energies[restart] + i), calls)
    monkeypatch.setattr(thinking, "solver", lambda *_, **__: fake)
    check = right and (lambda x, y: bool(right[int(y[0])]))
    plain = SimpleNamespace(search=None)
    watch = thinking.think(plain, None, Inference(restarts=4), check, block=3)
    thought = watch(None, np.zeros(1), 7)
    # The fourth is not taken where one of the first three is right.
    assert [len(call) for call in calls] == ([3] if expected == 1 else [3, 1])
    np.testing.assert_array_equal(thought.answers, [[expected]])
    np.testing.assert_array_equal(thought.energies, [energies[expected] + 7])


def test_watched_is_no_search_where_the_first_answer_is_right(monkeypatch):
    fake = _solver(lambda i, restart: ([restart], 2.0))
    monkeypatch.setattr(thinking, "solver", lambda *_, **__: fake)
    options = None, Inference(restarts=2)
    searching = SimpleNamespace(search=object())
    for check, frames in ((lambda x, y: True, 1), (lambda x, y: False, 2)):
        watch = thinking.think(searching, *options, check)
        thought = watch(None, np.zeros(1), 7)
        assert len(thought.energies) == len(thought.answers) == frames


@pytest.mark.parametrize(
    "row, says", [(2, "must be 0 to 1"), (-1, "must be 0 to 1"), (0, "has 1 char")]
)
def test_what_cannot_be_watched_is_named(command, capsys, tmp_path, row, says):
    puzzles, _, answers = _boards()
    options = f"--picture={tmp_path / 'think.png'}", f"--picture_row={row}"
    code, written, _ = command(
        ["5", puzzles[1]], lambda i, _: (answers[i], 0), *options
    )
    assert (code, written) == (2, None)
    assert f"--picture_row={row}: {says}" in capsys.readouterr().err


def test_figures_that_cannot_lie_beside_the_answers_stop_it_before_the_work(
    command, capsys, tmp_path
):
    puzzles, _, _ = _boards()
    (tmp_path / "out.csv").mkdir()
    assert command(puzzles[:1], None)[:2] == (2, None)
    assert "out.csv: is a folder, must be a file" in capsys.readouterr().err


def test_a_check_of_one_s_own_may_say_it_in_numpy(monkeypatch, tmp_path):
    (tmp_path / "my_view.py").write_text(
        "import numpy as np\n"
        "def read(path): return [float(open(path).read())]\n"
        "def is_right(x, y): return None if x < 0 else np.float32(x) == y\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    check = base.view_of("my_view").is_right
    assert [check(x, 1.0) for x in (1, 2, -1)] == [True, False, None]
    assert check(1, 1.0) is True


def test_without_a_check_every_answer_is_unknown(command, monkeypatch):
    puzzles, _, answers = _boards()
    view = base.view_of("sudoku")._replace(is_right=None)
    monkeypatch.setattr(solve, "view_of", lambda _: view)
    code, _, table = command(
        puzzles[:2], lambda i, restart: (answers[5], -restart), "--restarts=3"
    )
    assert code == 0
    assert [row["verdict"] for row in table] == ["unknown", "unknown"]
    assert [int(row["steps"]) for row in table] == [3 * STEPS, 3 * STEPS]


def test_a_view_without_a_check_lets_nothing_through_that_is_not_finite(
    command, monkeypatch, capsys
):
    """And an empty file reaches none of its functions."""

    def to_x(line):
        values = [np.nan if c == "x" else float(c.replace(".", "0")) for c in line]
        return np.reshape(values, (9, 9))

    sudoku = base.view_of("sudoku")
    own = {"check": base.View().check, "is_right": None, "to_x": to_x}
    monkeypatch.setattr(solve, "view_of", lambda _: sudoku._replace(**own))
    puzzles, _, answers = _boards()
    code, _, table = command([puzzles[0], "x" * 81], lambda i, _: (answers[5], 0))
    assert code == 1
    assert [row["verdict"] for row in table] == ["unknown", ""]
    assert "input 1 is not finite" in capsys.readouterr().err
    empty = sudoku._replace(read=lambda _: [], sizes=lambda inputs: inputs[0])
    monkeypatch.setattr(solve, "view_of", lambda _: empty)
    assert command([], None)[0] == 2
    assert "--input: holds nothing" in capsys.readouterr().err


def test_what_keeps_any_x_from_being_answered_has_a_sentence():
    like = {"a": np.zeros(2), "b": np.zeros((), np.int8)}
    good = {"a": np.ones(2), "b": np.int8(3)}
    assert solve._misfit(good, like) is None
    assert "has not the shape" in solve._misfit(good | {"a": np.ones(3)}, like)
    for value in (np.nan, np.inf):
        bad = good | {"a": np.array([0, value])}
        assert solve._misfit(bad, like) == "is not finite"


MUTANTS = [
    Mutant(
        "solve",
        "what is not finite is answered",
        "experiments.solve",
        one('return None if is_finite else "is not finite"', "return None"),
        test_what_keeps_any_x_from_being_answered_has_a_sentence,
    ),
    Mutant(
        "solve",
        "rows that are right are started again",
        "experiments.score.restarts",
        one("is_going[row] = not is_right_now", "pass"),
        test_only_rows_that_are_not_right_are_started_again,
    ),
    Mutant(
        "solve",
        "a search takes the place of its restart",
        "experiments.score.restarts",
        one("attempt(first, left[:1])", "attempt(first, [left.pop(0)])"),
        test_a_row_that_is_right_at_once_is_not_searched,
    ),
    Mutant(
        "solve",
        "a right answer of higher energy is thrown away",
        "experiments.score.restarts",
        one("if is_right_now or new <", "if new <"),
        test_only_rows_that_are_not_right_are_started_again,
    ),
    Mutant(
        "solve",
        "rows are numbered by their place among those that go on",
        "experiments.score.restarts",
        one("index[rows[take]], restarts", "index[take % len(index)], restarts"),
        test_only_rows_that_are_not_right_are_started_again,
    ),
    Mutant(
        "solve",
        "places that rows leave in a block stay empty",
        "experiments.score.restarts",
        one("max(1, block // np.count_nonzero(is_going))", "1"),
        test_places_that_rows_leave_in_a_block_are_for_further_restarts,
    ),
    Mutant(
        "solve",
        "what is watched is the last start",
        "experiments.score.thinking",
        one("                if is_done:\n                    return kept\n", ""),
        test_watched_is_the_start_whose_answer_is_kept,
        {"right": [0, 1, 0, 1], "expected": 1},
    ),
]
