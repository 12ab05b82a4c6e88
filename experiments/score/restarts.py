"""Starting again, only for the inputs whose answers are not yet right."""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from experiments.score.solver import lowest_of
from ired_jax.types import Params, Tree


def until_right(
    solve: Callable,
    params: Params,
    x: Tree,
    index: np.ndarray,
    restarts: Sequence[int],
    is_right: Callable[[Tree, Tree], bool | None],
    block: int = 256,
) -> tuple[Tree, np.ndarray, np.ndarray]:
    """Of each row the first right answer, else the one of least energy.

    A row is started again until an answer is right by the check, at most once for each
    of `restarts`. Rows that go on are solved in blocks of one size, the last filled up
    with copies: nothing is compiled anew as they become fewer.

    Args:
      solve: of `experiments.score.solver`.
      params, x, index: x with leaves [B, ...]; index [B] is what start noise goes by.
      restarts: the numbers of the start noises.
      is_right: (x, y) of one row -> whether it is; None counts as not.
      block: rows that are solved together.

    Returns:
      y_0 (leaves [B, ...], NumPy), energy [B], steps [B] of all starts of a row.
    """
    first, *others = restarts
    size = min(len(index), block)

    def on(rows: np.ndarray, restart: int) -> tuple:
        take = np.append(rows, np.full(-len(rows) % size, rows[-1]))
        parts = []
        for at in range(0, len(take), size):
            block = take[at : at + size]
            picked = jax.tree.map(lambda leaf, b=block: leaf[b], x)
            part = lowest_of(solve, params, picked, index[block], [restart])
            parts.append(jax.tree.map(np.asarray, part))
        whole = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
        return jax.tree.map(lambda leaf: leaf[: len(rows)], whole)

    def checked(rows: np.ndarray, y: Tree) -> np.ndarray:
        pairs = (
            (_row(x, row), _row(y, place)) for place, row in enumerate(rows.tolist())
        )
        return np.array([is_right(*pair) is True for pair in pairs], bool)

    going = np.arange(len(index))
    y, energy, steps = on(going, first)
    going = going[~checked(going, y)]
    for restart in others:
        if not len(going):
            break
        new, new_energy, more = on(going, restart)
        steps[going] += more
        is_good, old = checked(going, new), energy[going]
        is_better = is_good | (new_energy < old) | np.isnan(old)
        better = going[is_better]
        energy[better] = new_energy[is_better]
        for leaf, other in zip(*map(jax.tree.leaves, (y, new)), strict=True):
            leaf[better] = other[is_better]
        going = going[~is_good]
    return y, energy, steps


def _row(tree: Tree, row: int) -> Tree:
    return jax.tree.map(lambda leaf: leaf[row], tree)
