"""What is said of a sample: means with errors, rankings, the best of several answers.

NumPy on the host, float64. Energies are comparable only at the same x and level, so
every ranking is taken over the candidates of one row and then averaged over rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy  # not scipy.stats: half a second, where it is needed

Summary = dict[str, float | int | None]


class BestOf(NamedTuple):
    """Errors with some number of answers to choose from: [N], one for each x."""

    lowest: np.ndarray  # of the answer of lowest energy
    random: np.ndarray  # of one of them, whichever
    oracle: np.ndarray  # of the best of them


class Paired(NamedTuple):
    """A sample beside another of the same seeds: 95 %, of a paired t-test."""

    middle: float  # ratio of geometric means, or difference of means
    low: float
    high: float
    p: float
    count: int  # shared seeds


def summary(values: np.ndarray) -> Summary:
    """Mean and standard error of the finite values [N], and how many are finite.

    A value that is not defined (NaN) is left out; without any, the mean is None.
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    count = len(values)
    return {
        "mean": float(values.mean()) if count else None,
        "stderr": float(values.std(ddof=1) / count**0.5) if count > 1 else None,
        "count": count,
    }


def root_summary(squares: np.ndarray) -> Summary:
    """`summary` of squares [N] as a root mean square; d sqrt(m) = dm / (2 sqrt(m))."""
    of_squares = summary(squares)
    mean, stderr = of_squares["mean"], of_squares["stderr"]
    root = None if mean is None else mean**0.5
    return {
        "mean": root,
        "stderr": stderr / (2 * root) if stderr is not None and root else None,
        "count": of_squares["count"],
    }


def quartiles(values: np.ndarray) -> dict[str, float | None]:
    """Median and quartiles of the finite values."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    levels = {"low": 0.25, "median": 0.5, "high": 0.75}
    return {
        name: float(np.quantile(values, level)) if len(values) else None
        for name, level in levels.items()
    }


def interval(values: Iterable[float]) -> tuple[float, float]:
    """Mean over seeds, and half the 95 % t-interval."""
    sample = np.array(list(values))
    scale = sample.std(ddof=1) / len(sample) ** 0.5
    return sample.mean(), quantile(len(sample)) * scale


def quantile(count: int) -> float:
    """Standard errors in half a 95 % interval over seeds (t); of one seed over rows."""
    return float(scipy.stats.t.ppf(0.975, count - 1)) if count > 1 else 1.96


def paired(
    values: Mapping[str, float], first: Mapping[str, float], *, is_ratio: bool
) -> Paired | None:
    """Compares the seeds {seed: value} that both have; None where they share under two.

    Ratios are tested on the logarithms: all values must be above 0.
    """
    seeds = [seed for seed in first if seed in values]
    if len(seeds) < 2:
        return None
    to, back = (np.log, np.exp) if is_ratio else (np.asarray, np.asarray)
    gaps = np.array([to(values[seed]) - to(first[seed]) for seed in seeds])
    mean, half = interval(gaps)
    # Gaps without spread have no t: all 0 is no difference, any other is a sure one.
    p = scipy.stats.ttest_1samp(gaps, 0.0).pvalue if np.ptp(gaps) else float(mean == 0)
    bounds = (float(back(mean + shift)) for shift in (0, -half, half))
    return Paired(*bounds, float(p), len(seeds))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in their order (Holm, step-down)."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    # The k-th smallest of m times m - k + 1, never below the one before.
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(steps, 1.0)
    return corrected.tolist()


def interquartile(
    *strata: Sequence[float], resamples: int = 10_000
) -> tuple[float, float, float]:
    """Mean of the middle half of all values, and its 95 % bootstrap interval.

    Seeds are drawn again within each stratum, one a task (arXiv 2108.13264).
    """

    def middle(*samples: np.ndarray, axis: int) -> np.ndarray:
        return scipy.stats.trim_mean(np.concatenate(samples, axis), 0.25, axis)

    samples = [np.asarray(values, np.float64) for values in strata]
    drawn = scipy.stats.bootstrap(
        samples, middle, n_resamples=resamples, method="percentile", rng=0
    )
    low, high = drawn.confidence_interval
    return float(middle(*samples, axis=0)), float(low), float(high)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's correlation within each row: [N, C], [N, C] -> [N].

    Pearson's of the ranks, ties at their mean rank; NaN for a row without spread.
    """
    ranks = [scipy.stats.rankdata(values, axis=1) for values in (first, second)]
    first, second = (r - r.mean(axis=1, keepdims=True) for r in ranks)
    scale = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    return _ratio((first * second).sum(axis=1), scale)


def auroc(energy: np.ndarray, is_right: np.ndarray) -> np.ndarray:
    """P(a wrong answer of a row has more energy than a right one): [N, C], bool -> [N].

    Ties count one half; NaN for a row whose answers are all right or all wrong. An
    energy that is NaN is above all others.
    """
    energy = np.where(np.isnan(energy), np.inf, energy)
    right, wrong = is_right.sum(axis=1), (~is_right).sum(axis=1)
    ranks = np.where(is_right, 0.0, scipy.stats.rankdata(energy, axis=1)).sum(axis=1)
    # Mann-Whitney: the ranks of the wrong, less what they have among themselves.
    return _ratio(ranks - wrong * (wrong + 1) / 2, right * wrong)


def best_of(energy: np.ndarray, error: np.ndarray, count: int) -> BestOf:
    """The errors of `count` answers to choose from: [N, R], [N, R] -> `BestOf`.

    Averaged over the R // count disjoint groups of a row's answers. An energy that is
    NaN is never the lowest.
    """
    energy = np.where(np.isnan(energy), np.inf, energy)
    groups = energy.shape[1] // count
    energy, error = (
        array[:, : groups * count].reshape(-1, groups, count)
        for array in (energy, error)
    )
    chosen = np.argmin(energy, axis=2)[..., None]
    lowest = np.take_along_axis(error, chosen, axis=2)[..., 0]
    return BestOf(
        lowest.mean(axis=1), error.mean(axis=(1, 2)), error.min(axis=2).mean(axis=1)
    )


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, NaN where below is 0."""
    return np.where(below > 0, above / np.where(below > 0, below, 1), np.nan)
