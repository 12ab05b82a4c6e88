"""What must be beaten without any network: trivial and classical answers of a task."""

from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from rich.table import Table

from experiments.score import records
from experiments.score.scorer import Scorer, flat
from experiments.score.tables import tables, with_error
from ired_jax.tasks.base import Task
from ired_jax.types import Stream, Tree, stream_key

FIT_EXAMPLES_PER_FEATURE = 100  # of the linear regression
FIT_CHUNK = 4096
SEED = 0
Fit = tuple[np.ndarray, np.ndarray]  # mean of y [D], weights [Dx + 1, D]

FITTED: dict[str, Callable[[Fit, np.ndarray], np.ndarray]] = {
    "constant mean": lambda fit, x: np.broadcast_to(fit[0], (len(x), fit[0].size)),
    "linear regression": lambda fit, x: _with_one(x) @ fit[1],
}


def score(task: Task, scorer: Scorer, num_examples: int) -> dict[str, dict[str, float]]:
    """{baseline: {logged name: figure}}, means on the rows that the model answers."""
    fitted = fit(task) if task.metrics and task.fitted else None
    solvers = {name: jax.jit(jax.vmap(f)) for name, f in task.solvers.items()}
    result = {name: {} for name in (*task.fitted, *solvers)}
    for split in task.splits if task.metrics else ():
        x, y = scorer.examples(split, num_examples)
        answers = {n: _like(y, FITTED[n](fitted, flat(x))) for n in task.fitted}
        answers |= {name: solve(x) for name, solve in solvers.items()}
        for name, answer in answers.items():
            for metric, values in scorer.figures(x, y, answer).items():
                result[name][f"{split}/{metric}"] = float(values.mean())
    key = stream_key(jax.random.key(SEED), 0, Stream.BASELINE)
    for name, evaluator in task.evaluators.items():
        for baseline, energy_fn in evaluator.trivial.items():
            value = jax.jit(partial(evaluator.of_model, energy_fn))(key)
            result.setdefault(baseline, {})[name] = float(value)
    return result


def fit(task: Task) -> Fit:
    """Mean of y, and least squares of y on [x, 1], both raveled, in float64."""
    x_size = sum(leaf.size for leaf in jax.tree.leaves(task.example.x))
    num_examples = FIT_EXAMPLES_PER_FEATURE * (x_size + 1)
    draw = jax.jit(jax.vmap(task.train.draw, in_axes=(None, 0)))
    key = stream_key(jax.random.key(SEED), 0, Stream.BASELINE)
    gram = cross = total = 0.0
    for first in range(0, num_examples, FIT_CHUNK):
        keys = jax.random.split(jax.random.fold_in(key, first), FIT_CHUNK)
        x, y = map(flat, draw(task.train.data, keys))
        features = _with_one(x)
        gram, cross = gram + features.T @ features, cross + features.T @ y
        total = total + len(y)
    # A symmetric matrix shows every entry twice: the Gram matrix is singular, and the
    # shortest of the equally good solutions is taken.
    weights = np.linalg.lstsq(gram, cross, rcond=1e-10)[0]
    return cross[-1] / total, weights


def final_tables(
    task: Task, metrics: dict[str, float], baselines: dict[str, dict[str, float]]
) -> list[Table]:
    """The model beside the baselines: a table a metric, the primary one first."""
    kinds, (_, _, primary) = records.kinds(task), task.primary.rpartition("/")
    views = []
    for metric in sorted(task.metrics, key=lambda name: name != primary):
        names = [f"{split}/{metric}" for split in task.splits]
        others = {k: of for k, of in baselines.items() if names[0] in of}
        columns = {
            name.partition("/")[0]: [
                with_error(metrics[name], metrics[f"{name}/stderr"]),
                *(f"{of[name]:.3g}" for of in others.values()),
            ]
            for name in names
        }
        better, unit = kinds[names[0]]
        views += tables(
            f"{metric}, {unit}, {better} is better",
            ["this model", *others],
            columns,
            caption=_ratios(task, metrics, baselines) if metric == primary else None,
        )
    for name in task.evaluators:
        others = {k: of[name] for k, of in baselines.items() if name in of}
        better, unit = kinds[name]
        views += tables(
            f"{name} of the whole model, {unit}, {better} is better",
            ["this model", *others],
            {name: [f"{value:.4g}" for value in (metrics[name], *others.values())]},
        )
    return views


def _ratios(task: Task, metrics: dict, baselines: dict) -> str | None:
    """How the primary metric compares with those of what was fitted."""
    name = task.primary
    ratios = [
        f"{metrics[name] / baselines[fitted][name]:.3g} times the {fitted}'s"
        for fitted in task.fitted
        if baselines[fitted].get(name)  # none is scored on training rows
    ]
    return f"{name} is {', '.join(ratios)}" if ratios else None


def _like(tree: Tree, flat: np.ndarray) -> Tree:
    """The inverse of `flat`, in float64."""
    leaves, structure = jax.tree.flatten(tree)
    ends = np.cumsum([leaf[0].size for leaf in leaves])[:-1]
    parts = np.split(flat, ends, axis=1)
    pairs = zip(parts, leaves, strict=True)
    return structure.unflatten([part.reshape(leaf.shape) for part, leaf in pairs])


def _with_one(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)
