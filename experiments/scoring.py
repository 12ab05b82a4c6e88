"""Scores parameters by the metrics contract, the same whatever the batch size.

Examples, start noise and levels are keyed by the row's index alone, and per-row figures
are averaged in float64 on the host: a batch is only a way to pass rows.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from experiments.build import Evaluation, Experiment
from ired_jax import diffusion, losses
from ired_jax.samplers import inference
from ired_jax.tasks.base import Split
from ired_jax.types import Array, Landscape, Params, Stream, stream_key

BLOCK = 256  # rows drawn and solved together, whatever the evaluation batch
HELD_OUT_SEED = 2406_11179  # of the fixed draws that every run is scored on


class Rows(NamedTuple):
    """Per-row figures of N answers: [N] or [N, D], NumPy."""

    squared_error: np.ndarray  # mean over elements
    residual: np.ndarray
    energy: np.ndarray
    steps: np.ndarray  # descent steps a level
    answer: np.ndarray  # [N, D]
    target: np.ndarray  # [N, D]


def held_out(stream: Stream, split: Split, index: Array) -> tuple[Array, Array]:
    """Example `index` () of the fixed draws: (x, y)."""
    key = stream_key(jax.random.key(HELD_OUT_SEED), 0, stream)
    return split.draw(jax.random.fold_in(key, index))


def solver(experiment: Experiment, evaluation: Evaluation, bounds: float) -> Callable:
    """(params, x [B, Dx], index [B], restart () = 0) -> (y_0 [B, D], SolveInfo).

    Jitted and vmapped; each restart has start noise of its own.
    """
    problem, size = experiment.problem, experiment.task.y_size

    def one(params, restart, x, index):
        root = stream_key(jax.random.key(HELD_OUT_SEED), restart, Stream.EVAL_START)
        return inference.solve(
            jax.random.fold_in(root, index),
            Landscape(problem.energy, params, x),
            problem.schedule,
            (size,),
            num_steps=evaluation.num_steps,
            double_steps=evaluation.double_steps,
            tolerance=evaluation.tolerance or None,
            bounds=evaluation.bounds or bounds,
        )

    def block(params, restart, rows):
        return jax.vmap(one, in_axes=(None, None, 0, 0))(params, restart, *rows)

    @jax.jit
    def solve(params, x, index, restart=0):
        # Products of other shapes round differently, an accepted step flips on the last
        # bit, and near float accuracy a score would follow its batch: every row is
        # solved among BLOCK rows. What is left is the row's place in its block.
        count, num_blocks = len(index), -(-len(index) // BLOCK)
        take = np.minimum(np.arange(num_blocks * BLOCK), count - 1)
        rows = x[take].reshape(num_blocks, BLOCK, -1), index[take].reshape(-1, BLOCK)
        answers = jax.lax.map(partial(block, params, restart), rows)
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:count], answers)

    return solve


class Scorer:
    """The metrics contract of one experiment; compiled once for each kind of row."""

    def __init__(self, experiment: Experiment, evaluation: Evaluation | None = None):
        self._experiment = experiment
        self.evaluation = evaluation or experiment.evaluation
        task = experiment.task
        self._splits = {
            "val": (Stream.EVAL_DATA, task.train),
            "ood": (Stream.EVAL_OOD, task.ood),
        }
        self._draw = {
            name: jax.jit(jax.vmap(partial(held_out, *split)))
            for name, split in self._splits.items()
        }
        self._solve = {
            name: solver(experiment, self.evaluation, split.bounds)
            for name, (_, split) in self._splits.items()
        }
        self._denoise = jax.jit(jax.vmap(self._denoise_row, in_axes=(None, 0, 0, 0)))
        self._residual = jax.jit(jax.vmap(task.residual))

    def score(
        self,
        params: Params,
        num_examples: int,
        train: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> dict[str, float]:
        """Every metric of the contract, with standard errors: {name: value}.

        Args:
          params: EMA parameters.
          num_examples: held-out draws of each split.
          train: x [N, Dx] and y [N, D] of training data; None: no `train/task_mse`.
        """
        metrics = {}
        for split in self._splits:
            rows = self.rows(params, split, num_examples)
            metrics |= _summary_of(f"{split}/task_mse", rows)
            if self.evaluation.tolerance:
                metrics[f"{split}/steps"] = float(rows.steps.mean())
        if train is not None:
            rows = self.answers(params, "val", *train)
            metrics |= _summary_of("train/task_mse", rows)
        return metrics | self._denoising(params, num_examples)

    def examples(self, split: str, num_examples: int) -> tuple[np.ndarray, np.ndarray]:
        """The fixed held-out draws: x [N, Dx], y [N, D]."""
        parts = [
            self._draw[split](np.arange(first, first + BLOCK))
            for first in range(0, num_examples, BLOCK)
        ]
        x, y = (
            np.concatenate(part)[:num_examples] for part in zip(*parts, strict=True)
        )
        return x, y

    def rows(
        self, params: Params, split: str, num_examples: int, restart: int = 0
    ) -> Rows:
        """Answers to the held-out draws of `split`, from start noise `restart`."""
        x, y = self.examples(split, num_examples)
        return self.answers(params, split, x, y, restart)

    def answers(
        self,
        params: Params,
        split: str,
        x: np.ndarray,
        y: np.ndarray,
        restart: int = 0,
    ) -> Rows:
        """Answers to given rows, with the bounds of `split`."""
        parts = []
        for batch in self._batches(len(x)):
            # Filled up to whole blocks here: a compiler that saw it would share work.
            index = batch[0] + np.arange(-(-len(batch) // BLOCK) * BLOCK)
            take = np.minimum(index, len(x) - 1)
            answer, info = self._solve[split](params, x[take], index, restart)
            residual = self._residual(x[take], answer)
            steps = np.mean(info.steps, axis=1)
            figures = (answer, residual, info.energy, steps)
            parts.append([np.asarray(figure)[: len(batch)] for figure in figures])
        answer, residual, energy, steps = (
            np.concatenate(part)[: len(x)] for part in zip(*parts, strict=True)
        )
        error = np.mean((answer.astype(np.float64) - y) ** 2, axis=1)
        return Rows(error, residual, energy, steps, answer, np.asarray(y))

    def _denoising(self, params: Params, num_examples: int) -> dict[str, float]:
        x, y = self.examples("val", num_examples)
        parts = []
        for index in self._batches(num_examples):
            take = np.minimum(index, num_examples - 1)
            parts.append(self._denoise(params, x[take], y[take], index))
        loss, grad, eps = (
            np.concatenate(part)[:num_examples].astype(np.float64)
            for part in zip(*parts, strict=True)
        )
        return _summary("val/denoise_mse", loss, grad, eps)

    def _denoise_row(self, params, x, y0, index):
        problem = self._experiment.problem
        root = stream_key(jax.random.key(HELD_OUT_SEED), 0, Stream.EVAL_NOISE)
        key_level, key_noise = jax.random.split(jax.random.fold_in(root, index))
        t = jax.random.randint(key_level, (), 0, problem.schedule.num_levels)
        eps = jax.random.normal(key_noise, y0.shape)
        y = diffusion.q_sample(problem.schedule, y0, t, eps)
        grad = jax.grad(problem.energy, argnums=2)(params, x, y, t)
        return losses.denoising(grad[None], eps[None])[0], grad, eps

    def _batches(self, num_examples: int):
        size = min(self.evaluation.batch_size, num_examples)
        for first in range(0, num_examples, size):
            yield np.arange(first, first + size)


def _summary_of(name: str, rows: Rows) -> dict[str, float]:
    return _summary(name, rows.squared_error, rows.answer, rows.target)


def _summary(
    name: str, error: np.ndarray, answer: np.ndarray, target: np.ndarray
) -> dict[str, float]:
    """Mean, standard error, and moments of prediction and target."""
    error = error.astype(np.float64)
    return {
        name: float(error.mean()),
        f"{name}/stderr": float(error.std(ddof=1) / len(error) ** 0.5),
        f"{name}/pred_mean": float(answer.mean(dtype=np.float64)),
        f"{name}/pred_std": float(answer.std(dtype=np.float64)),
        f"{name}/target_mean": float(target.mean(dtype=np.float64)),
        f"{name}/target_std": float(target.std(dtype=np.float64)),
    }
