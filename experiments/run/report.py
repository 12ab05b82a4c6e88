"""What a finished run leaves: the final figures, the table, pictures."""

import contextlib
from pathlib import Path

import jax
import numpy as np

from experiments import devices, figures
from experiments.build import Experiment
from experiments.errors import UserError
from experiments.run import workdir
from experiments.run.files import write_json
from experiments.run.logs import Logs, say
from experiments.run.meter import seconds_of
from experiments.score import baselines, records
from experiments.score.scorer import Scorer, score_seeds
from ired_jax.training import TrainState


def report(
    experiment: Experiment,
    scorer: Scorer,
    state: TrainState,
    logs: Logs,
    directory: Path,
) -> None:
    """Final figures on all held-out draws, the table, result.json and pictures."""
    task, num_examples = experiment.task, scorer.evaluation.num_examples
    step, params = int(np.max(state.step)), devices.everywhere(state.ema_params.energy)
    scores = score_seeds(scorer, experiment, params, step, num_examples)
    of_seeds = dict(zip(map(str, experiment.seeds), scores, strict=True))
    result = records.result(task, of_seeds, logs.rows)
    result["metrics"] = _last_of_training(experiment, logs) | result["metrics"]
    others = baselines.score(task, scorer, num_examples)
    for table in baselines.final_tables(task, result["metrics"], others):
        say(table)
    in_tables = {f"{split}/{m}" for split in task.splits for m in task.metrics}
    in_tables |= {*task.evaluators}
    for name in records.kinds(task):
        if name in result["metrics"] and name not in in_tables:
            say(f"{name:>24} {result['metrics'][name]:.6g}")
    first = experiment.of_seed(params, 0)
    figures.write_all(experiment, scorer, first, logs.rows, directory)
    shapes = [[num_examples, *y.shape] for y in jax.tree.leaves(task.example.y)]
    result |= {
        "step": step,
        "num_steps": experiment.periods.num_steps,
        "patience": experiment.periods.patience,
        "num_examples": num_examples,
        "answer_shape": shapes[0] if len(shapes) == 1 else shapes,
        "baselines": others,
        "training_seconds": seconds_of(logs.rows),
        **workdir.origin(directory),
    }
    _set_aside_other(directory, num_examples)
    write_json(directory / "result.json", result)


def set_aside(directory: Path, step: int) -> None:
    """A run that goes on keeps the figures of its earlier end, as `result-<step>`."""
    path = directory / "result.json"
    if devices.is_writer() and path.exists():
        path.replace(directory / f"result-{step}.json")


def _set_aside_other(directory: Path, num_examples: int) -> None:
    """Figures on another number of rows stay, as `result-<step>-<rows>`."""
    path = directory / "result.json"
    if not devices.is_writer() or not path.exists():
        return
    with contextlib.suppress(UserError):  # a damaged one makes room
        found = records.read_result(directory)
        rows = found.get("num_examples")
        if rows != num_examples:
            path.replace(directory / f"result-{found['step']}-{rows}.json")


def _last_of_training(experiment: Experiment, logs: Logs) -> dict[str, float]:
    """What the objectives last reported of training."""
    names = [n for o in experiment.objectives.values() for n in o.metrics]
    last = logs.rows[-1] if logs.rows else {}  # its file was lost
    return {n: last[n] for n in names if n.startswith("train/") and n in last}
