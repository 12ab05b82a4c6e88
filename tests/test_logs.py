"""What a run says: declared names only, each step once, spikes and extremes kept."""

import json
import os
import sys
from types import SimpleNamespace

import pytest
from rich.errors import MarkupError

from experiments.errors import UserError
from experiments.run import logs
from experiments.run.files import write_bytes
from experiments.run.logs import Logs, read_rows
from experiments.run.schema import Schema, schema_of
from experiments.score.tables import tables
from ired_jax.objectives.base import Objective
from ired_jax.tasks.base import Evaluator
from ired_jax.tasks.inverse import make_inverse
from tests.mutants import Mutant, one

DENOISING = Objective(
    None, None, metrics={"train/denoise_mse": ("per element", "noise prediction")}
)
CONTRAST = Objective(
    None,
    None,
    metrics={
        "energy_pos": ("nats", "of data"),
        r"filter/q\d+_level\d+": ("residual", "quantile"),
        "margin": ("nats", "between"),
        "frac_sat": ("share", "saturated"),
        "filter/kept": ("share", "of the negatives"),
    },
)


def experiment(primary: str = "val/task_mse"):
    task = make_inverse(n=2)._replace(
        primary=primary, evaluators={"kl": Evaluator(lambda *_: 0.0, "low", "nats")}
    )
    objectives = {"denoising": DENOISING, "contrast": CONTRAST}
    return SimpleNamespace(task=task, objectives=objectives)


SCHEMA = schema_of(experiment())


def open_logs(directory, step: int = 0, schema: Schema = SCHEMA) -> Logs:
    return Logs(directory, schema, step=step, num_steps=100)


def test_names_that_nothing_declares_are_an_error(tmp_path):
    SCHEMA.check(["step", "train/loss", "norm/grad", "val/task_mse", "ood/task_mse"])
    SCHEMA.check(["filter/q50_level3", "margin", "train/task_mse/stderr", "kl"])
    SCHEMA.check(["val/denoise_mse/pred_mean", "train/loss/max", "margin/min"])
    for name in (
        "val/task_mae",
        "test/task_mse",
        "replay/size",
        "loss",
        "train/loss/x",
    ):
        with pytest.raises(KeyError, match=name):
            SCHEMA.check(["step", name])
        with open_logs(tmp_path) as lines, pytest.raises(KeyError, match=name):
            lines.write({"step": 1, name: 2.0})
    assert read_rows(tmp_path) == []
    assert all(isinstance(u, str) and m for u, m in SCHEMA.entries.values())


def test_a_split_may_have_any_name():
    of = experiment()
    splits = {"n+1": of.task.splits["val"]}
    of.task = of.task._replace(splits=splits, primary="n+1/task_mse")
    schema_of(of).check(["step", "n+1/task_mse"])
    with pytest.raises(KeyError):
        schema_of(of).check(["nn1/task_mse"])


@pytest.mark.parametrize(
    "primary, columns",
    [("val/task_mse", ("val/task_mse", "ood/task_mse")), ("kl", ("kl",))],
)
def test_the_screen_shows_what_the_run_is_about(primary, columns):
    assert schema_of(experiment(primary)).columns == (
        "train/loss",
        "train/denoise_mse",
        "energy_pos",
        "margin",
        "frac_sat",
        *columns,
    )


@pytest.mark.parametrize("width, dropped", [(120, 0), (60, 2), (50, 3), (5, 4)])
def test_a_narrow_screen_keeps_the_loss_and_what_the_run_is_about(width, dropped):
    names = SCHEMA.fitting(width, lambda name: 12 if "/" in name else 10)
    loss, *others = SCHEMA.columns
    assert len(others) == 6
    assert names == [loss, *others[: 4 - dropped], *others[4:]]


def test_the_line_on_the_screen_stands_under_its_titles(tmp_path, capsys):
    with open_logs(tmp_path) as lines:
        lines.write({"step": 7, "train/loss": 0.25, "margin": -1.5, "margin/max": 9.0})
    header, line = capsys.readouterr().out.splitlines()[:2]
    titles = ["step", "loss", "denoise_mse", "energy_pos", "margin", "frac_sat"]
    assert header.split() == [*titles, "val/task_mse", "ood/task_mse"]
    assert line.split() == ["7", "0.25", "-1.5"]
    assert header.index("margin") + len("margin") == len(line)


def test_a_line_that_was_cut_off_is_forgotten_and_written_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "train/loss": 1.0}\n{"step": 2, "train/lo')
    assert [row["step"] for row in read_rows(tmp_path)] == [1]
    with open_logs(tmp_path, step=1) as lines:
        lines.write({"step": 2, "train/loss": 0.5})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == [{"step": s, "train/loss": v} for s, v in ((1, 1.0), (2, 0.5))]


def test_a_resumed_run_forgets_what_was_logged_after_its_checkpoint(tmp_path):
    with open_logs(tmp_path) as lines:
        for step in (1, 2, 3):
            lines.write({"step": step, "train/loss": float(step)})
    with open_logs(tmp_path, step=2) as lines:
        lines.write({"step": 3, "train/loss": 9.0})
        assert lines.rows == read_rows(tmp_path)
    assert [row["train/loss"] for row in read_rows(tmp_path)] == [1.0, 2.0, 9.0]


def test_extremes_are_in_the_file_and_not_on_tensorboard(tmp_path):
    seen = []
    with open_logs(tmp_path) as lines:
        lines._board.add_scalar = lambda name, value, step: seen.append((name, step))
        lines.write({"step": 1, "train/loss": 1.0, "train/loss/max": 2.0})
    assert seen == [("train/loss", 1)]
    assert read_rows(tmp_path)[0]["train/loss/max"] == 2.0


def test_a_file_is_written_whole_or_left_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_bytes(path, b"good")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"result\.json could not be written: No space"):
        write_bytes(path, b"better, but too long for the disk")
    assert path.read_bytes() == b"good"
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_a_path_with_brackets_is_said_as_it_is(capsys):
    path = "a[bold]/b[/c].npy"
    logs.say(f"{path} :cat:")
    for table in tables(path, [path], {path: [path]}, caption=path):
        logs.say(table)
    said = capsys.readouterr().out
    assert said.count(path) == 6
    assert ":cat:" in said


def test_the_time_left_is_printed_where_nobody_watches(tmp_path, capsys):
    with open_logs(tmp_path) as lines:
        lines.advance(1, 1.0, None)
        lines.advance(2, 1.0, "0.25 s a step, about 42 min left")
    assert capsys.readouterr().out.count("42 min left") == 1


def test_a_log_does_not_wait_for_torch(tmp_path, monkeypatch):
    for name in [*sys.modules]:
        if name.split(".")[0] in ("tensorboardX", "torch"):
            monkeypatch.delitem(sys.modules, name)
    (tmp_path / "torch.py").write_text("class Tensor: ...")
    monkeypatch.syspath_prepend(tmp_path)
    with open_logs(tmp_path):
        assert "tensorboardX" in sys.modules
        assert "torch" not in sys.modules
    import torch

    assert torch.__file__ == str(tmp_path / "torch.py")


LOGS = "experiments.run.logs"
MUTANTS = [
    Mutant(
        "logs",
        "brackets of a path are taken for markup",
        LOGS,
        one("markup=False, ", ""),
        test_a_path_with_brackets_is_said_as_it_is,
        error=MarkupError,
    ),
    Mutant(
        "logs",
        "the name of a split is a pattern",
        "experiments.score.records",
        one("re.escape(name): (unit", "name: (unit"),
        test_a_split_may_have_any_name,
        error=KeyError,
    ),
    Mutant(
        "logs",
        "unknown names are written",
        LOGS,
        one("self._schema.check(metrics)", "pass"),
        test_names_that_nothing_declares_are_an_error,
    ),
    Mutant(
        "logs",
        "every log imports torch",
        LOGS,
        one('is_hidden = "torch" not in sys.modules', "is_hidden = False"),
        test_a_log_does_not_wait_for_torch,
    ),
    Mutant(
        "logs",
        "a resumed run goes on after a line that was cut off",
        LOGS,
        one("write_bytes(self._path, kept.encode())", "pass"),
        test_a_line_that_was_cut_off_is_forgotten_and_written_again,
        error=json.JSONDecodeError,
    ),
    Mutant(
        "logs",
        "lines later than the checkpoint stay",
        LOGS,
        one('if row["step"] <= step]', "]"),
        test_a_resumed_run_forgets_what_was_logged_after_its_checkpoint,
    ),
    Mutant(
        "logs",
        "files written in place",
        "experiments.run.files",
        one('path.with_name(path.name + ".tmp")', "path"),
        test_a_file_is_written_whole_or_left_as_it_was,
        error=OSError,
    ),
]
