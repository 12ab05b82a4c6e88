"""A chain over whole answers: change one, and keep it by the energy.

What a level leaves wrong it seldom mends itself. A move makes another answer of the one
at hand, by noise of a level and its removal, much of it as before, or by an assumption:
a doubtful part of it is taken as known and all else is answered anew. A right one makes
the rest easier; a wrong one ends high in energy, which is of the question as it was.
Metropolis' rule over such moves improves an answer instead of beginning anew, and the
best one is never lost.

Source: Metropolis et al., J. Chem. Phys. 21 (1953), eq. 3.
"""

from collections.abc import Callable
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from ired_jax import trees
from ired_jax.fields import Choice, Field
from ired_jax.types import Array, Tree, refuse_negative, refuse_no_count


class SearchInfo(NamedTuple):
    """What a person needs of one chain."""

    energy: Array  # () of the best answer
    acceptance: Array  # () share of accepted moves
    last: Tree  # where the chain stands


class Move(NamedTuple):
    """What makes another answer: it begins at `level`, at noise alone if that is T-1.

    `assume`, (key, x, y) -> x, is what it puts for the question; None: the question.
    """

    level: int
    assume: Callable[[Array, Tree, Tree], Tree] | None = None


class Search(NamedTuple):
    """A chain over answers after inference."""

    moves: int
    move: Move
    temperature: float


def make_noise_move(
    num_levels: int,
    *,
    move_level: Annotated[
        int, Field("whose noise a move puts on an answer", at_least=0)
    ] = 1,
) -> Move:
    """Noise of a level on the answer, and its removal.

    Raises:
      ValueError: a level that there is not.
    """
    if move_level >= num_levels:
        raise ValueError(
            f"eval.move_level={move_level}: must be below diffusion.num_levels="
            f"{num_levels}"
        )
    return Move(move_level)


def make_assumption(
    num_levels: int, assume: Callable[[Array, Tree, Tree], Tree] | None
) -> Move:
    """A part of the answer taken as known, and the rest answered anew.

    Raises:
      ValueError: no part of the task's answers can be.
    """
    if assume is None:
        raise ValueError(
            "eval.move='assumption': must be noise, the task does not say what part of"
            " an answer may be taken as known"
        )
    return Move(num_levels - 1, assume)


MOVE = Choice(
    {"noise": make_noise_move, "assumption": make_assumption},
    Field("how a move makes another answer", group="eval"),
    "eval",
    "noise",
)


def make_search(
    moves: int,
    *,
    move: Annotated[Move, MOVE],
    move_temperature: Annotated[
        float, Field("of the chain, in units of E; 0: only falls", at_least=0)
    ] = 0.0,
) -> Search:
    """What a search is made of."""
    return Search(moves, move, move_temperature)


def metropolis(
    key: Array,
    energy_fn: Callable[[Tree], Array],
    move: Callable[[Array, Tree], Tree],
    y: Tree,
    *,
    num_moves: int,
    temperature: Array | float,
) -> tuple[Tree, SearchInfo]:
    """The answer of least energy that the chain has been at.

    y' = move(key, y) is accepted with probability min(1, exp(-(E' - E) / temperature)).
    Where moves are symmetric the law of the chain is exp(-E / temperature); whatever
    they are, the best answer's energy is at most that of the start. NaN counts as +inf:
    a move to it is refused, a start there is left for any energy below +inf.

    Args:
      key: PRNG key; each move has its own.
      energy_fn: y -> ().
      move: (key, y) -> y'.
      y: the start.
      num_moves: static.
      temperature: in units of E; 0: y' is taken only where E falls.

    Raises:
      ValueError: num_moves or temperature below 0.
    """
    refuse_no_count(num_moves=num_moves)
    refuse_negative(temperature=temperature)

    def step(carry, index):
        (y, energy), best, count = carry
        key_move, key_coin = jax.random.split(jax.random.fold_in(key, index))
        new = move(key_move, y)
        new = new, energy_fn(new)
        # -T log u > E' - E; with T = 0, E' < E.
        least = jnp.finfo(energy.dtype).tiny  # no 0, whose logarithm times T = 0 is NaN
        heat = -jnp.log(jax.random.uniform(key_coin, (), energy.dtype, least))
        accepted = new[1] - energy < temperature * heat
        now = trees.where(accepted, new, (y, energy))
        best = trees.where(now[1] < best[1], now, best)
        return (now, best, count + accepted), None

    energy = energy_fn(y)
    start = y, jnp.where(jnp.isnan(energy), jnp.inf, energy)
    carry = start, start, jnp.zeros((), start[1].dtype)
    (now, best, count), _ = jax.lax.scan(step, carry, jnp.arange(num_moves))
    last, share = now[0], count / max(num_moves, 1)
    return best[0], SearchInfo(best[1], share, last)
