"""A trained Sudoku energy takes another rule at inference: nothing is trained.

    python -m experiments.train --config=configs/sudoku.py:cpu --workdir=runs/sudoku \
        --config.eval.first_rounds=0
    python -m examples.diagonals --workdir=runs/sudoku

In an X-Sudoku both diagonals, too, have each digit once. The rule is an energy of its
own, and energies add. Each puzzle has one solution that obeys it, but as an ordinary
Sudoku 2 to 50: the trained energy alone cannot know which is meant.
"""

import argparse
import random
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import ired_jax as ij
from experiments.data.sudoku_search import TooLong, solutions
from experiments.score import trained
from ired_jax import boxes, diffusion
from ired_jax.tasks import sudoku

DIAGONALS = [10 * i for i in range(9)], [8 * i + 8 for i in range(9)]  # of 81 cells
MOST_SOLUTIONS, LEAST_GIVENS = 50, 24
ANSWERS = 16  # to each puzzle, from other noise
# Levels, and whether the rule guides; both apply F four times to each answer.
WAYS = {"plain": ((3, 2, 1, 0), False), "guided": ((3, 1, 1, 0), True)}
WEIGHT = 1.0  # of the rule in the sum of energies


# --- the rule ----------------------------------------------------------------------


def rule(y0):
    """How far y_0 [9, 9, 9] is from the rule: (), 0 exactly where it is obeyed.

    The sum over diagonals and digits of (sum of p along the diagonal - 1)^2, with
    p = (1 + y_0) / 2.
    """
    p = (1 + y0.reshape(81, 9)) / 2
    return jnp.sum((p[jnp.array(DIAGONALS)].sum(1) - 1) ** 2)


def with_rule(energy: ij.Energy, schedule: ij.Schedule, weight: float) -> ij.Energy:
    """E(x, y, t) + weight rule(y / a_t): of the same parameters."""

    def apply(params, x, y, t):
        return energy(params, x, y, t) + weight * rule(y / schedule.a[t])

    return ij.Energy(energy.init, apply)


def guide(p, pull: float = 5.0, rate: float = 0.1, num_steps: int = 60):
    """Distributions q [9, 9, 9] near p that nearly obey the rule.

    Mirror descent from q = p on KL(q || p) + pull rule(2 q - 1).
    """
    log_p = jnp.log(jnp.maximum(p, 1e-3))

    def step(_, log_q):
        slope = jax.grad(lambda q: rule(2 * q - 1))(jax.nn.softmax(log_q))
        return (1 - rate) * log_q + rate * (log_p - pull * slope)

    return jax.nn.softmax(jax.lax.fori_loop(0, num_steps, step, log_p))


# --- inference ---------------------------------------------------------------------


def answer(energy, schedule, params, key, x, *, levels, is_guided):
    """`ANSWERS` answers y_0 to one puzzle, [ANSWERS, 9, 9, 9].

    At each level noise is put on y_0 and F removes it. Guided, what is handed over is
    the same for all: the mean of the answers, each with the weight exp(-rule / 2), as
    distributions over digits, guided. Other noise makes them differ again.
    """
    box = sudoku.box_of(x)
    denoise = jax.vmap(energy.denoise, (None, None, 0, None))

    def at_level(y0, t_and_index):
        t, index = t_and_index
        eps = jax.random.normal(jax.random.fold_in(key, index), y0.shape)
        y = diffusion.q_sample(schedule, y0, t, eps)
        bounds = boxes.scale(box, schedule.a[t])
        found = denoise(params, x, jax.vmap(partial(boxes.hold, bounds))(y), t)
        weights = jax.nn.softmax(-jax.vmap(rule)(found) / 2)
        q = guide((1 + jnp.tensordot(weights, found, 1)) / 2)
        return jnp.where(is_guided, (2 * q - 1)[None], found), found

    start = jnp.zeros((ANSWERS, 9, 9, 9))
    steps = jnp.asarray(levels), jnp.arange(len(levels))
    return jax.lax.scan(at_level, start, steps)[1][-1]


def judge(energy, schedule, params, x, y0):
    """(right by all rules, right as an ordinary Sudoku, E, E + WEIGHT rule)."""
    board = sudoku.encode(sudoku.decode(y0))
    is_board = sudoku.broken_rules(x, board) == 0

    def of(weight):
        total = with_rule(energy, schedule, weight)
        return total(params, x, schedule.a[0] * board, jnp.int32(0))

    own, total = jax.vmap(of)(jnp.array([0.0, WEIGHT]))
    return is_board & (rule(board) == 0), is_board, own, total


# --- puzzles -----------------------------------------------------------------------


def obeys(cells: list[int]) -> bool:
    return all(len({cells[i] for i in diagonal}) == 9 for diagonal in DIAGONALS)


def random_grid(draws: random.Random) -> list[int]:
    """A solved grid whose diagonals obey the rule: they first, then a search."""
    while True:
        cells = [0] * 81
        for diagonal in DIAGONALS:
            for i, digit in zip(diagonal, draws.sample(range(1, 10), 9), strict=True):
                cells[i] = digit
        if not obeys(cells):  # the cell in the middle
            continue
        try:
            found = solutions(cells, 1, draws, most_tries=2_000)
        except TooLong:
            continue
        if found:
            return found[0]


def make_puzzle(seed: int) -> tuple[list[int], int]:
    """81 digits, 0 where empty, with one solution by all rules, and how many without.

    Cells are emptied one by one while that holds and the ordinary solutions are at most
    a drawn number.
    """
    draws = random.Random(seed)
    while True:
        cells, most = random_grid(draws), draws.randint(2, MOST_SOLUTIONS)
        count, givens = 1, draws.randint(LEAST_GIVENS, LEAST_GIVENS + 6)
        for i in draws.sample(range(81), 81):
            tried = [*cells[:i], 0, *cells[i + 1 :]]
            found = solutions(tried, most + 1)
            if len(found) <= most and sum(map(obeys, found)) == 1:
                cells, count = tried, len(found)
            if 81 - cells.count(0) == givens:
                break
        if count > 1:
            return cells, count


# --- figures -----------------------------------------------------------------------


def judge_all(model: trained.Trained, puzzles) -> dict[str, list[np.ndarray]]:
    """{way: `judge` of all answers to N puzzles, [N, ANSWERS] each}."""
    experiment = model.experiment
    fixed = experiment.energy.answering, experiment.schedule, model.params

    def one(levels, is_guided, row):
        key = jax.random.fold_in(jax.random.key(0), row[1])
        how = {"levels": levels, "is_guided": is_guided}
        y0 = answer(*fixed, key, row[0], **how)
        return jax.vmap(partial(judge, *fixed, row[0]))(y0)

    @jax.jit  # once for both ways
    def run(rows, levels, is_guided):
        return jax.lax.map(partial(one, levels, is_guided), rows)

    rows = puzzles, np.arange(len(puzzles))
    return {
        name: [np.asarray(part) for part in run(rows, np.array(levels), is_guided)]
        for name, (levels, is_guided) in WAYS.items()
    }


def figures(model: trained.Trained, puzzles) -> dict[str, tuple]:
    """Right by all rules, of each puzzle: {way: (mean of all answers, the chosen)}."""
    found, at = {}, np.arange(len(puzzles))
    for way, (right, _, own, total) in judge_all(model, puzzles).items():
        for chooser, energy in (("energy alone", own), ("sum", total)):
            chosen = right[at, energy.argmin(1)]
            found[f"{way}, by {chooser}"] = right.mean(1), chosen
        found[f"{way}, any right"] = right.mean(1), right.any(1)
    return found


def main(argv: list[str] | None = None) -> dict[str, tuple]:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workdir", required=True, help="of a trained Sudoku energy")
    parser.add_argument("--num_puzzles", type=int, default=64)
    options = parser.parse_args(argv)
    model = trained.load(options.workdir)
    levels = {level for of_way, _ in WAYS.values() for level in of_way}
    is_sudoku = model.config.task.name == "sudoku" and model.experiment.energy.answering
    if not is_sudoku or len(model.experiment.schedule.a) <= max(levels):
        said = f"must be of a Sudoku energy of {1 + max(levels)} levels"
        parser.error(f"--workdir={options.workdir}: {said}")
    made = [make_puzzle(seed) for seed in range(options.num_puzzles)]
    puzzles = np.array([cells for cells, _ in made], np.int8).reshape(-1, 9, 9)
    count = np.array([count for _, count in made])
    quartiles = np.percentile(count, [0, 25, 50, 75, 100])
    print("ordinary solutions, quartiles:", *quartiles)
    print("givens, mean:", np.mean(np.sum(puzzles > 0, (1, 2))))
    print(f"an ordinary solution at random: {np.mean(1 / count):.3f}")
    found = figures(model, puzzles)
    print(f"{'boards right':>24}  one answer       chosen of {ANSWERS}")
    for name, parts in found.items():
        error = [np.std(part, ddof=1) / len(part) ** 0.5 for part in parts]
        (one, one_error), (chosen, chosen_error) = zip(
            map(np.mean, parts), error, strict=True
        )
        print(f"{name:>24}  {one:.3f} +- {one_error:.3f}", end="")
        print(f"  {chosen:.3f} +- {chosen_error:.3f}")
    return found


if __name__ == "__main__":
    main()
