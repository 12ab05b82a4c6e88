"""The training loop: dispatch, log, evaluate, save; then the final figures."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import baselines, figures, workdir
from experiments.build import Experiment, build
from experiments.checkpoint import BEST_METRIC, Checkpoints, abstract
from experiments.errors import UserError
from experiments.logs import MAY_BE_NAN, Logs, say, write_json
from experiments.scoring import Scorer
from ired_jax import training
from ired_jax.training import TrainState


def train_and_evaluate(config: ConfigDict, directory: Path) -> TrainState:
    """Trains, or goes on training, in a run directory, and leaves its final figures.

    Returns:
      The last state.

    Raises:
      UserError: bad config, a directory of another config, a damaged checkpoint, a full
        disk, a loss or norm that is not finite.
    """
    experiment = build(config)
    workdir.claim(directory, config)
    say(f"{config}\nrun directory: {directory}")
    with Checkpoints(directory) as checkpoints, _Interrupt() as interrupt:
        state = experiment.init_state()
        restored = checkpoints.restore(abstract(state))
        if restored is not None:
            state = restored
            say(f"resuming from step {step_of(state)}")
        scorer = Scorer(experiment)
        periods = experiment.periods
        with Logs(directory, step=step_of(state), num_steps=periods.num_steps) as logs:
            state = _train(experiment, state, scorer, checkpoints, logs, interrupt)
            checkpoints.wait()
            if interrupt.is_set:
                raise UserError(
                    f"interrupted at step {step_of(state)}, saved;"
                    " the same command resumes"
                )
            report(experiment, scorer, state, logs, directory)
    return state


def _train(experiment, state, scorer, checkpoints, logs, interrupt) -> TrainState:
    """Steps until the end, an interrupt, or an early stop."""
    periods = experiment.periods
    first = experiment.contrast_from
    dispatches = [experiment.dispatch(with_negatives=late) for late in (False, True)]
    step, pending, meter = step_of(state), [], _Meter()
    while step < periods.num_steps and not interrupt.is_set:
        if _should_stop_early(logs.rows, periods.patience):
            break
        state, metrics = dispatches[step >= first](state)
        step += periods.steps_per_dispatch
        pending.append(metrics)
        # One dispatch is computed and one waits: more would delay an interrupt.
        jax.block_until_ready(pending[-2:-1])
        is_last = step >= periods.num_steps
        is_eval = step % periods.eval_every == 0 or is_last
        if step % periods.log_every == 0 or is_eval or step == first:
            row = summarize(pending, first_step=step - _length(pending))
            row |= {"step": step, "steps_per_second": meter.rate(_length(pending))}
            pending = []
            if is_eval:
                num_examples = scorer.evaluation.num_examples_running
                row |= mean_over_seeds(score(experiment, scorer, state, num_examples))
                _refuse_not_finite(row)
            # Line first, checkpoint second: a resumed run forgets lines that are later
            # than its checkpoint, but could not make up for one that is missing.
            logs.write(row)
            if is_eval:
                checkpoints.save(state, row)
                meter.restart()
        logs.advance(step, meter.last)
    if interrupt.is_set:
        summarize(pending, first_step=step - _length(pending))
        checkpoints.save(state, None)
    return state


def score(
    experiment: Experiment, scorer: Scorer, state: TrainState, num_examples: int
) -> list[dict[str, float]]:
    """The metrics contract at a state, for each seed."""
    step = step_of(state)
    return [
        scorer.score(
            experiment.of_seed(state.ema_params, index),
            num_examples,
            training_rows(experiment, seed, step, num_examples),
        )
        for index, seed in enumerate(experiment.seeds)
    ]


def _refuse_not_finite(row: dict[str, float]) -> None:
    bad = sorted(name for name, value in row.items() if not np.isfinite(value))
    if bad:
        raise UserError(
            f"step {row['step']}: {', '.join(bad)} not finite; the last good"
            " checkpoint stays"
        )


def mean_over_seeds(scores: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each metric; its standard error is that of the seeds, if several."""
    result = {name: float(np.mean([s[name] for s in scores])) for name in scores[0]}
    if len(scores) > 1:
        for name in [name for name in result if name.endswith("/stderr")]:
            values = [s[name.removesuffix("/stderr")] for s in scores]
            result[name] = float(np.std(values, ddof=1) / len(values) ** 0.5)
    return result


def step_of(state: TrainState) -> int:
    """Finished steps, the same for all seeds."""
    return int(np.max(state.step))


def training_rows(
    experiment: Experiment, seed: int, step: int, num_examples: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """The latest examples, up to `num_examples`, that the steps before `step` saw.

    None before the first step.
    """
    if step == 0:
        return None
    key = jax.random.key(seed)
    batch_size = experiment.batch_size

    @jax.jit
    def draw(step):
        return training.draw_examples(experiment.problem, key, step, batch_size)

    parts = [
        draw(earlier)
        for earlier in range(step - 1, -1, -1)[: -(-num_examples // batch_size)]
    ]
    x, y = (np.concatenate(part)[:num_examples] for part in zip(*parts, strict=True))
    return x, y


def summarize(pending: list[dict[str, Any]], *, first_step: int) -> dict[str, float]:
    """Means over the steps since the last line.

    Raises:
      UserError: a metric is not finite; names the first step and the metrics.
    """
    if not pending:
        return {}
    fetched = jax.device_get(pending)
    # [steps] of each metric, or [steps, seeds]
    columns = {name: np.concatenate([m[name] for m in fetched]) for name in fetched[0]}
    is_flat = columns["train/loss"].ndim == 1
    columns = {k: v[:, None] if is_flat else v for k, v in columns.items()}
    checked = {k: v for k, v in columns.items() if not MAY_BE_NAN.fullmatch(k)}
    is_bad = {k: ~np.isfinite(values).all(axis=1) for k, values in checked.items()}
    if any(bad.any() for bad in is_bad.values()):
        first = min(int(np.argmax(bad)) for bad in is_bad.values() if bad.any())
        names = sorted(name for name, bad in is_bad.items() if bad[first])
        raise UserError(
            f"step {first_step + first + 1}: {', '.join(names)} not finite; the last"
            " good checkpoint stays (try a lower train.learning_rate or loss.weight)"
        )
    result = {name: float(np.mean(values)) for name, values in checked.items()}
    for name in set(columns) - set(checked):
        seen = columns[name][np.isfinite(columns[name])]
        result |= {name: float(seen.mean())} if seen.size else {}
    return result


def report(
    experiment: Experiment,
    scorer: Scorer,
    state: TrainState,
    logs: Logs,
    directory: Path,
) -> None:
    """Final figures on all held-out draws, the table, result.json and pictures."""
    num_examples = scorer.evaluation.num_examples
    scores = score(experiment, scorer, state, num_examples)
    last = {name: logs.rows[-1][name] for name in ("train/denoise_mse",)}
    metrics = mean_over_seeds(scores) | last
    others = baselines.score(experiment.task, scorer, num_examples)
    result = {
        "step": step_of(state),
        "num_examples": num_examples,
        "answer_shape": [num_examples, experiment.task.y_size],
        "metrics": metrics,
        "seeds": dict(zip(map(str, experiment.seeds), scores, strict=True)),
        "baselines": others,
        "best": _best(logs.rows),
        **workdir.provenance(),
    }
    say(baselines.table(metrics, others))
    for name in ("train/task_mse", "val/denoise_mse", "train/denoise_mse"):
        say(f"{name:>18} {metrics[name]:.6g}")
    first = experiment.of_seed(state.ema_params, 0)
    figures.write_all(experiment, scorer, first, logs.rows, directory)
    write_json(directory / "result.json", result)


def _best(rows: list[dict[str, float]]) -> dict[str, float]:
    scored = [row for row in rows if BEST_METRIC in row]
    best = min(scored, key=lambda row: row[BEST_METRIC])
    return {"step": best["step"], BEST_METRIC: best[BEST_METRIC]}


def _should_stop_early(rows: list[dict[str, float]], patience: int) -> bool:
    """No better validation error in the last `patience` evaluations."""
    errors = [row[BEST_METRIC] for row in rows if BEST_METRIC in row]
    if not patience or len(errors) <= patience:
        return False
    return min(errors[-patience:]) >= min(errors[:-patience])


def _length(pending: list[dict[str, Any]]) -> int:
    return sum(len(metrics["train/loss"]) for metrics in pending)


class _Meter:
    """Train steps a second, evaluation left out."""

    def __init__(self):
        self.last = 0.0
        self.restart()

    def rate(self, num_steps: int) -> float:
        now = time.monotonic()
        self.last = num_steps / max(now - self._since, 1e-9)
        self._since = now
        return self.last

    def restart(self) -> None:
        self._since = time.monotonic()


class _Interrupt:
    """Turns SIGTERM and SIGINT into a flag, looked at between dispatches."""

    def __init__(self):
        self.is_set = False
        self._previous: dict[int, Callable] = {}

    def __enter__(self) -> "_Interrupt":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._set)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _set(self, number, frame) -> None:
        del frame
        if self.is_set and number == signal.SIGINT:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait
        self.is_set = True
