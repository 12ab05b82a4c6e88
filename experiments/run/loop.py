"""The training loop: dispatch, log, evaluate, save; then the final figures."""

from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import devices
from experiments.build import Experiment, build
from experiments.errors import UserError
from experiments.reporting.watch import Watch
from experiments.run import summary, workdir
from experiments.run.checkpoint import Checkpoints
from experiments.run.interrupt import Interrupt
from experiments.run.logs import Logs, say
from experiments.run.meter import Meter
from experiments.run.programs import Programs
from experiments.run.report import report, set_aside
from experiments.run.schema import schema_of
from experiments.run.summary import Spikes
from experiments.score import records
from experiments.score.scorer import Scorer, score_seeds
from experiments.startup import startup_text, time_text
from ired_jax.tasks.base import Task, refuse_misfits_of_splits
from ired_jax.training import TrainState


def train_and_evaluate(
    config: ConfigDict, directory: Path, report_every: float = 0.0
) -> TrainState:
    """Trains, or goes on training, in a run directory, and leaves its final figures.

    Args:
      config: every field.
      directory: of the run.
      report_every: seconds between two writings of its report.html; 0: none.

    Returns:
      The last state.

    Raises:
      UserError: bad config, a directory of another config or process, a damaged
        checkpoint, a full disk, a loss or norm that is not finite, a signal.
    """
    experiment = build(config)
    refuse_misfits_of_splits(experiment.task)
    watch = Watch(directory, report_every)
    with (
        workdir.held(directory, config, experiment.task),
        Checkpoints(directory, experiment.task) as checkpoints,
        Interrupt() as interrupt,
    ):
        say(f"{startup_text(experiment, config)}\nrun directory: {directory}")
        if checkpoints.steps:
            state = checkpoints.restore(experiment.abstract_state)
            say(f"resuming from step {step_of(state)}")
        else:
            state = experiment.init_state()
            if experiment.mesh is None:
                # Placed as a restored one is: the program of both is compiled once.
                state = jax.device_put(state, jax.local_devices()[0])
        scorer, length = Scorer(experiment), experiment.periods.num_steps
        schema, step = schema_of(experiment), step_of(state)
        if step > length:
            say(f"train.num_steps={length} is less: the figures are of step {step}")
        with (
            Logs(directory, schema, step=step, num_steps=length, then=watch) as logs,
            _programs(experiment, state, step, logs.rows) as programs,
        ):
            if not _is_over(experiment, step, logs.rows):
                workdir.sign(directory, step)
                set_aside(directory, step)
                say(time_text(logs.rows, length - step))
            state = _train(
                experiment, state, programs, scorer, checkpoints, logs, interrupt
            )
            checkpoints.wait()
            if interrupt.is_asked():
                return _interrupted(state)
            report(experiment, scorer, state, logs, directory)
            watch.finish()
    return state


def _programs(
    experiment: Experiment, state: TrainState, step: int, rows: list[dict]
) -> Programs:
    """Those of the steps that are left; of a run that patience ended, none."""
    is_over = _is_over(experiment, step, rows)
    return Programs(
        experiment, state, experiment.periods.num_steps if is_over else step
    )


def _train(
    experiment, state, programs, scorer, checkpoints, logs, interrupt
) -> TrainState:
    """Steps until the end, an interrupt, or an early stop."""
    periods, step, pending = experiment.periods, step_of(state), []
    meter, spikes = Meter(), Spikes(logs.directory)
    while not _is_over(experiment, step, logs.rows) and not interrupt.is_asked():
        for text in programs.news(step):
            say(text)
        if not pending:
            meter.skip()  # what the phase's program was waited for
        phase = experiment.phase_at(step)
        state, metrics = programs(state, step)
        step += periods.steps_per_dispatch
        pending.append(metrics)
        # One dispatch is computed and one waits: more would delay an interrupt.
        jax.block_until_ready(pending[-2:-1])
        is_last = step >= periods.num_steps
        is_eval = step % periods.eval_every == 0 or is_last
        is_new = experiment.phase_at(step) != phase
        if step % periods.log_every == 0 or is_eval or is_new:
            row, count = _row(pending, step, spikes), summary.length(pending)
            row |= {"step": step, "steps_per_second": meter.rate(count)}
            pending = []
            if is_eval:
                row |= _evaluated(experiment, scorer, state, step)
            # Line first, checkpoint second: a resumed run forgets lines that are later
            # than its checkpoint, but could not make up for one that is missing.
            logs.write(row)
            if is_eval:
                checkpoints.save(state, row)
                meter.restart()
        told = None
        if programs.are_ready():  # and take no time from the steps
            told = meter.forecast(step, periods.num_steps, periods.eval_every)
        logs.advance(step, meter.last, told)
    if interrupt.is_asked():
        _row(pending, step, spikes)
        checkpoints.save(state, None)
    return state


def _row(pending: list, step: int, spikes: Spikes) -> dict[str, float]:
    """What the steps since the last line say together, and their spikes on disk."""
    if not pending:
        return {}
    columns, first = summary.fetch(pending), step - summary.length(pending)
    spikes.look(columns, first_step=first)
    return summary.summarize(columns, first_step=first)


def _evaluated(
    experiment: Experiment, scorer: Scorer, state: TrainState, step: int
) -> dict[str, float]:
    """The scores at a state, the mean over seeds."""
    params = devices.everywhere(state.ema_params.energy)
    num_examples = scorer.evaluation.num_examples_running
    scores = score_seeds(scorer, experiment, params, step, num_examples)
    row = records.mean_over_seeds(scores)
    # Of a single held-out row there is no error of a mean.
    figures = {n: value for n, value in row.items() if not n.endswith("/stderr")}
    bad = sorted(name for name, value in figures.items() if not np.isfinite(value))
    if bad:
        raise UserError(
            f"step {step}: {', '.join(bad)} not finite; the last good checkpoint stays"
        )
    return row


def _interrupted(state: TrainState) -> TrainState:
    """The end of a run that a signal stopped.

    Several processes end well: the cluster that pre-empts them starts them again.

    Raises:
      UserError: of a single process, for the person who pressed a key.
    """
    text = f"interrupted at step {step_of(state)}, saved; the same command resumes"
    if jax.process_count() == 1:
        raise UserError(text)
    say(text)
    return state


def step_of(state: TrainState) -> int:
    """Finished steps, the same for all seeds."""
    return int(np.max(state.step))


def _is_over(experiment: Experiment, step: int, rows: list[dict]) -> bool:
    """Whether no step is left: the length is reached, or patience is at its end."""
    periods = experiment.periods
    if step >= periods.num_steps:
        return True
    stop = _should_stop_early(experiment.task, rows, periods.patience)
    return bool(periods.patience) and devices.agreed(stop)


def _should_stop_early(task: Task, rows: list[dict], patience: int) -> bool:
    """No better primary metric in the last `patience` evaluations."""
    scored = [row for row in rows if task.primary in row]
    if not patience or len(scored) <= patience:
        return False
    best = records.best_row(task, scored)
    return best is None or all(row is not best for row in scored[-patience:])
