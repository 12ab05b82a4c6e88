"""Puzzles that are made, published, kept and read."""

import random

import jax
import numpy as np
import pytest

from experiments.data import sudoku as puzzles
from experiments.data import sudoku_classes, sudoku_files, sudoku_search
from experiments.errors import UserError
from tests import boards_of
from tests.mutants import Mutant, one

# --- one solution ------------------------------------------------------------------


def _sets():
    return boards_of.sets() | {"royle17": sudoku_files.published("royle17")}


@pytest.mark.parametrize(
    "name, low, high, count",
    [
        ("train", 31, 42, 24),
        ("val", 31, 42, 8),
        ("hard", 22, 28, 8),
        ("minimal", 17, 34, 8),
        ("top95", 17, 26, 95),
        ("royle17", 17, 17, 199),
    ],
)
def test_a_puzzle_has_exactly_its_one_solution_and_its_number_of_givens(
    name, low, high, count
):
    part = _sets()[name]
    assert part["puzzle"].shape == part["solution"].shape == (count, 9, 9)
    assert part["puzzle"].dtype == part["solution"].dtype == np.int8
    for puzzle, solution in zip(part["puzzle"], part["solution"], strict=True):
        assert boards_of.is_solved(solution)
        assert low <= np.sum(puzzle > 0) <= high
        (found,) = boards_of.solutions(puzzle)
        np.testing.assert_array_equal(found, solution)


def test_the_search_counts_solutions_as_a_sat_solver_does():
    draws, counts = random.Random(0), []
    for board in sudoku_files.published("top95")["puzzle"][:30].copy():
        given = np.argwhere(board > 0).tolist()
        for cell in draws.sample(given, draws.randrange(3)):
            board[tuple(cell)] = draws.choice([0, 1 + draws.randrange(9)])
        found = sudoku_search.solutions(board.ravel().tolist(), 3)
        assert len({tuple(grid) for grid in found}) == len(found)
        for grid in np.reshape(found, (-1, 9, 9)):
            assert boards_of.is_solved(grid)
            assert np.all((board == 0) | (grid == board))
        counts.append(len(found))
        assert len(found) == len(boards_of.solutions(board, 3))
    assert set(counts) == {0, 1, 3} or set(counts) == {0, 1, 2, 3}


def test_puzzles_of_seventeen_givens_are_filled_up_uniformly():
    settings = boards_of.SMALL._replace(num_held_out=720)
    seeds = sudoku_files.published("royle17")
    counts = np.sum(puzzles._filled_up(seeds, settings)["puzzle"] > 0, axis=(1, 2))
    counts = np.bincount(counts, minlength=35)[17:]
    # Each binomial, 720 draws of 1 / 18: 40 with a deviation of 6.1.
    assert counts.sum() == 720
    assert np.all(np.abs(counts - 40) < 4 * 6.2)


def test_puzzles_follow_from_their_settings_and_from_nothing_else():
    again, other = (
        puzzles.make(boards_of.SMALL),
        puzzles.make(boards_of.SMALL._replace(data_seed=1)),
    )
    for name, part in boards_of.sets().items():
        np.testing.assert_array_equal(again[name]["puzzle"], part["puzzle"])
        is_same = np.array_equal(other[name]["puzzle"], part["puzzle"])
        assert is_same == (name == "top95")
    # More of them begin as fewer do.
    more = puzzles.make(boards_of.SMALL._replace(num_puzzles=30))["train"]["puzzle"]
    np.testing.assert_array_equal(more[:24], boards_of.sets()["train"]["puzzle"])


def test_many_processes_make_what_one_makes(monkeypatch):
    one_s = puzzles._made("0 train", 11, (31, 42), sudoku_classes.Classes())
    monkeypatch.setattr(puzzles, "CHUNK", 4)
    many = puzzles._made("0 train", 11, (31, 42), sudoku_classes.Classes())
    jax.tree.map(np.testing.assert_array_equal, one_s, many)
    np.testing.assert_array_equal(
        one_s["puzzle"], boards_of.sets()["train"]["puzzle"][:11]
    )


# --- the same grid in another symmetry ---------------------------------------------


def _moved(grid, draws):
    """NumPy: one symmetry of the game at random."""
    order = [
        np.concatenate([3 * b + np.array(draws.sample(range(3), 3)) for b in bands])
        for bands in (draws.sample(range(3), 3), draws.sample(range(3), 3))
    ]
    digits = np.array([0, *draws.sample(range(1, 10), 9)])
    moved = digits[grid[order[0]][:, order[1]]]
    return moved.T if draws.random() < 0.5 else moved


def test_a_canonical_form_is_the_least_of_a_grid_s_symmetries_and_of_no_other_grid():
    draws, forms = random.Random(0), []
    made = boards_of.sets()["train"]["solution"][:10]
    shifts = 3 * np.arange(3)[None, :] + np.arange(3)[:, None]
    shifted = (shifts.reshape(9, 1) + np.arange(9)) % 9 + 1  # with many automorphisms
    for grid in [*made, shifted]:
        form = sudoku_classes.canonical(grid)
        board = np.frombuffer(form, np.uint8).reshape(9, 9)
        assert boards_of.is_solved(board)
        assert board[0].tolist() == list(range(1, 10))
        assert sudoku_classes.canonical(board) == form
        moved = [_moved(grid, draws) for _ in range(50)]
        assert all(form <= bytes(other.ravel().tolist()) for other in moved)
        for other in moved[:5]:
            assert boards_of.is_solved(other)
            assert sudoku_classes.canonical(other) == form
        forms.append(form)
    assert len(set(forms)) == len(forms)


def _lengths(first, second):
    """Python: the sorted lengths of the cycles of first[k] -> second[k]."""
    follows, lengths = dict(zip(first, second, strict=True)), []
    while follows:
        digit, length = next(iter(follows)), 0
        while digit in follows:
            digit, length = follows.pop(digit), length + 1
        lengths.append(length)
    return tuple(sorted(lengths))


def test_a_fingerprint_is_that_of_all_symmetries_and_of_no_other_grid():
    draws = random.Random(0)
    grids = np.concatenate([part["solution"] for part in boards_of.sets().values()])
    kinds = sudoku_classes.fingerprints(grids)
    for _ in range(3):
        moved = np.stack([_moved(grid, draws) for grid in grids])
        assert sudoku_classes.fingerprints(moved) == kinds
    forms = [sudoku_classes.canonical(grid) for grid in grids]
    assert len(set(kinds)) == len(set(forms)) > 100
    # Which of the eight partitions of nine, against a walk along the cycles.
    first, second = grids[:, 0], grids[:, 1]
    numbers = sudoku_classes._cycles(first - 1, second - 1).tolist()
    walked = [_lengths(*pair) for pair in zip(first, second, strict=True)]
    assert len(set(numbers)) == len(set(walked)) > 4
    assert len(set(zip(numbers, walked, strict=True))) == len(set(walked))


def test_a_random_symmetry_moves_a_puzzle_with_its_solution():
    draws, seen = random.Random(0), set()
    part = boards_of.sets()["val"]
    for puzzle, solution in zip(part["puzzle"], part["solution"], strict=True):
        move = sudoku_classes.random_symmetry(draws)
        other, answer = move(puzzle), move(solution)
        assert np.sum(other > 0) == np.sum(puzzle > 0)
        assert np.all((other == 0) | (other == answer))
        form = sudoku_classes.canonical(answer)
        assert form == sudoku_classes.canonical(solution)
        seen.add(answer.tobytes())
    assert not seen & {grid.tobytes() for grid in part["solution"]}


def test_held_out_sets_hold_no_grid_of_training_in_another_symmetry():
    sets = boards_of.sets()
    forms = {
        name: {sudoku_classes.canonical(grid) for grid in part["solution"]}
        for name, part in sets.items()
    }
    for name in ("val", "hard", "minimal", "top95"):
        assert not forms["train"] & forms[name]
    assert not forms["val"] & forms["hard"]


def test_a_grid_that_training_has_is_left_out_of_the_held_out_sets(monkeypatch):
    made = [sudoku_search.make_puzzle("0 train", (31, 42), i) for i in range(4)]
    others = {"0 train": made[1], "0 val": made[2], "0 hard": made[3]}
    move = sudoku_classes.random_symmetry(random.Random(0))
    moved = [move(np.reshape(b, (9, 9))).ravel().tolist() for b in made[0]]

    def repeat(stream, givens, index):
        if index:
            return others[stream]
        return made[0] if stream == "0 train" else moved

    monkeypatch.setattr(sudoku_search, "make_puzzle", repeat)
    sets = puzzles.make(puzzles.Settings(num_puzzles=2, num_held_out=1))
    expected = np.reshape(made[2][1], (9, 9))
    np.testing.assert_array_equal(sets["val"]["solution"][0], expected)


def test_grids_that_share_a_fingerprint_are_told_apart(monkeypatch):
    first, second = boards_of.sets()["train"]["solution"][:2]
    moved = _moved(first, random.Random(0))

    def alike(grids):
        return [b""] * len(grids)

    monkeypatch.setattr(sudoku_classes, "fingerprints", alike)
    classes = sudoku_classes.Classes()
    classes.add(first[None])
    assert classes.hold(np.stack([moved, second])).tolist() == [True, False]


# --- on disk -----------------------------------------------------------------------


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
        ({"num_puzzles": 0}, "data.num_puzzles=0"),
        ({"givens_low": 12}, "data.givens_low=12"),
        ({"hard_low": 30}, "data.hard_low=30: must be at most data.hard_high=28"),
    ],
)
def test_settings_of_which_no_puzzle_can_be_made_are_refused(changes, says):
    with pytest.raises(UserError, match=says):
        puzzles.load(boards_of.SMALL._replace(**changes))


@pytest.mark.parametrize("separator, header", [(",", "quizzes,solutions"), (" ", "")])
def test_puzzles_with_and_without_solutions_are_read(tmp_path, separator, header):
    part = boards_of.sets()["val"]
    both = list(zip(*map(boards_of.lines, part.values()), strict=True))
    assert any(puzzle.startswith("0") for puzzle, _ in both)
    path = tmp_path / "boards.csv"
    path.write_text("\n".join([header, *(separator.join(pair) for pair in both)]))
    jax.tree.map(np.testing.assert_array_equal, sudoku_files.read(path), part)
    rows = [f"{i};{p.replace('0', '.')};36;2.5" for i, (p, _) in enumerate(both)]
    path.write_text("\n".join(["id;puzzle;clues;difficulty", *rows]))
    jax.tree.map(np.testing.assert_array_equal, sudoku_files.read(path), part)


def test_published_tensors_are_read(tmp_path):
    torch = pytest.importorskip("torch")
    part = boards_of.sets()["val"]
    for name, boards in zip(("features", "labels"), part.values(), strict=True):
        hot = boards[..., None] == np.arange(1, 10)
        torch.save(torch.tensor(hot, dtype=torch.float32), tmp_path / f"{name}.pt")
    found = sudoku_files.read(tmp_path / "features.pt")
    jax.tree.map(np.testing.assert_array_equal, found, part)
    assert found["puzzle"].dtype == np.int8
    with pytest.raises(UserError, match=r"must be named features\.pt"):
        sudoku_files.read(tmp_path / "labels.pt")
    (tmp_path / "labels.pt").write_bytes(b"1")
    with pytest.raises(UserError, match="is not a file of one tensor"):
        sudoku_files.read(tmp_path / "features.pt")
    (tmp_path / "labels.pt").unlink()
    with pytest.raises(UserError, match="there is no such file"):
        sudoku_files.read(tmp_path / "features.pt")


BOARD = (
    "4.....8.5.3..........7......2.....6.....8.4......1.......6.3.7.5..2.....1.4......"
)


SOLVED = (
    "417369825632158947958724316825437169791586432346912758289643571573291684164875293"
)


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "holds 0 boards"),
        (f"{BOARD[1:]}\n{BOARD}", "line 1 holds no board of 81 digits"),
        (f"{BOARD[:30]}\n{BOARD}", "line 1 holds no board of 81 digits"),
        (f"{BOARD}\n{BOARD[1:]}", "line 2 holds no board of 81 digits"),
        (BOARD[:-1] + "4", "board 1 has no solution"),
        (f"{BOARD}\n{BOARD.replace('4', '.')}", "board 2 has more than one solution"),
        (f"{BOARD} {'123456789' * 9}", "the solution of board 1 is none"),
        (f"{BOARD[:30]} {SOLVED}", "board 1 has no empty cell"),
    ],
)
def test_a_file_of_no_puzzles_is_refused_in_one_sentence(tmp_path, text, says):
    path = tmp_path / "boards.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=f"{path}: {says}"):
        sudoku_files.read(path)


def test_a_board_that_no_search_solves_soon_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sudoku_files, "MOST_TRIES", 10)
    path = tmp_path / "boards.txt"
    path.write_text(BOARD)
    with pytest.raises(UserError, match="board 1 has no solution that is found soon"):
        sudoku_files.read(path)


def test_other_solutions_in_a_file_of_their_own_are_other_puzzles(tmp_path):
    settings = puzzles.Settings(train_file=str(tmp_path / "features.pt"))
    digests = set()
    for content in (b"a", b"b"):
        (tmp_path / "features.pt").write_bytes(b"a")
        (tmp_path / "labels.pt").write_bytes(content)
        digests.add(settings.digest)
    assert len(digests) == 2
    other = settings._replace(train_file=str(tmp_path / "labels.pt"))
    with pytest.raises(UserError, match=r"data\.train_file=.*must be named features"):
        _ = other.digest


def test_a_solution_of_another_puzzle_is_refused(tmp_path):
    part, path = boards_of.sets()["val"], tmp_path / "boards.csv"
    puzzle, answer = (boards_of.lines(part[n]) for n in ("puzzle", "solution"))
    path.write_text(f"{puzzle[0]},{answer[0]}\n{puzzle[1]},{answer[0]}\n")
    with pytest.raises(UserError, match="the solution of board 2 is none"):
        sudoku_files.read(path)


def test_files_of_one_s_own_are_trained_on_but_for_what_is_held_out(tmp_path, capsys):
    made, draws = boards_of.sets(), random.Random(1)
    val = made["val"]["puzzle"]
    train = [*made["train"]["puzzle"][:3], _moved(val[0], draws)]
    train_file, val_file = tmp_path / "train.txt", tmp_path / "val.txt"
    train_file.write_text("\n".join(boards_of.lines(train)))
    val_file.write_text("\n".join(boards_of.lines(val)))
    settings = boards_of.SMALL._replace(
        train_file=str(train_file), val_file=str(val_file), num_held_out=2
    )
    sets = puzzles.make(settings)
    np.testing.assert_array_equal(sets["train"]["puzzle"], train[:3])
    np.testing.assert_array_equal(sets["val"]["puzzle"], val)
    assert "1 boards are held out" in " ".join(capsys.readouterr().out.split())
    # Known by what is in them.
    digest = settings.digest
    train_file.write_text(boards_of.lines(val[:1])[0])
    assert settings.digest != digest
    with pytest.raises(UserError, match="all its boards are held out"):
        puzzles.make(settings)
    with pytest.raises(UserError, match="No such file"):
        puzzles.load(settings._replace(train_file="nowhere.txt"))


MUTANTS = [
    Mutant(
        "sudoku",
        "a puzzle may have two solutions",
        "experiments.data.sudoku_search",
        one("if len(solutions(tried, 2)) == 1:", "if solutions(tried, 1):"),
        test_a_puzzle_has_exactly_its_one_solution_and_its_number_of_givens,
        {"name": "hard", "low": 22, "high": 28, "count": 8},
        ValueError,
    ),
    Mutant(
        "sudoku",
        "of the digits of a guess the last is not tried",
        "experiments.data.sudoku_search",
        one("digits = DIGITS[free]", "digits = DIGITS[free][: 1 + (len(rest) < 40)]"),
        test_the_search_counts_solutions_as_a_sat_solver_does,
    ),
    Mutant(
        "sudoku",
        "a fingerprint knows the order of the bands",
        "experiments.data.sudoku_classes",
        one("for g in of_group], axis=0).T", "for g in of_group], axis=1).T"),
        test_a_fingerprint_is_that_of_all_symmetries_and_of_no_other_grid,
    ),
    Mutant(
        "sudoku",
        "a canonical form knows which way the grid lies",
        "experiments.data.sudoku_classes",
        one("np.stack([grid, grid.T])", "np.stack([grid, grid])"),
        test_a_canonical_form_is_the_least_of_a_grid_s_symmetries_and_of_no_other_grid,
    ),
    Mutant(
        "sudoku",
        "a canonical form keeps the order of the bands",
        "experiments.data.sudoku_classes",
        one("above, below = sorted(", "above, below = list("),
        test_a_canonical_form_is_the_least_of_a_grid_s_symmetries_and_of_no_other_grid,
    ),
    Mutant(
        "sudoku",
        "a fingerprint alone decides",
        "experiments.data.sudoku_classes",
        one("bool(alike) and canonical(grid) in map(canonical, alike)", "bool(alike)"),
        test_grids_that_share_a_fingerprint_are_told_apart,
    ),
    Mutant(
        "sudoku",
        "held-out grids may be those of training",
        "experiments.data.sudoku",
        one("is_other = ~taken", "is_other = True | taken"),
        test_a_grid_that_training_has_is_left_out_of_the_held_out_sets,
    ),
    Mutant(
        "sudoku",
        "solutions in a file of their own are not of the digest",
        "experiments.data.sudoku",
        one("sudoku_files.parts(path) if path", "[Path(path)] if path"),
        test_other_solutions_in_a_file_of_their_own_are_other_puzzles,
    ),
    Mutant(
        "sudoku",
        "a search for a solution never ends",
        "experiments.data.sudoku_files",
        one(", most_tries=MOST_TRIES", ""),
        test_a_board_that_no_search_solves_soon_is_refused,
    ),
    Mutant(
        "sudoku",
        "a puzzle's solution is not looked at",
        "experiments.data.sudoku_files",
        one("~(is_kept & is_solved(answers))", "~is_solved(answers)"),
        test_a_solution_of_another_puzzle_is_refused,
    ),
]
