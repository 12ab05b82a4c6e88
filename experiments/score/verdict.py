"""What an energy is worth, counted: who ranks first, is it right, what did it cost.

NumPy on the host. Answers are arrays [N, R], R to each of N rows.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from experiments.build import Experiment
from experiments.errors import UserError
from experiments.score import statistics
from experiments.score.statistics import Paired
from ired_jax.types import Energy, Tree

BINS = 10  # of the calibration, each of as many answers
GRADIENT = 3  # of the network, in units of its value


def judged(energy: np.ndarray, right: np.ndarray) -> dict:
    """{best, auroc, calibration} of energies and verdicts [N, R].

    The best of 1, 2, 4, .. and of all R answers, means over disjoint groups of them.
    """
    most = right.shape[1]
    counts = sorted({2**k for k in range(most.bit_length())} | {most})
    best = []
    for count in counts:
        errors = statistics.best_of(energy, 1.0 - right, count)
        best.append({"restarts": count, "first": statistics.summary(1 - errors.lowest)})
        best[-1]["any"] = statistics.summary(1 - errors.oracle)
    order = np.argsort(energy, axis=None, kind="stable")
    bins = [part for part in np.array_split(order, BINS) if len(part)]
    everything = statistics.auroc(energy.reshape(1, -1), right.reshape(1, -1))
    return {
        "best": best,
        "auroc": {
            "same x": statistics.summary(statistics.auroc(energy, right)),
            "any x": statistics.summary(everything),
        },
        "calibration": [
            {"energy": float(np.median(energy.flat[part])), "count": len(part)}
            | {"right": float(np.mean(right.flat[part]))}
            for part in bins
        ],
    }


def refuse_shares(right: np.ndarray, directory: Path, metric: str) -> None:
    """Raises UserError for what is neither 0 nor 1 of an answer."""
    if not np.all((right == 0) | (right == 1)):
        said = "must be 0 or 1 of an answer, right or wrong"
        raise UserError(f"--runs={directory}: {metric} {said}")


def are_alike(answers: Sequence[Tree]) -> bool:
    """Whether several answers to each row are the same to the bit: leaves [N, ...]."""
    first, *others = ([*map(np.asarray, jax.tree.leaves(tree))] for tree in answers)
    return bool(others) and all(
        np.array_equal(leaf, of_first, equal_nan=True)
        for other in others
        for leaf, of_first in zip(other, first, strict=True)
    )


def alike_text(runs: Mapping[str, dict]) -> str:
    """A line for each run and split where all answers to an x are one; "" without."""
    said = "answers to each x are the same, start noise does not reach them"
    return "\n".join(
        f"{name}, {split}: all {of_split['best'][-1]['restarts']} {said}"
        for name, run in runs.items()
        for split, of_split in run["splits"].items()
        if of_split.get("alike") is True  # of some seeds alone it is a share
    )


def merged(of_seeds: list):
    """Figures of several seeds as their mean, its error over seeds, and each of them.

    Of a single seed the figures as they are, their errors over rows.
    """
    first = of_seeds[0]
    if len(of_seeds) == 1:
        return first
    if isinstance(first, dict) and "mean" in first:
        means = [np.nan if v["mean"] is None else v["mean"] for v in of_seeds]
        return statistics.summary(np.array(means)) | {"each": means}
    if isinstance(first, dict):
        return {name: merged([values[name] for values in of_seeds]) for name in first}
    if isinstance(first, list):
        return [merged(list(values)) for values in zip(*of_seeds, strict=True)]
    same = all(value == first for value in of_seeds)  # a count, not a figure
    return first if same else float(np.mean(of_seeds))


def evaluations(experiment: Experiment) -> int:
    """Rounds of the network that one answer takes, gradients counted as three.

    Raises:
      UserError: the energy has no network that is applied in rounds.
    """
    energy = experiment.energy.answering
    if energy is None:
        raise UserError("energy.name: has no rounds to count")
    how, search = experiment.inference, experiment.search
    rounds, ranked = sum(energy.rounds), 0
    if search is not None:
        rounds += search.moves * sum(energy.rounds[: search.move.level + 1])
        ranked = (1 + search.moves) * _ranking(energy)
    start = 1 if energy.denoise is not None else GRADIENT
    return rounds * (start + GRADIENT * how.num_steps) + ranked


def ranking(experiment: Experiment) -> int:
    """Rounds of the network that it takes to rank an answer: a search has done it."""
    energy = experiment.energy.answering
    return 0 if energy is None or experiment.search else _ranking(energy)


def _ranking(energy: Energy) -> int:
    """An answer's energy takes a level's rounds, its doubt none."""
    return 0 if energy.score is not None else energy.rounds[0]


def cost(experiment: Experiment, restarts: int) -> int:
    """Rounds of the network that so many answers take, ranked if there are several."""
    rank = ranking(experiment) if restarts > 1 else 0
    return restarts * (evaluations(experiment) + rank)


def affordable(experiment: Experiment, work: int) -> int:
    """The most answers that so many rounds of the network pay for, see `cost`.

    Raises:
      UserError: not one.
    """
    one = evaluations(experiment)
    if work < one:
        raise UserError(f"--work={work}: an answer alone takes {one} rounds")
    return max(1, work // (one + ranking(experiment)))


def beside(runs: Mapping[str, dict], split: str) -> dict[str, Paired | None]:
    """{other run: its share right less the first run's}.

    Of the answer that ranks first among all of a row, paired over the seeds that both
    runs have; None where they share under two.

    Args:
      runs: {name: {seeds, splits}}, see `experiments.judge.score_run`.
      split: one that the first run has.
    """

    def shares(run: dict) -> dict[int, float]:
        value = run["splits"][split]["best"][-1]["first"]
        return dict(zip(run["seeds"], value.get("each", [value["mean"]]), strict=True))

    (_, first), *others = runs.items()
    return {
        name: statistics.paired(shares(run), shares(first), is_ratio=False)
        for name, run in others
        if split in run["splits"]
    }
