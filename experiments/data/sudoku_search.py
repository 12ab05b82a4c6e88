"""Solved grids at random, puzzles of one solution, and all solutions of a board.

    python -m experiments.data.sudoku_search STREAM LEAST MOST FIRST COUNT

prints puzzles FIRST to FIRST + COUNT - 1 of a stream, a line `puzzle solution` each: a
process of its own imports nothing but this file. Boards are 81 digits, 0 where empty.
"""

import itertools
import random
import sys
from collections.abc import Sequence

ALL = 0b111_111_111
COUNT = [bits.bit_count() for bits in range(512)]
DIGITS = [[d for d in range(9) if bits >> d & 1] for bits in range(512)]
NUMBER = {1 << digit: digit + 1 for digit in range(9)}
# Of each cell its row, column and block, numbered from 0 to 26.
UNITS = [(i // 9, 9 + i % 9, 18 + i // 27 * 3 + i % 9 // 3) for i in range(81)]


def make_puzzle(
    stream: str, givens: tuple[int, int], index: int
) -> tuple[list[int], list[int]]:
    """Puzzle `index` of a stream and its only solution, 81 digits each.

    The number of givens is within `givens`. All follows from the arguments.
    """
    draws = random.Random(f"{stream} {index}")
    while True:
        grid = random_grid(draws)
        puzzle = dig(grid, draws.randint(*givens), draws)
        if givens[0] <= 81 - puzzle.count(0) <= givens[1]:
            return puzzle, grid


def random_grid(draws: random.Random) -> list[int]:
    """A solved grid of 81 digits: the diagonal's blocks at random, then a search."""
    cells = [0] * 81
    for block in (18, 22, 26):
        digits = draws.sample(range(1, 10), 9)
        for i in range(81):
            if UNITS[i][2] == block:
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


class TooLong(Exception):
    """A search gave up: what it found is not all there is."""


def solutions(
    cells: Sequence[int],
    limit: int,
    draws: random.Random | None = None,
    *,
    most_tries: float = float("inf"),
) -> list[list[int]]:
    """Up to `limit` solutions of 81 digits, 0 where empty; [] if givens contradict.

    Cells with one candidate are filled, then digits with one place in a unit; else the
    cell with the fewest candidates is tried, its digits in order or as drawn.

    Raises:
      TooLong: after that many tries. A board may be none for reasons that no search as
        plain as this one sees.
    """
    used = [0] * 27  # of each row, column and block: a bit for each digit it has
    for i, digit in enumerate(cells):
        bit, (row, column, block) = 1 << digit >> 1, UNITS[i]
        if (used[row] | used[column] | used[block]) & bit:
            return []
        used[row] |= bit
        used[column] |= bit
        used[block] |= bit
    found: list[list[int]] = []
    tries = itertools.count(1)

    def search(board: list[int], used: list[int], empty: list[int]) -> bool:
        if next(tries) > most_tries:
            raise TooLong
        # Hidden digits save guesses where there are few ways, and cost where many.
        if (left := _fill(board, used, empty, with_hidden=draws is None)) is None:
            return False
        if not left:
            found.append(board)
            return len(found) == limit
        i, free = min(left, key=lambda cell: COUNT[cell[1]])
        row, column, block = UNITS[i]
        rest = [k for k, _ in left if k != i]
        digits = DIGITS[free]
        for digit in digits if draws is None else draws.sample(digits, len(digits)):
            after, seen, bit = list(board), list(used), 1 << digit
            after[i] = digit + 1
            seen[row] |= bit
            seen[column] |= bit
            seen[block] |= bit
            if search(after, seen, rest):
                return True
        return False

    search(list(cells), used, [i for i, digit in enumerate(cells) if not digit])
    return found


def _fill(
    board: list[int], used: list[int], empty: list[int], *, with_hidden: bool
) -> list[tuple[int, int]] | None:
    """Fills in place what has one choice; the cells left and the bits of their digits.

    None where a cell or a digit has no choice.
    """
    while True:
        left = []
        for i in empty:
            row, column, block = UNITS[i]
            free = ALL & ~(used[row] | used[column] | used[block])
            if free & (free - 1):
                left.append((i, free))
                continue
            if not free:
                return None
            board[i] = NUMBER[free]
            used[row] |= free
            used[column] |= free
            used[block] |= free
        if len(left) == len(empty):
            found = with_hidden and _hidden(board, used, left)
            if not found:
                return None if found is None else left
        empty = [i for i, _ in left if not board[i]]


def _hidden(
    board: list[int], used: list[int], left: list[tuple[int, int]]
) -> bool | None:
    """Fills in place the digits with one place in a unit: whether there was one.

    None where a digit has none. The bits of `left` must be those of `used`.
    """
    once, twice, is_found = list(used), [0] * 27, False
    for i, free in left:
        for unit in UNITS[i]:
            twice[unit] |= once[unit] & free
            once[unit] |= free
    if once.count(ALL) < 27:
        return None
    for i, free in left:
        row, column, block = UNITS[i]
        single = free & ~(twice[row] & twice[column] & twice[block])
        if not single:
            continue
        if single & (single - 1) or single & (used[row] | used[column] | used[block]):
            return None  # two digits want the cell, or two cells the digit
        board[i], is_found = NUMBER[single], True
        used[row] |= single
        used[column] |= single
        used[block] |= single
    return is_found


def main(argv: Sequence[str]) -> None:
    stream, *numbers = argv
    least, most, first, count = map(int, numbers)
    for index in range(first, first + count):
        parts = make_puzzle(stream, (least, most), index)
        print(*("".join(map(str, part)) for part in parts))


if __name__ == "__main__":
    main(sys.argv[1:])
