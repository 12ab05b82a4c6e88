"""Sudokus of exactly one solution: made, kept on disk, and read back.

    python -m experiments.data.sudoku --num_puzzles=4000

A solved grid is filled at random and dug: cells are emptied in random order as long as
one solution is left. Puzzle i of a set follows from (seed, set, i) alone. No grid of
`val` or `hard` is one of `train` in another of the game's symmetries: `fingerprint`s
differ, and grids that a symmetry makes of one another have equal ones.
"""

import hashlib
import io
import itertools
import os
import random
import zipfile
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from absl import flags

from experiments import cli
from experiments.errors import UserError
from experiments.run.files import write_bytes
from experiments.run.logs import say, track
from ired_jax import fields
from ired_jax.fields import Field

FORMAT = 1  # of the file and of the way puzzles are made: a part of the digest
ALL = 0b111_111_111
COUNT = [bits.bit_count() for bits in range(512)]
DIGITS = [[d for d in range(9) if bits >> d & 1] for bits in range(512)]
ROW = [i // 9 for i in range(81)]
COLUMN = [i % 9 for i in range(81)]
BLOCK = [i // 27 * 3 + i % 9 // 3 for i in range(81)]

Sets = dict[str, dict[str, np.ndarray]]


class Settings(NamedTuple):
    """All that the puzzles follow from."""

    num_puzzles: Annotated[int, Field("puzzles to train on", at_least=1)] = 4_000
    num_held_out: Annotated[int, Field("puzzles of val, and of hard", at_least=1)] = 512
    givens_low: Annotated[int, Field("least givens", at_least=22, at_most=80)] = 31
    givens_high: Annotated[int, Field("most givens", at_least=26, at_most=80)] = 42
    hard_low: Annotated[int, Field("of the hard set", at_least=22, at_most=80)] = 22
    hard_high: Annotated[int, Field("of the hard set", at_least=26, at_most=80)] = 28
    data_seed: Annotated[int, Field("of the puzzles, not of a run", at_least=0)] = 0

    @property
    def digest(self) -> str:
        return hashlib.sha256(repr((FORMAT, *self)).encode()).hexdigest()[:16]


def load(settings: Settings) -> Sets:
    """The sets, read if they have been made and are whole, else made and kept.

    Returns:
      {"train", "val", "hard"} -> {"puzzle", "solution"}, int8 [N, 9, 9].

    Raises:
      UserError: a setting beyond its limits.
    """
    check(settings)
    path = cache_path(settings)
    if (sets := _read(path)) is None:
        sets = make(settings)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_bytes(path, _as_bytes(sets))
        except (OSError, UserError):
            say(f"{path} cannot be written: the puzzles are made anew each time")
    return sets


def cache_path(settings: Settings) -> Path:
    """$XDG_CACHE_HOME (or ~/.cache) /ired_jax/sudoku-<digest of the settings>.npz."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "ired_jax" / f"sudoku-{settings.digest}.npz"


def check(settings: Settings) -> None:
    """Raises UserError where no puzzles can be made so."""
    for field in fields.declared(Settings):
        value = getattr(settings, field.parameter)
        try:
            fields.check(field.parameter, value, field.kind, field.spec)
        except ValueError as error:
            raise UserError(str(error)) from error
    for low, high in (("givens_low", "givens_high"), ("hard_low", "hard_high")):
        least, most = getattr(settings, low), getattr(settings, high)
        if least > most:
            raise UserError(f"{low}={least}: must be at most {high}={most}")


def make(settings: Settings) -> Sets:
    """Makes the sets, whatever is on disk."""
    usual = settings.givens_low, settings.givens_high
    wanted = (
        ("train", settings.num_puzzles, usual),
        ("val", settings.num_held_out, usual),
        ("hard", settings.num_held_out, (settings.hard_low, settings.hard_high)),
    )
    sets, taken = {}, set()
    for name, size, givens in wanted:
        rows = []
        one = partial(make_puzzle, f"{settings.data_seed} {name}", givens)
        made = map(one, itertools.count())
        for _ in track(range(size), f"sudokus: {name}"):
            rows.append(next(row for row in made if row.kind not in taken))
        taken |= {row.kind for row in rows}
        sets[name] = {
            part: np.array([getattr(row, part) for row in rows], np.int8).reshape(
                -1, 9, 9
            )
            for part in ("puzzle", "solution")
        }
    return sets


class Puzzle(NamedTuple):
    """One puzzle, its only solution, and what its grid shares with all of its class."""

    puzzle: list[int]  # 81 digits, 0 where empty
    solution: list[int]
    kind: tuple  # its fingerprint


def make_puzzle(stream: str, givens: tuple[int, int], index: int) -> Puzzle:
    """Puzzle `index` of a stream, with a number of givens within `givens`."""
    draws = random.Random(f"{stream} {index}")
    while True:
        grid = random_grid(draws)
        puzzle = dig(grid, draws.randint(*givens), draws)
        if givens[0] <= 81 - puzzle.count(0) <= givens[1]:
            return Puzzle(puzzle, grid, fingerprint(grid))


def random_grid(draws: random.Random) -> list[int]:
    """A solved grid of 81 digits: the diagonal's blocks at random, then a search."""
    cells = [0] * 81
    for block in (0, 4, 8):
        digits = draws.sample(range(1, 10), 9)
        for i in range(81):
            if BLOCK[i] == block:
                cells[i] = digits.pop()
    return solutions(cells, 1, draws)[0]


def dig(grid: list[int], givens: int, draws: random.Random) -> list[int]:
    """The grid with cells emptied as long as it stays the only solution: 81 digits.

    Down to `givens`, or to where no cell can be emptied any more.
    """
    cells, order = list(grid), draws.sample(range(81), 81)
    at_once = 24  # nearly always still of one solution: one search for 24
    while order and cells.count(0) < 81 - givens:
        part = order[: min(at_once, 81 - givens - cells.count(0))]
        tried = [0 if i in part else digit for i, digit in enumerate(cells)]
        if len(solutions(tried, 2)) == 1:
            cells = tried
        elif len(part) > 1:
            at_once = len(part) // 2
            continue
        order = order[len(part) :]
        at_once = max(1, at_once // 2)
    return cells


def solutions(
    cells: Sequence[int], limit: int, draws: random.Random | None = None
) -> list[list[int]]:
    """Up to `limit` solutions of 81 digits, 0 where empty; [] if givens contradict.

    The cell with the fewest candidates first, its digits in order or as drawn.
    """
    rows, columns, blocks = [0] * 9, [0] * 9, [0] * 9
    for i, digit in enumerate(cells):
        bit = 1 << digit >> 1
        if (rows[ROW[i]] | columns[COLUMN[i]] | blocks[BLOCK[i]]) & bit:
            return []
        rows[ROW[i]] |= bit
        columns[COLUMN[i]] |= bit
        blocks[BLOCK[i]] |= bit
    board, found = list(cells), []
    empty = [i for i, digit in enumerate(cells) if not digit]

    def search() -> bool:
        if not empty:
            found.append(list(board))
            return len(found) == limit
        fewest, place, may = 10, 0, 0
        for k, i in enumerate(empty):
            free = ALL & ~(rows[ROW[i]] | columns[COLUMN[i]] | blocks[BLOCK[i]])
            if COUNT[free] < fewest:
                fewest, place, may = COUNT[free], k, free
                if fewest < 2:
                    break
        if not fewest:
            return False
        i, empty[place] = empty[place], empty[-1]
        empty.pop()
        units = (rows, ROW[i]), (columns, COLUMN[i]), (blocks, BLOCK[i])
        digits = DIGITS[may]
        for digit in digits if draws is None else draws.sample(digits, len(digits)):
            bit = 1 << digit
            board[i] = digit + 1
            for unit, index in units:
                unit[index] |= bit
            if search():
                return True
            for unit, index in units:
                unit[index] &= ~bit
        board[i] = 0
        empty.append(i)
        return False

    search()
    return found


def fingerprint(grid: Sequence[int]) -> tuple:
    """The same for all grids that a symmetry of the game makes of one another.

    Two rows are a permutation of the digits; how long its cycles are is known to no
    relabelling and to no order of columns. The lengths for all pairs of rows, sorted
    within a band, between two bands and over the bands, and those of columns, sorted.
    """
    square = [list(grid[first : first + 9]) for first in range(0, 81, 9)]
    turned = [list(column) for column in zip(*square, strict=True)]
    return tuple(sorted((_of_rows(square), _of_rows(turned))))


def _of_rows(square: list[list[int]]) -> tuple:
    groups: dict[tuple[int, int], list] = {}
    for i, j in itertools.combinations(range(9), 2):
        groups.setdefault((i // 3, j // 3), []).append(_cycles(square[i], square[j]))
    parts = [(a != b, tuple(sorted(found))) for (a, b), found in groups.items()]
    return tuple(sorted(parts))


def _cycles(first: list[int], second: list[int]) -> tuple[int, ...]:
    """The sorted lengths of the cycles of first[k] -> second[k]."""
    follows, lengths = dict(zip(first, second, strict=True)), []
    while follows:
        digit, length = next(iter(follows)), 0
        while digit in follows:
            digit, length = follows.pop(digit), length + 1
        lengths.append(length)
    return tuple(sorted(lengths))


def _as_bytes(sets: Sets) -> bytes:
    arrays = {f"{name}/{k}": v for name, part in sets.items() for k, v in part.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # each member with a checksum of its own
    return buffer.getvalue()


def _read(path: Path) -> Sets | None:
    """The sets of a file; None where there is none or it is damaged."""
    try:
        # From memory: NumPy leaves a damaged file open.
        content = io.BytesIO(path.read_bytes())
        with np.load(content, allow_pickle=False) as file:
            return {
                name: {part: file[f"{name}/{part}"] for part in ("puzzle", "solution")}
                for name in ("train", "val", "hard")
            }
    except FileNotFoundError:
        return None
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error):
        say(f"{path} is damaged: its puzzles are made anew")
        return None


def define(values: flags.FlagValues) -> None:
    for field in fields.declared(Settings):
        flags.DEFINE_integer(
            field.parameter, field.default, field.spec.meaning, flag_values=values
        )


def main(argv: list[str]) -> None:
    values = cli.parse(argv, define)
    settings = Settings(*(values[name].value for name in Settings._fields))
    sets = load(settings)
    for name, part in sets.items():
        givens = (part["puzzle"] > 0).sum((1, 2))
        say(f"{name}: {len(givens)} puzzles of {givens.min()} to {givens.max()} givens")
    say(str(cache_path(settings)))


if __name__ == "__main__":
    cli.run(main)
