"""What must be beaten without any network: trivial and classical answers of a task."""

import jax
import numpy as np
from rich.table import Table

from experiments.scoring import Scorer
from ired_jax.tasks.base import Task
from ired_jax.types import Stream, stream_key

FIT_EXAMPLES_PER_FEATURE = 100  # of the linear regression
FIT_CHUNK = 4096
SEED = 0


def score(task: Task, scorer: Scorer, num_examples: int) -> dict[str, dict[str, float]]:
    """{baseline: {val: mse, ood: mse}} on the held-out draws that the model answers."""
    mean, weights = fit(task)
    predictors = {
        "constant mean": lambda x: np.broadcast_to(mean, (len(x), mean.size)),
        "linear regression": lambda x: _with_one(x) @ weights,
        **{name: jax.jit(jax.vmap(f)) for name, f in task.solvers.items()},
    }
    result = {name: {} for name in predictors}
    for split in ("val", "ood"):
        x, y = scorer.examples(split, num_examples)
        for name, predict in predictors.items():
            answer = np.asarray(predict(x), np.float64)
            result[name][split] = float(np.mean((answer - y) ** 2))
    return result


def fit(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Mean of y [D], and least squares of y on [x, 1] [Dx + 1, D], in float64."""
    num_examples = FIT_EXAMPLES_PER_FEATURE * (task.x_size + 1)
    draw = jax.jit(jax.vmap(task.train.draw))
    key = stream_key(jax.random.key(SEED), 0, Stream.BASELINE)
    gram = cross = total = 0.0
    for first in range(0, num_examples, FIT_CHUNK):
        x, y = draw(jax.random.split(jax.random.fold_in(key, first), FIT_CHUNK))
        features, y = _with_one(x), np.asarray(y, np.float64)
        gram, cross = gram + features.T @ features, cross + features.T @ y
        total = total + len(y)
    # A symmetric matrix shows every entry twice: the Gram matrix is singular, and the
    # shortest of the equally good solutions is taken.
    weights = np.linalg.lstsq(gram, cross, rcond=1e-10)[0]
    return cross[-1] / total, weights


def table(metrics: dict[str, float], baselines: dict[str, dict[str, float]]) -> Table:
    """The final table: the model beside the baselines."""
    view = Table(title="mean squared error per element of the final answer")
    for column in ("", "in distribution", "harder"):
        view.add_column(column, justify="left" if not column else "right")
    model = [_with_error(metrics, f"{split}/task_mse") for split in ("val", "ood")]
    view.add_row("this model", *model, style="bold")
    for name, errors in baselines.items():
        view.add_row(name, *(f"{errors[split]:.3g}" for split in ("val", "ood")))
    of_mean, of_linear = (
        metrics["val/task_mse"] / baselines[name]["val"]
        for name in ("constant mean", "linear regression")
    )
    view.caption = (
        f"val/task_mse is {of_mean:.3g} times the constant mean's,"
        f" {of_linear:.3g} times the linear regression's"
    )
    return view


def _with_error(metrics: dict[str, float], name: str) -> str:
    return f"{metrics[name]:.3g} +- {metrics[f'{name}/stderr']:.1g}"


def _with_one(x) -> np.ndarray:
    x = np.asarray(x, np.float64)
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)
