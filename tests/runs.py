"""Runs small enough for a test, and what is on their disk."""

import os
import signal
from pathlib import Path

import pytest

from experiments import figures
from experiments.build import build
from experiments.run import loop
from experiments.run.checkpoint import Checkpoints
from experiments.run.logs import Logs
from experiments.score.scorer import Scorer
from tests import plain, tiny

CONTRACT = {
    "train/denoise_mse",
    "val/denoise_mse",
    "val/task_mse",
    "ood/task_mse",
    "train/task_mse",
}
EVERY_STEP = {
    "train__steps_per_dispatch": 1,
    "train__log_every": 1,
    "train__eval_every": 3,
    "train__lr_schedule": "constant",  # a cosine would tie a run to its length
    "train__ema_warmup": 1,  # so that the average differs from the parameters
    "train__ema_every": 1,
}


def train(config, directory: Path, *, report: bool = True):
    """A run without its pictures, or without any report: most time of a tiny one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "write_all", lambda *_: None)
        if not report:
            patch.setattr(loop, "report", lambda *_: None)
        return loop.train_and_evaluate(config, directory)


def without_scores(patch: pytest.MonkeyPatch) -> None:
    """A score takes most of the time of so small a run: where nothing is said of it."""
    names = [f"{s}/task_mse{end}" for s in ("val", "ood") for end in ("", "/stderr")]
    patch.setattr(Scorer, "score", lambda *_: dict.fromkeys(names, 1.0))


def config_of(num_steps: int, **overrides):
    """The whole method around a plain energy."""
    overrides = EVERY_STEP | plain.of(4) | overrides
    return tiny.get_config("cd_full", train__num_steps=num_steps, **overrides)


def last_state(directory: Path, config):
    experiment = build(config)
    with Checkpoints(directory, experiment.task, read_only=True) as checkpoints:
        return checkpoints.restore(experiment.abstract_state)


def stop_at(step: int, config):
    """Sends this process a SIGTERM when the run logs `step`."""
    original = Logs.write

    def write(self, metrics):
        original(self, metrics)
        if metrics["step"] == step:
            Logs.write = original
            os.kill(os.getpid(), signal.SIGTERM)

    Logs.write = write
    return config
