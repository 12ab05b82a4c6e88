"""Starting again, only for the inputs whose answers are not yet right."""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from ired_jax.types import Params, Tree


def until_right(
    solve: Callable,
    params: Params,
    x: Tree,
    index: np.ndarray,
    restarts: Sequence[int],
    is_right: Callable[[Tree, Tree], bool | None],
    block: int = 256,
    first: Callable | None = None,
) -> tuple[Tree, np.ndarray, np.ndarray]:
    """Of each row the first right answer, else the one of least energy.

    A row is started again until an answer is right by the check, at most once for each
    of `restarts`. All blocks have one size, so that nothing is compiled anew as rows
    become fewer; the places that they leave are for further restarts of those rows.

    Args:
      solve: of `experiments.score.solver`.
      params, x, index: x with leaves [B, ...]; index [B] is what start noise goes by.
      restarts: the numbers of the start noises.
      is_right: (x, y) of one row -> whether it is; None counts as not.
      block: rows that are solved together.
      first: the same without a search, for one answer to each row before all others:
        most need no search.

    Returns:
      y_0 (leaves [B, ...], NumPy), energy [B], steps [B] of all starts of a row up to
      the one that is right.
    """

    def on(solve: Callable, rows: np.ndarray, restarts: np.ndarray) -> tuple:
        parts = []
        for at in range(0, len(rows), block):
            take = np.minimum(np.arange(at, at + block), len(rows) - 1)
            picked = jax.tree.map(lambda leaf, row=rows[take]: leaf[row], x)
            y, info = solve(params, picked, index[rows[take]], restarts[take])
            found = y, info.energy, np.sum(info.steps, axis=1)
            parts.append(jax.tree.map(np.asarray, found))
        whole = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
        return jax.tree.map(lambda leaf: leaf[: len(rows)], whole)

    kept = None
    energy = np.full(len(index), np.nan, np.float32)
    steps = np.zeros(len(index), int)
    is_going, left = np.ones(len(index), bool), list(restarts)

    def attempt(solve: Callable, now: Sequence[int]) -> None:
        nonlocal kept
        rows = np.flatnonzero(is_going)
        found = on(solve, np.tile(rows, len(now)), np.repeat(now, len(rows)))
        if kept is None:
            kept = jax.tree.map(lambda leaf: np.array(leaf[: len(index)]), found[0])
        for place, row in enumerate(np.tile(rows, len(now)).tolist()):
            if not is_going[row]:
                continue  # right already, by a restart before this one
            y, new, more = row_of(found, place)
            steps[row] += more
            is_right_now = is_right(row_of(x, row), y) is True
            if is_right_now or new < energy[row] or np.isnan(energy[row]):
                energy[row] = new
                jax.tree.map(lambda old, leaf, row=row: _put(old, row, leaf), kept, y)
            is_going[row] = not is_right_now

    if first is not None:
        attempt(first, left[:1])
    while is_going.any() and left:
        count = max(1, block // np.count_nonzero(is_going))
        now, left = left[:count], left[count:]
        attempt(solve, now)
    return kept, energy, steps


def row_of(tree: Tree, row: int) -> Tree:
    """One row [...] of leaves [B, ...]."""
    return jax.tree.map(lambda leaf: leaf[row], tree)


def _put(array: np.ndarray, row: int, value: np.ndarray) -> None:
    array[row] = value
