"""Scores parameters by a task's metrics, the same whatever the batch size.

Examples, start noise and levels are keyed by the row's index alone, and figures of rows
are computed and averaged in float64: a batch is only a way to pass rows.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.build import Experiment
from experiments.errors import UserError
from experiments.score.solver import HELD_OUT_SEED, lowest_of, solver
from ired_jax import boxes, diffusion, trees
from ired_jax.tasks.base import Inference, Metric, Task, held_out
from ired_jax.types import (
    Array,
    Example,
    Params,
    Stream,
    Tree,
    stream_key,
)


class Rows(NamedTuple):
    """Figures of N answers, NumPy; trees have leaves [N, ...]."""

    figures: dict[str, np.ndarray]  # each metric of the task, [N] float64
    energy: np.ndarray  # [N]
    steps: np.ndarray  # [N] descent steps, over all levels and restarts
    answer: Tree
    truth: Tree


def held_out_key(index: int) -> Array:
    """The root of the fixed draws of the split of that number."""
    root = jax.random.key(HELD_OUT_SEED)
    if index == 0:
        return stream_key(root, 0, Stream.EVAL_DATA)
    key = stream_key(root, 0, Stream.EVAL_OOD)
    return key if index == 1 else jax.random.fold_in(key, index)


class Scorer:
    """All figures of one experiment; compiled once for each kind of row."""

    def __init__(self, experiment: Experiment, how: Inference | None = None):
        task = experiment.task
        self._experiment, self._how = experiment, how or experiment.inference
        self.evaluation, self.splits = experiment.evaluation, dict(task.splits)
        self._first = next(iter(task.splits))
        sources, self._solve = self.splits | {"train": task.train}, {}
        # Sources of one box and of one size share a program.
        programs = {}
        for name, source in sources.items():
            kind = source.box, str(source.example.y)
            if kind not in programs:
                programs[kind] = solver(experiment, source, self._how)
            self._solve[name] = programs[kind]
        self._draw = {
            name: jax.jit(jax.vmap(partial(held_out, source), in_axes=(None, None, 0)))
            for name, source in self.splits.items()
        }
        self._denoise = jax.jit(jax.vmap(self._denoise_row, in_axes=(None, 0, 0)))
        self._figures = jax.jit(jax.vmap(partial(_figures, task.metrics)))
        self._evaluate = {
            name: jax.jit(partial(_of_model, evaluator.of_model, experiment.energy))
            for name, evaluator in task.evaluators.items()
        }

    def score(
        self, params: Params, num_examples: int, train: Example | None = None
    ) -> dict[str, float]:
        """Every figure of the task, with standard errors: {name: value}.

        Args:
          params: EMA parameters of the energy.
          num_examples: held-out rows of each split, as far as it has them.
          train: rows of the training data; None: no `train/...`.
        """
        metrics, task = {}, self._experiment.task
        if task.metrics:
            for split in self.splits:
                metrics |= self._summaries(
                    split, self.rows(params, split, num_examples)
                )
            if train is not None:
                rows = self.answers(params, "train", *train)
                metrics |= self._summaries("train", rows, with_steps=False)
        for index, (name, of_model) in enumerate(self._evaluate.items()):
            root = stream_key(jax.random.key(HELD_OUT_SEED), 4, Stream.EVAL_NOISE)
            value = of_model(params, jax.random.fold_in(root, index))
            metrics[name] = float(value)
        if "denoising" in self._experiment.objectives:
            metrics |= self._denoising(params, num_examples)
        return metrics

    def examples(self, split: str, num_examples: int) -> Example:
        """The fixed held-out rows: leaves [N, ...], N as far as the split has them."""
        source, key = self.splits[split], held_out_key([*self.splits].index(split))
        count = min(num_examples, source.size or num_examples)
        block = self.evaluation.block
        last = (source.size or num_examples + block) - 1
        parts = []
        for first in range(0, count, block):
            index = np.minimum(first + np.arange(block), last)
            parts.append(self._draw[split](source.data, key, index))
        return _first(_joined(parts), count)

    def rows(
        self, params: Params, split: str, num_examples: int, restart: int | None = None
    ) -> Rows:
        """Answers to the held-out rows of `split`; see `answers`."""
        return self.answers(params, split, *self.examples(split, num_examples), restart)

    def answers(
        self,
        params: Params,
        split: str,
        x: Tree,
        y: Tree,
        restart: int | None = None,
    ) -> Rows:
        """Answers to given rows, in the box of `split` (also `train`).

        `restart` is the number of the start noise; None: the best of `restarts`.
        """
        restarts = range(self._how.restarts) if restart is None else (restart,)
        solve, parts = self._solve[split], []
        for index, rows, size in self._batches(Example(x, y)):
            answer, energy, steps = lowest_of(solve, params, rows.x, index, restarts)
            part = self.figures(*rows, answer), energy, steps, answer
            parts.append(_first(part, size))
        figures, energy, steps, answer = _joined(parts)
        return Rows(figures, energy, steps, answer, jax.tree.map(np.asarray, y))

    def figures(self, x: Tree, y: Tree, answer: Tree) -> dict[str, np.ndarray]:
        """Each metric of N answers, [N] float64."""
        with jax.enable_x64(True):
            wide = jax.tree.map(_float64, (x, y, answer))
            return jax.tree.map(np.asarray, self._figures(*wide))

    def _summaries(self, split: str, rows: Rows, *, with_steps: bool = True) -> dict:
        summaries = {}
        for name, metric in self._experiment.task.metrics.items():
            whole = f"{split}/{name}"
            summaries |= summary(whole, rows.figures[name])
            if metric.unit == "per element":
                summaries |= _moments(whole, rows.answer, rows.truth)
        if with_steps and self._how.tolerance:
            levels = self._experiment.schedule.num_levels
            summaries[f"{split}/steps"] = float(rows.steps.mean() / levels)
        return summaries

    def _denoising(self, params: Params, num_examples: int) -> dict[str, float]:
        examples = self.examples(self._first, num_examples)
        parts = [
            _first(self._denoise(params, rows, index), size)
            for index, rows, size in self._batches(examples)
        ]
        loss, grad, eps = _joined(parts)
        name = f"{self._first}/denoise_mse"
        return summary(name, loss) | _moments(name, grad, eps)

    def _denoise_row(self, params, example, index):
        schedule, source = self._experiment.schedule, self.splits[self._first]
        root = stream_key(jax.random.key(HELD_OUT_SEED), 0, Stream.EVAL_NOISE)
        key_level, key_noise = jax.random.split(jax.random.fold_in(root, index))
        t = jax.random.randint(key_level, (), 0, schedule.num_levels)
        box = source.box(example.x) if source.box else None
        eps = boxes.still(box, trees.normal(key_noise, example.y))
        y = diffusion.q_sample(schedule, example.y, t, eps)
        energy_fn = partial(self._experiment.energy, params, example.x)
        grad = boxes.still(box, jax.grad(energy_fn)(y, t))
        loss = boxes.mean_free(box, trees.squares(trees.subtract(grad, eps)))
        return loss, grad, eps

    def _batches(self, examples: Example) -> Iterator[tuple[np.ndarray, Example, int]]:
        """(index, rows, how many of them count) of each batch.

        Filled up to whole blocks here: a compiler that saw it would share work.
        """
        count = len(jax.tree.leaves(examples.y)[0])
        size, block = min(self.evaluation.batch_size, count), self.evaluation.block
        for first in range(0, count, size):
            index = first + np.arange(-(-size // block) * block)
            take = np.minimum(index, count - 1)
            rows = jax.tree.map(lambda leaf, take=take: leaf[take], examples)
            yield index, rows, min(size, count - first)


def training_rows(
    experiment: Experiment, seed: int, step: int, num_examples: int
) -> Example | None:
    """The latest examples, up to `num_examples`, that the steps before `step` saw.

    None before the first step.
    """
    if step == 0:
        return None
    data, key = experiment.train_data, jax.random.key(seed)
    steps = range(step - 1, -1, -1)[: -(-num_examples // experiment.batch_size)]
    parts = [experiment.draw(data, key, earlier) for earlier in steps]
    return _first(_joined(parts), num_examples)


def score_seeds(
    scorer: Scorer, experiment: Experiment, params: Tree, step: int, num_examples: int
) -> list[dict[str, float]]:
    """`Scorer.score` of each seed, on the rows that it was itself trained on.

    `params` are EMA parameters of the energy, those of several seeds stacked.
    """
    return [
        scorer.score(
            experiment.of_seed(params, index),
            num_examples,
            training_rows(experiment, seed, step, num_examples),
        )
        for index, seed in enumerate(experiment.seeds)
    ]


def row_metric(task: Task) -> str:
    """The metric that answers are told apart by: the primary one, or else the first.

    Raises:
      UserError: the task has none of an answer, only of a whole model.
    """
    name = task.primary.rpartition("/")[2]
    if not task.metrics:
        raise UserError(f"task.name: has no metric of an answer, {name} is of a model")
    return name if name in task.metrics else next(iter(task.metrics))


def flat(tree: Tree) -> np.ndarray:
    """Leaves [N, ...] as one [N, D] float64."""
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


def summary(name: str, values: np.ndarray) -> dict[str, float]:
    """Mean and standard error of the figures of N rows."""
    values = np.asarray(values, np.float64)
    stderr = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
    return {name: float(values.mean()), f"{name}/stderr": float(stderr)}


def _moments(name: str, answer: Tree, truth: Tree) -> dict[str, float]:
    """Mean and deviation of all elements of predictions and targets."""
    moments = {}
    for of, tree in (("pred", answer), ("target", truth)):
        values = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
        moments[f"{name}/{of}_mean"] = float(values.mean(dtype=np.float64))
        moments[f"{name}/{of}_std"] = float(values.std(dtype=np.float64))
    return moments


def _figures(metrics: dict[str, Metric], x: Tree, y: Tree, answer: Tree) -> dict:
    return {
        name: jnp.asarray(metric.of_row(x, y, answer), jnp.float64)
        for name, metric in metrics.items()
    }


def _of_model(of_model: Callable, energy, params: Params, key: Array) -> Array:
    return of_model(lambda x, y, t: energy(params, x, y, t), key)


def _float64(leaf) -> np.ndarray:
    leaf = np.asarray(leaf)
    return leaf.astype(np.float64) if leaf.dtype.kind == "f" else leaf


def _first(tree: Tree, count: int) -> Tree:
    """The first rows of every leaf, NumPy."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:count], tree)


def _joined(parts: list[Tree]) -> Tree:
    """Batches one after the other."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
