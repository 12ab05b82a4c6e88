"""Which solved grids are one grid in another of the game's 9! 2 6^8 symmetries.

They are relabelling, transposition, and orders of bands, stacks, rows in a band and
columns in a stack. Equal `canonical` forms: the same class, exactly. Different
`fingerprints`: different classes; thousands a second, for the first sieve.
"""

import itertools
import random
from collections.abc import Sequence

import numpy as np

ORDERS = list(itertools.permutations(range(3)))
# All 6^4 orders of nine lines that keep bands together, and where each line goes.
LINES = np.array(
    [
        [3 * band + line for band, lines in zip(bands, within, strict=True)
         for line in lines]
        for bands in ORDERS
        for within in itertools.product(ORDERS, repeat=3)
    ]
)  # fmt: skip
PLACES = np.argsort(LINES, axis=1)
PAIRS = np.array(list(itertools.combinations(range(9), 2)))
IN_BAND = [np.flatnonzero(np.equal(PAIRS // 3, i).all(1)) for i in range(3)]
BETWEEN = [
    np.flatnonzero(np.equal(PAIRS // 3, pair).all(1))
    for pair in ((0, 1), (0, 2), (1, 2))
]
ROWS_AT_ONCE = 4_096


class Classes:
    """Solved grids, each standing for all that the symmetries make of it."""

    def __init__(self) -> None:
        self._grids: dict[bytes, list[np.ndarray]] = {}

    def add(self, grids: np.ndarray) -> None:
        """Grids [N, 9, 9]."""
        for found, grid in zip(fingerprints(grids), grids, strict=True):
            self._grids.setdefault(found, []).append(grid)

    def hold(self, grids: np.ndarray) -> np.ndarray:
        """Whether a grid of the same class has been added: [N] bool."""

        def is_held(found: bytes, grid: np.ndarray) -> bool:
            alike = self._grids.get(found, ())
            return bool(alike) and canonical(grid) in map(canonical, alike)

        pairs = zip(fingerprints(grids), grids, strict=True)
        return np.array([is_held(*pair) for pair in pairs], bool)


def random_symmetry(draws: random.Random):
    """One of the symmetries: a function of digits [..., 9, 9] int8, 0 stays 0."""
    rows, columns = (LINES[draws.randrange(len(LINES))] for _ in range(2))
    digits = np.array([0, *draws.sample(range(1, 10), 9)], np.int8)
    is_turned = draws.random() < 0.5

    def move(board: np.ndarray) -> np.ndarray:
        board = np.swapaxes(board, -1, -2) if is_turned else board
        return digits[board[..., rows, :][..., columns]]

    return move


def canonical(grid: np.ndarray) -> bytes:
    """The least of all that symmetries make of a solved grid [9, 9]: 81 bytes, 1 to 9.

    The first two rows of the least form, an order of columns and which way the grid
    lies fix all else: digits are named by the first row, the rows of each other band
    follow their first digit, and so do these bands.
    """
    both = np.stack([grid, grid.T]).astype(int) - 1
    band, first, second = np.array(
        [(3 * b, 3 * b + i, 3 * b + j)
         for b in range(3) for i, j, _ in ORDERS]
    ).T  # fmt: skip
    turn, choice = np.divmod(np.arange(2 * len(band)), len(band))
    where = np.argsort(both, axis=2)  # the column of each digit in each row
    # The column of the first row that holds the second row's digit, of each column.
    follows = np.take_along_axis(
        where[turn, first[choice]], both[turn, second[choice]], axis=1
    )
    columns = np.arange(len(LINES))[None, :, None]
    rows = PLACES[columns, follows[:, LINES]]  # [36, 1296, 9], the second row
    number = rows @ 9 ** np.arange(8, -1, -1)
    best, order = np.nonzero(number == number.min())
    forms = [
        _completed(both[turn[k]][:, LINES[o]], *(a[choice[k]] for a in (first, second)))
        for k, o in zip(best, order, strict=True)
    ]
    return min(forms)


def _completed(grid: np.ndarray, first: int, second: int) -> bytes:
    """The grid with its digits named and its rows in order, its first two known."""
    grid = (1 + np.argsort(grid[first]))[grid].astype(np.uint8)
    band = first // 3
    third = 9 * band + 3 - first - second
    above, below = sorted(
        sorted(grid[3 * b : 3 * b + 3].tolist()) for b in range(3) if b != band
    )
    rows = [*grid[[first, second, third]].tolist(), *above, *below]
    return bytes(itertools.chain.from_iterable(rows))


def fingerprints(grids: np.ndarray) -> list[bytes]:
    """Of solved grids [N, 9, 9] what no symmetry changes, 48 bytes each.

    Two rows are a permutation of the digits; how long its cycles are is known to no
    relabelling and to no order of columns. The lengths for all pairs of rows, sorted
    within a band, between two bands and over the bands, and those of columns, sorted.
    """
    found = []
    for at in range(0, len(grids), ROWS_AT_ONCE):
        part = grids[at : at + ROWS_AT_ONCE].astype(np.int8) - 1
        sides = np.stack([_of_rows(part), _of_rows(np.swapaxes(part, 1, 2))], axis=1)
        is_later = [tuple(a) > tuple(b) for a, b in sides.tolist()]
        sides[is_later] = sides[is_later, ::-1]
        found += [side.tobytes() for side in sides.astype(np.int32)]
    return found


def _of_rows(grids: np.ndarray) -> np.ndarray:
    """Digits [N, 9, 9], 0 to 8 -> a number for each of six pairs of bands, [N, 6]."""
    kinds = _cycles(grids[:, PAIRS[:, 0]], grids[:, PAIRS[:, 1]])

    def numbers(groups: Sequence[np.ndarray]) -> np.ndarray:
        of_group = [np.sort(kinds[:, group], 1) for group in groups]
        return np.sort([g @ 8 ** np.arange(g.shape[1]) for g in of_group], axis=0).T

    return np.concatenate([numbers(IN_BAND), numbers(BETWEEN)], axis=1)


def _cycles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Which of the 8 partitions of nine the cycles of first -> second have: [...].

    How many digits are back after two, three and four turns tells them apart.
    """
    to = np.take_along_axis(second, np.argsort(first, -1), -1)
    digits, at, back = np.arange(9), to, []
    for _ in range(3):
        at = np.take_along_axis(to, at.astype(int), -1)
        back.append((at == digits).sum(-1))
    codes = np.zeros((7, 10, 7), int)
    for number, partition in enumerate(_PARTITIONS):
        codes[partition] = number
    return codes[tuple(back)]


# 9, 7 + 2, 6 + 3, 5 + 4, 5 + 2 + 2, 4 + 3 + 2, 3 + 3 + 3, 3 + 2 + 2 + 2
_PARTITIONS = [
    *((0, 0, 0), (2, 0, 2), (0, 3, 0), (0, 0, 4)),
    *((4, 0, 4), (2, 3, 6), (0, 9, 0), (6, 3, 6)),
]
