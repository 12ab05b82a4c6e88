"""Sweeps: what is refused before the start, what a failing point stops, what stays."""

import errno
import functools
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import SimpleNamespace

import jax
import pytest
import submitit
from rich.console import Console

from configs.sweeps import base
from configs.sweeps.base import Sweep, grid, listed
from experiments import fields, sweep, train
from experiments.build import build
from experiments.errors import UserError
from experiments.run import code, workdir
from experiments.run.interrupt import Interrupt
from experiments.sweeps import copies, estimate, jobs, points, status
from experiments.sweeps.estimate import Cost
from tests import plain, tiny
from tests.mutants import Mutant, one

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / "configs" / "sweeps").glob("[!_]*.py"))
FILES = [path for path in FILES if path.stem != "base"]
PRIMARY = "val/task_mse"
OF_A_RUN = {"train.num_steps": 10, "train.patience": 0, "eval.num_examples": 9}

# Ten steps that go on from the last one on disk. It fails where K = 3 and `broken` is
# there, with K = 5 waits for a signal at step 4, as a run does, the first time that it
# comes there, and takes its time with K = 1, so that the sweep looks between.
TRAINER = """
import json, pathlib, signal, sys, time
given = dict(text.lstrip("-").split("=", 1) for text in sys.argv[1:])
workdir, k = pathlib.Path(given["workdir"]), given["config.sampler.num_steps"]
if k == "3" and pathlib.Path(__file__).with_name("broken").exists():
    sys.exit("error: step 2: loss not finite")
signals, end, seen = [], time.monotonic() + 10, pathlib.Path(__file__).with_name("seen")
signal.signal(signal.SIGTERM, lambda *_: signals.append(1))
workdir.mkdir(parents=True, exist_ok=True)
path = workdir / "metrics.jsonl"
done = len(path.read_text().splitlines()) if path.exists() else 0
print("from step", done, flush=True)
time.sleep(0.7 * (k == "1"))
for step in range(done + 1, 11):
    row = {"step": step, "steps_per_second": 2.0, "val/task_mse": 1 / step}
    with path.open("a") as file:
        file.write(json.dumps(row) + "\\n")
    if k == "5" and step == 4 and not seen.exists():
        seen.touch()
        while not signals and time.monotonic() < end:
            time.sleep(0.01)
    if signals:
        (workdir / "checkpoints" / str(step)).mkdir(parents=True, exist_ok=True)
        sys.exit("error: interrupted at step 4, saved; the same command resumes")
(workdir / "checkpoints" / "10").mkdir(parents=True, exist_ok=True)
result = {"step": 10, "metrics": {"val/task_mse": 0.05}, "primary": "val/task_mse"}
result |= {"records": [], "seeds": {}}
(workdir / "result.json").write_text(json.dumps(result))
"""
SWEEP = """
from configs.sweeps.base import Sweep, listed
def get_sweep():
    points = listed("sampler.num_steps", {values})
    shared = {{"train.num_steps": 10}}
    return Sweep("configs/cd_full.py:smoke", points, shared, seeds=2, hours=1.0)
"""


class Fake:
    """A sweep whose points a small script trains."""

    def __init__(self, monkeypatch, tmp_path, values="2, 3"):
        (tmp_path / "trainer.py").write_text(TRAINER)
        self.file, self.folder = tmp_path / "toy.py", tmp_path / "runs"
        self.file.write_text(SWEEP.format(values=values))
        self.broken = tmp_path / "broken"
        made = SimpleNamespace(task=SimpleNamespace(primary=PRIMARY))
        monkeypatch.setattr(points, "build", lambda values: made)
        trainer = (sys.executable, str(tmp_path / "trainer.py"))
        monkeypatch.setattr(points, "TRAIN", trainer)

    def run(self, *arguments, estimates=False):
        argv = [f"--config={self.file}", f"--workdir={self.folder}"]
        argv += ["--allow_changes", *([] if estimates else ["--noestimate"])]
        sweep.main(["sweep", *argv, *arguments])

    def point(self, k):
        planned = points.plan(points.load(str(self.file)), self.folder, {})
        return next(p for p in planned if p.name == f"num_steps={k}")

    def job(self, k, scratch=None):
        point = self.point(k)
        return jobs.Job(point.command, point.directory, scratch)

    def states(self):
        return {row.name: row.state for row in status.look(self.folder)}

    def log(self, k):
        return (self.folder / f"num_steps={k}.log").read_text()


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# What a sweep is


def test_a_grid_is_every_choice_of_a_point_from_each_axis():
    found = grid({"a": {}, "b": {"presets": "mlp"}}, listed("sampler.num_steps", 1, 5))
    assert list(found) == [
        *("a-num_steps=1", "a-num_steps=5", "b-num_steps=1", "b-num_steps=5")
    ]
    assert found["b-num_steps=5"] == {"presets": "mlp", "sampler.num_steps": 5}


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: listed("loss.weight", 0.1, 1e-1), "weight=0.1 is there twice"),
        (lambda: grid({"a-b": {}, "a": {}}, {"c": {}, "b-c": {}}), "a-b-c is there"),
        (lambda: grid({"a": {"seed": 1}}, {"b": {"seed": 2}}), "seed set by b"),
    ],
)
def test_points_that_would_hide_each_other_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def plan(found, monkeypatch, config="configs/cd_full.py:smoke"):
    made = SimpleNamespace(task=SimpleNamespace(primary=PRIMARY))
    monkeypatch.setattr(points, "build", lambda values: made)
    return points.plan(Sweep(config, found), pathlib.Path("runs/toy"), {})


@pytest.mark.parametrize(
    "second",
    [
        {"sampler.num_steps": 10},  # the default, said
        {"base": "configs/cd_langevin_replay.py:smoke", "loss.warmup": 8}
        | {"negatives.level_low": 0.2, "negatives.level_high": 0.8}
        | {"filter.mode": "batch_quantile"},  # the same by another way
    ],
)
def test_two_points_that_resolve_to_the_same_run_are_refused(second, monkeypatch):
    with pytest.raises(UserError, match="a and b: are the same run"):
        plan({"a": {}, "b": second}, monkeypatch)
    assert plan({"a": {}, "b": {**second, "loss.weight": 0.07}}, monkeypatch)


@pytest.mark.parametrize(
    "point, said",
    [
        ({"sampler.steps": 3}, "a: sampler.steps: there is no such field"),
        ({"loss.weight": -1.0}, "a: loss.weight=-1.0: must be at least 0"),
        ({"presets": "none_such"}, "preset 'none_such' is unknown"),
        ({"presets": ["mlp"]}, r"a: presets=\['mlp'\]: must be a text"),
        ({"base": None}, "a: base=None: must be a text"),
    ],
)
def test_a_point_that_cannot_work_is_refused_by_its_name(point, said, monkeypatch):
    with pytest.raises(UserError, match=said):
        plan({"a": point}, monkeypatch)


@pytest.mark.parametrize(
    "returned, said",
    [
        ("None", "get_sweep must return a Sweep, with points"),
        ("Sweep('a.py', {})", "get_sweep must return a Sweep, with points"),
        ("Sweep('a.py', {'b': None})", r"b=None: must be {group\.field: value}"),
        ("Sweep('a.py', {'b': {3: 4}})", r"b={3: 4}: must be {group\.field: value}"),
        ("Sweep('a.py', {'b': {}}, None)", "shared=None: must be {group"),
        ("Sweep('a.py', {'b': {}}, seeds='5')", "seeds='5': must be a whole number"),
        ("Sweep('a.py', {'b': {}}, seeds=0)", "seeds=0: must be a whole number, at"),
        ("Sweep('a.py', {'b': {}}, hours='1')", "hours='1': must be a number, or No"),
        ("Sweep(None, {'b': {}})", "base=None: must be a config"),
        ("{}['b']", r"KeyError\('b'\)"),
    ],
)
def test_a_file_that_gives_no_sweep_is_refused_in_a_sentence(returned, said, tmp_path):
    file = tmp_path / "toy.py"
    file.write_text(
        "from configs.sweeps.base import Sweep\n"
        f"def get_sweep():\n    return {returned}\n"
    )
    with pytest.raises(UserError, match=f"toy.py: {said}"):
        points.load(str(file))


TOO_LONG = 201 * "a"


@pytest.mark.parametrize("name", ["../a", 3, TOO_LONG, "a.part", "a.log", "submitit"])
def test_a_name_that_is_no_folder_is_refused(name, monkeypatch):
    with pytest.raises(UserError, match="the name of a point must do"):
        plan({name: {}}, monkeypatch)
    plan({TOO_LONG[1:]: {}}, monkeypatch)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_study_is_a_sweep_of_different_runs_on_paired_seeds(path, monkeypatch):
    made = SimpleNamespace(task=SimpleNamespace(primary=PRIMARY))
    monkeypatch.setattr(points, "build", lambda values: made)
    study = points.load(str(path))
    planned = points.plan(study, pathlib.Path("runs"), {})
    assert len(planned) == len(study.points) > 1
    assert study.seeds >= 5
    for point in planned:
        assert point.values["train.num_seeds"] == study.seeds
    (first_seed,) = {p.values["seed"] for p in planned}
    text = path.read_text()
    if planned[0].values["task.name"] == "inverse":  # a study of the documents
        assert {p.values["task.n"] for p in planned} == {10}
        assert {p.values["energy.name"] for p in planned} == {"matrix", "mlp"}
        assert "What differs from the documents" in text
        assert first_seed == 0
    assert f"--config=configs/sweeps/{path.name}" in text
    assert path.name in (ROOT / "docs" / "sweeps.md").read_text()


def test_the_command_of_a_point_is_read_back_to_the_same_fields(monkeypatch):
    thresholds = tuple(i / 3 for i in range(10))
    found = {"a": {"filter.mode": "fixed", "filter.thresholds": thresholds}}
    (point,) = plan(found, monkeypatch)
    assert point.values["filter.thresholds"] == thresholds
    assert point.values["train.num_seeds"] == 5
    assert f"--config.filter.thresholds={','.join(map(str, thresholds))}" in point[-1]


# Running it


def test_a_failing_point_stops_no_other_and_shows(monkeypatch, tmp_path, capsys):
    fake = Fake(monkeypatch, tmp_path, "3, 1, 2")
    fake.broken.touch()
    with pytest.raises(UserError, match="1 of 3 points not done: num_steps=3 failed"):
        fake.run()
    assert fake.states() == {
        "num_steps=3": "failed",
        "num_steps=1": "done",
        "num_steps=2": "done",
    }
    capsys.readouterr()
    fake.run("--status")
    said = capsys.readouterr().out
    assert "num_steps=3: error: step 2: loss not finite" in said
    assert all(word in said for word in (PRIMARY, "0.05", "failed", "done"))
    fake.broken.unlink()  # the same command again: only what is not done
    fake.run("--parallel=2")
    assert set(fake.states().values()) == {"done"}
    assert fake.log(1).count("from step") == 1


def test_only_the_points_that_were_named_are_trained(monkeypatch, tmp_path, capsys):
    fake = Fake(monkeypatch, tmp_path, "4, 2, 12")
    fake.run("--points=*=1?,*=2", "--dry_run")
    assert capsys.readouterr().out.count("trainer.py") == 2
    fake.run("--points=*=1?,*=2")
    assert fake.states() == {
        "num_steps=4": "waiting",
        "num_steps=2": "done",
        "num_steps=12": "done",
    }
    for names, said in (("x", "x"), ("*=2,x", "x"), ("", "")):
        said = f"^--points={said}: must match one of num_steps=4, num"
        with pytest.raises(UserError, match=said):
            fake.run(f"--points={names}")


def test_a_point_of_another_config_is_refused_and_not_told_as_done(
    monkeypatch, tmp_path
):
    fake = Fake(monkeypatch, tmp_path, "2, 4")
    point = fake.point(2)
    workdir.claim(point.directory, fields.nest(point.values))
    fake.run("--points=*=2")
    before = (fake.folder / "sweep.json").read_text()
    said = r"num_steps=2 belongs to another config: loss.weight is [\d.]+ there and 0.5"
    for names in ("*", "*=4"):
        with pytest.raises(UserError, match=said):
            fake.run("--config.loss.weight=0.5", f"--points={names}")
    assert (fake.folder / "sweep.json").read_text() == before
    assert fake.states() == {"num_steps=2": "done", "num_steps=4": "waiting"}


def test_a_point_that_is_made_longer_goes_on(monkeypatch, tmp_path):
    fake = Fake(monkeypatch, tmp_path, "2")
    text = fake.file.read_text()
    fake.file.write_text(text.replace("10}", '10, "train.lr_schedule": "constant"}'))
    point = fake.point(2)
    workdir.claim(point.directory, fields.nest(point.values))
    fake.run()
    with pytest.raises(UserError, match="1 of 1 points not done"):  # it ends at step 10
        fake.run("--config.train.num_steps=20")
    assert "from step 10" in fake.log(2)


@pytest.mark.parametrize(
    "num_steps, patience, state",
    [
        (10, 2, "done"),
        (10, 1, "done"),  # it would have stopped before
        (20, 2, "waiting"),
        (10, 3, "waiting"),
        (10, 0, "waiting"),
        (4, 0, "done"),
    ],
)
def test_what_stopped_early_is_done_where_it_would_stop_again(
    num_steps, patience, state, tmp_path
):
    values = {**OF_A_RUN, "train.num_steps": num_steps, "train.patience": patience}
    point = points.Point("a", tmp_path / "a", values, PRIMARY, [])
    status.claim(tmp_path, [point], None)
    result = {"step": 6, "num_steps": 10, "patience": 2, "metrics": {}}
    result |= {"primary": PRIMARY, "records": [], "seeds": {}}
    point.directory.mkdir()
    (point.directory / "result.json").write_text(json.dumps(result))
    assert [row.state for row in status.look(tmp_path)] == [state]


@pytest.mark.parametrize(
    "written, state", [(64, "waiting"), (9, "done"), (None, "done")]
)
def test_figures_on_another_number_of_rows_are_not_what_was_asked_for(
    written, state, tmp_path
):
    point = points.Point("a", tmp_path / "a", OF_A_RUN, PRIMARY, [])
    status.claim(tmp_path, [point], None)
    result = {"step": 10, "metrics": {}, "primary": PRIMARY, "records": [], "seeds": {}}
    result |= {"num_examples": written} if written else {}
    point.directory.mkdir()
    (point.directory / "result.json").write_text(json.dumps(result))
    assert [row.state for row in status.look(tmp_path)] == [state]


@pytest.mark.parametrize("step, state", [(10, "done"), (4, "waiting")])
def test_a_sweep_of_an_earlier_version_takes_figures_on_any_rows(step, state, tmp_path):
    point = points.Point("a", tmp_path / "a", OF_A_RUN, PRIMARY, [])
    status.claim(tmp_path, [point], None)
    about = json.loads((tmp_path / "sweep.json").read_text())
    for of_point in about["points"].values():
        del of_point["num_examples"]
    (tmp_path / "sweep.json").write_text(json.dumps(about))
    result = {"step": step, "metrics": {}, "primary": PRIMARY, "records": []}
    point.directory.mkdir()
    text = json.dumps(result | {"seeds": {}, "num_examples": 64})
    (point.directory / "result.json").write_text(text)
    assert [row.state for row in status.look(tmp_path)] == [state]


INTERRUPTED = "error: interrupted at step 4, saved"
NOT_FINITE = "error: step 2: loss not finite"


@pytest.mark.parametrize(
    "tries, state, why",
    [
        ([[INTERRUPTED, "exit code 2"], ["exit code -9"]], "failed", "exit code -9"),
        ([[NOT_FINITE, "exit code 1"], ["exit code -9"]], "failed", "exit code -9"),
        ([[INTERRUPTED], ["exit code -9"]], "failed", "exit code -9"),
        ([["exit code -9"], [INTERRUPTED, "exit code 2"]], "stopped", ""),
        ([[NOT_FINITE, "exit code 1"], []], "stopped", ""),
        ([[NOT_FINITE]], "failed", NOT_FINITE),
        ([["error: interrupted", "exit code -2"]], "stopped", ""),  # at its start
        ([["exit code 0"]], "waiting", ""),  # for more steps than it was
    ],
)
def test_how_a_point_ended_is_what_its_last_try_says(tries, state, why, tmp_path):
    point = points.Point("a", tmp_path / "a", OF_A_RUN, PRIMARY, [])
    status.claim(tmp_path, [point], None)
    lines = [line for each in tries for line in (jobs.BEGUN, *each)]
    (tmp_path / "a.log").write_text("\n".join(lines) + "\n")
    (row,) = status.look(tmp_path)
    assert (row.state, row.why) == (state, why)


def test_a_scratch_that_cannot_be_made_fails_its_point(monkeypatch, tmp_path):
    fake, scratch = Fake(monkeypatch, tmp_path, "2"), tmp_path / "scratch"
    scratch.touch()
    fake.run()  # there is something to copy
    (fake.folder / "num_steps=2" / "result.json").unlink()
    with pytest.raises(UserError, match="not done: num_steps=2 failed"):
        fake.run(f"--scratch={scratch}")
    (row,) = status.look(fake.folder)
    assert row.why.startswith("error: [Errno")


def test_an_interrupted_sweep_resumes_each_point_where_it_was(
    monkeypatch, tmp_path, capsys
):
    fake = Fake(monkeypatch, tmp_path, "5, 2")
    metrics = fake.folder / "num_steps=5" / "metrics.jsonl"

    def interrupt():
        wait_for(lambda: metrics.exists() and metrics.read_text().count("\n") == 4)
        assert fake.states() == {"num_steps=5": "running", "num_steps=2": "waiting"}
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(UserError, match="interrupted, all points saved"):
        fake.run()
    thread.join()
    assert fake.states() == {"num_steps=5": "stopped", "num_steps=2": "waiting"}
    assert "interrupted at step 4, saved" in fake.log(5)
    said = "".join(capsys.readouterr().out.split())
    assert said.endswith("num_steps=5:stopped")
    fake.run()
    assert fake.states() == {"num_steps=5": "done", "num_steps=2": "done"}
    assert "from step 4" in fake.log(5)


def test_a_point_is_trained_by_one_process_at_a_time(monkeypatch, tmp_path):
    fake = Fake(monkeypatch, tmp_path, "5")
    monkeypatch.setattr(jobs, "TRIES", 1)
    job = fake.job(5)
    thread = threading.Thread(target=job)
    thread.start()
    wait_for(lambda: (job.directory / "metrics.jsonl").exists())
    with pytest.raises(UserError, match="another process trains it"):
        fake.job(5)()
    job.stop()
    thread.join()
    assert not jobs.is_running(job.directory)


def test_a_disk_without_locks_is_named(monkeypatch, tmp_path):
    fake = Fake(monkeypatch, tmp_path, "2")
    fake.run()

    def fail(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(jobs.fcntl, "flock", fail)
    said = r"num_steps=2\.log: cannot be locked, as a sweep needs it \(Function not"
    for use in (fake.states, fake.job(2)):
        with pytest.raises(UserError, match=said):
            use()


def test_a_line_without_a_rate_has_no_time_left(monkeypatch, tmp_path):
    point = points.Point("a", tmp_path / "a", OF_A_RUN, PRIMARY, [])
    status.claim(tmp_path, [point], None)
    point.directory.mkdir()
    (point.directory / "metrics.jsonl").write_text('{"step": 5}\n')
    monkeypatch.setattr(status, "is_running", lambda directory: True)
    (row,) = status.look(tmp_path)
    assert (row.step, row.seconds_left) == (5, None)


def test_results_come_back_from_scratch_when_the_time_is_over(monkeypatch, tmp_path):
    """In a signal handler, as submitit calls it, in the midst of waiting."""
    fake, scratch = Fake(monkeypatch, tmp_path, "5"), tmp_path / "scratch"
    job, again = fake.job(5, scratch), []
    metrics = job._workdir / "metrics.jsonl"

    def handle(number, frame):
        again.append(job.checkpoint())
        raise SystemExit

    def end_the_time():
        wait_for(lambda: metrics.exists() and metrics.read_text().count("\n") == 4)
        os.kill(os.getpid(), signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, handle)
    threading.Thread(target=end_the_time).start()
    try:
        with pytest.raises(SystemExit):
            job()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert (job.directory / "metrics.jsonl").read_text().count("\n") == 4
    shutil.rmtree(scratch)  # the next node
    assert again[0].function() == 0
    assert "from step 4" in fake.log(5)
    assert (job.directory / "result.json").exists()


def test_scratch_holds_no_run_of_another_sweep(monkeypatch, tmp_path):
    fake, scratch = Fake(monkeypatch, tmp_path, "2"), tmp_path / "scratch"
    assert fake.job(2, scratch)() == 0
    assert not list(scratch.iterdir())  # what is back
    first = fake.job(2, scratch)
    fake.folder = tmp_path / "other"
    assert first._workdir != fake.job(2, scratch)._workdir


def test_a_run_that_was_removed_begins_anew_in_scratch(monkeypatch, tmp_path):
    fake, scratch = Fake(monkeypatch, tmp_path, "2"), tmp_path / "scratch"
    job = fake.job(2, scratch)
    assert job() == 0
    shutil.rmtree(job.directory)
    assert fake.job(2, scratch)() == 0
    assert fake.log(2).count("from step 0") == 2


@pytest.mark.parametrize("is_removed, step", [(False, 10), (True, 0)])
def test_what_did_not_come_back_from_scratch_does_at_the_next_start(
    is_removed, step, monkeypatch, tmp_path
):
    fake, scratch = Fake(monkeypatch, tmp_path, "2"), tmp_path / "scratch"
    with monkeypatch.context() as patched:
        patched.setattr(jobs.Job, "_bring_back", lambda job: None)  # it was killed
        assert fake.job(2, scratch)() == 0
    job = fake.job(2, scratch)
    assert (job._workdir / "result.json").exists()
    if is_removed:  # the sweep, before it is begun anew
        shutil.rmtree(fake.folder)
    assert job() == 0
    assert fake.log(2).splitlines()[-2] == f"from step {step}"
    assert (job.directory / "result.json").exists()


def test_what_is_left_in_scratch_replaces_nothing_that_is_further(
    monkeypatch, tmp_path
):
    fake, scratch = Fake(monkeypatch, tmp_path, "2"), tmp_path / "scratch"
    job = fake.job(2, scratch)
    assert job() == 0
    (job._workdir / "checkpoints" / "9").mkdir(parents=True)  # on another node since
    (job._workdir / "metrics.jsonl").write_text("{}\n" * 9)
    assert job() == 0
    assert fake.log(2).splitlines()[-2] == "from step 10"


def half_a_copytree(source, target):
    target.mkdir()
    raise KeyboardInterrupt


def half_an_rmtree(path, ignore_errors):
    if path.exists():
        (path / "metrics.jsonl").unlink()
        raise KeyboardInterrupt


CUTS = [("copytree", half_a_copytree, 3), ("rmtree", half_an_rmtree, 6)]


@pytest.mark.parametrize("function, half, left", CUTS)
def test_a_copy_that_was_cut_off_leaves_a_whole_run(
    function, half, left, monkeypatch, tmp_path
):
    """Six steps are copied over three of the same run."""
    fake, source = Fake(monkeypatch, tmp_path, "2"), tmp_path / "source"
    job = fake.job(2)
    for folder, count in ((job.directory, 3), (source, 6)):
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text("{}\n" * count)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, function, half)
        with pytest.raises(KeyboardInterrupt):
            copies.copy_whole(source, job.directory)
    assert job() == 0
    assert f"from step {left}" in fake.log(2)
    assert len(list(fake.folder.iterdir())) == 2  # with its log


def test_results_come_back_if_the_time_is_over_while_they_do(monkeypatch, tmp_path):
    job = Fake(monkeypatch, tmp_path, "2").job(2, tmp_path / "scratch")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copytree", half_a_copytree)
        with pytest.raises(KeyboardInterrupt):
            job()
    job.checkpoint()
    assert (job.directory / "result.json").exists()


def test_a_scheduler_s_signal_is_a_wish_to_end():
    for number in (signal.SIGUSR2, signal.SIGHUP):
        before = signal.signal(number, lambda *_: None)  # by itself it kills
        try:
            with Interrupt() as interrupt:
                os.kill(os.getpid(), number)
                assert interrupt.is_set
        finally:
            signal.signal(number, before)


def test_a_closed_terminal_ends_nothing_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interrupt.is_set
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_sweep_is_an_array_of_a_cluster_s_jobs(monkeypatch, tmp_path):
    fake, tools = Fake(monkeypatch, tmp_path, "1, 2, 3"), tmp_path / "bin"
    tools.mkdir()
    script = tmp_path / "script.sh"
    for name, text in (
        ("sbatch", f'cp "$1" {script}; echo Submitted batch job 12'),
        ("srun", "true"),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    options = "--options=timeout_min=90,gpus_per_node=1,slurm_partition=gpu"
    fake.run("--executor=slurm", "--parallel=2", "--exclude=n3,n7", options)
    text = script.read_text()
    for line in ("array=0-2%2", "exclude=n3,n7", "time=90", "partition=gpu"):
        assert f"#SBATCH --{line}\n" in text
    (first,) = fake.folder.glob("submitit/12_0_submitted.pkl")
    assert submitit.core.utils.DelayedSubmission.load(first)._timeout_countdown > 1000
    fake.run("--executor=slurm")
    assert "#SBATCH --time=240\n" in script.read_text()  # submitit's own are five
    with pytest.raises(UserError, match="no_such"):
        fake.run("--executor=slurm", "--options=slurm_no_such=1")


@pytest.mark.parametrize("options", [{}, {"timeout_min": 600}])
def test_a_job_of_this_machine_has_the_time_that_it_needs(
    options, monkeypatch, tmp_path
):
    seen, job = [], Fake(monkeypatch, tmp_path).job(2)

    def start(timeout_min, **given):
        seen.append(timeout_min)
        return SimpleNamespace(pid=1, poll=lambda: 0)

    monkeypatch.setattr(submitit.local.local, "start_controller", start)
    where = {"folder": tmp_path / "jobs", "cluster": "local", "parallel": 1}
    jobs.submit([job], **where, options=options)
    assert seen == [options.get("timeout_min", 10**6)]


def test_what_slurm_has_queued_and_what_was_not_named_is_not_told_as_failed(
    monkeypatch, tmp_path
):
    fake, queued = Fake(monkeypatch, tmp_path), SimpleNamespace(job_id="12")
    fake.broken.touch()
    with pytest.raises(UserError, match="1 of 2 points not done: num_steps=3 failed"):
        fake.run()
    monkeypatch.setattr(jobs, "submit", lambda *_, **options: [queued])
    fake.run("--executor=slurm")
    (fake.folder / "num_steps=2" / "result.json").unlink()
    fake.run("--points=*=2")
    assert fake.states() == {"num_steps=2": "done", "num_steps=3": "failed"}


def test_a_sweep_whose_points_are_not_done_says_so(monkeypatch, tmp_path):
    fake = Fake(monkeypatch, tmp_path)
    monkeypatch.setattr(jobs, "run_here", lambda *_: None)
    said = "^2 of 2 points not done: num_steps=2 waiting, num_steps=3 waiting"
    with pytest.raises(UserError, match=said):
        fake.run()


def test_submitit_runs_a_point(monkeypatch, tmp_path):
    fake, sleep = Fake(monkeypatch, tmp_path, "2"), time.sleep
    # submitit looks once a second whether its process has ended.
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(seconds / 50))
    fake.run("--executor=local")
    assert fake.states() == {"num_steps=2": "done"}


def test_without_a_cluster_it_is_said(monkeypatch, tmp_path):
    with pytest.raises(UserError, match='executor=slurm: Could not detect "srun"'):
        Fake(monkeypatch, tmp_path).run("--executor=slurm")


IDLE = [
    (("--exclude=n3,n7",), "--exclude=n3,n7: needs --executor=slurm, not here"),
    (("--exclude=n3", "--executor=local"), "needs --executor=slurm, not local"),
    (("--options=a=1",), "--options=a=1: needs --executor=slurm or local, not here"),
    (("--options=timeout_min",), "--options=timeout_min: must be name=value"),
    (("--hours=3",), "--hours=3: needs the estimate, must be without --noestimate"),
    (("--dry_run", "--hours=-1"), "--hours=-1: .* must be without --dry_run"),
    (
        ("--executor=local", "--parallel=2"),
        "--parallel=2: needs --executor=here or slurm, not local",
    ),
]


@pytest.mark.parametrize("arguments, said", IDLE)
def test_flags_that_would_do_nothing_are_refused(
    arguments, said, monkeypatch, tmp_path
):
    fake = Fake(monkeypatch, tmp_path)
    with pytest.raises(UserError, match=said):
        fake.run(*arguments)
    assert not fake.folder.exists()


def test_a_dry_run_tells_the_commands_and_makes_nothing(monkeypatch, tmp_path, capsys):
    fake = Fake(monkeypatch, tmp_path)
    fake.run("--dry_run", "--config.loss.weight=0.07")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all("--config.loss.weight=0.07" in line for line in lines)
    assert lines[1].endswith(f"--workdir={fake.folder}/num_steps=3")
    assert not fake.folder.exists()


def test_help_tells_the_fields_of_the_base(monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit):
        Fake(monkeypatch, tmp_path).run("--help")
    assert "--config.sampler.num_steps=10" in capsys.readouterr().out


def test_a_sweep_with_nothing_to_do_tells_how_it_stands(monkeypatch, tmp_path, capsys):
    fake = Fake(monkeypatch, tmp_path)
    fake.run()
    capsys.readouterr()
    fake.run()
    assert capsys.readouterr().out.count("done") == 2
    monkeypatch.setattr(status, "is_running", lambda directory: True)
    said = "^2 of 2 points not done: num_steps=2 running, num_steps=3 running"
    with pytest.raises(UserError, match=said):
        fake.run()


@pytest.mark.parametrize(
    "flags, share", [(["--executor=local"], "0.450"), (["--parallel=8"], "0.450")]
)
def test_the_points_that_are_left_share_the_memory(flags, share, monkeypatch, tmp_path):
    fake, seen = Fake(monkeypatch, tmp_path), []
    for name in jobs.FRACTIONS:
        monkeypatch.delenv(name, raising=False)

    def take(given, *_, **more):
        seen.extend(job._made_of[-1] for job in given)
        return []

    for name in ("submit", "run_here"):
        monkeypatch.setattr(jobs, name, take)
    with pytest.raises(UserError, match="2 of 2 points not done"):
        fake.run(*flags)
    assert seen == [{"XLA_PYTHON_CLIENT_MEM_FRACTION": share}] * 2


def test_points_side_by_side_share_a_gpu_s_memory(monkeypatch):
    for name in jobs.FRACTIONS:
        monkeypatch.delenv(name, raising=False)
    assert jobs.shared_device(1) == {}
    (share,) = jobs.shared_device(3).values()
    assert 3 * float(share) == pytest.approx(0.9)
    for name in jobs.FRACTIONS:  # whoever says a share of their own
        with monkeypatch.context() as patched:
            patched.setenv(name, "0.2")
            assert jobs.shared_device(3) == {}


def test_the_table_of_a_sweep_fits_a_terminal():
    row = status.Row("a" * 60, "running", 99_990, 100_000, PRIMARY, 1.23e-12, 9e6)
    screen = io.StringIO()
    Console(file=screen, width=80).print(status.table([row], "toy"))
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    for cell in ("running", "99990", "100000", "1.23e-12", "104 d 4 h"):
        assert any(cell in line for line in lines)


# Estimates


LIMITS = [
    (3, 1.0, 1, True, "hours=1: the steps alone take 1 h 30 min"),
    (3, 2.0, 3, True, "a step needs 3 GiB"),
    (3, 2.0, 2, True, None),
    (3, 1.0, 2, False, None),  # each on a device of its own
    (3, 0.4, 3, False, "hours=0.4"),  # the longest is the least
    (3, None, 1, True, None),
]


@pytest.mark.parametrize("count, hours, parallel, is_shared, said", LIMITS)
def test_what_does_not_fit_into_memory_or_time_is_refused(
    count, hours, parallel, is_shared, said
):
    found = {str(i): Cost(2**30, 1800.0) for i in range(count)}
    limits = {"have_bytes": 2.5 * 2**30, "hours": hours, "parallel": parallel}
    if said is None:
        return estimate.refuse_if_too_much(found, **limits, is_shared=is_shared)
    with pytest.raises(UserError, match=said):
        estimate.refuse_if_too_much(found, **limits, is_shared=is_shared)
    return None


def test_a_sweep_that_does_not_fit_starts_nothing(monkeypatch, tmp_path):
    fake = Fake(monkeypatch, tmp_path)
    hour = Cost(1, 3600.0)
    monkeypatch.setattr(
        estimate, "in_child", lambda planned, _: (dict.fromkeys(planned, hour), 2**30)
    )
    with pytest.raises(UserError, match="hours=1: the steps alone take 2 h"):
        fake.run(estimates=True)
    assert set(fake.states().values()) == {"waiting"}
    assert not list(fake.folder.glob("*.log"))
    fake.run("--hours=2.5", estimates=True)
    assert set(fake.states().values()) == {"done"}


@pytest.mark.parametrize(
    "steps, seconds", [(0, 20 * 1.0 + 10 * 100.0), (19, 1001.0), (25, 500.0), (30, 0.0)]
)
def test_an_estimate_is_of_the_steps_of_each_phase_that_are_left(
    monkeypatch, steps, seconds
):
    config = tiny.get_config(
        "on_trajectory", train__num_steps=30, train__denoise_share=2 / 3, **plain.of(2)
    )
    of_step = iter([1.0, 100.0] if steps < 20 else [100.0])  # one a program
    monkeypatch.setattr(estimate, "_measured", lambda *_: (7, next(of_step)))
    found = estimate.costs({"a": fields.flatten(config)}, {"a": steps})
    assert found == {"a": Cost(7 if seconds else 0, seconds)}


def test_an_interrupted_sweep_takes_less_time(monkeypatch, tmp_path):
    fake, asked = Fake(monkeypatch, tmp_path), []
    monkeypatch.setattr(
        estimate,
        "in_child",
        lambda planned, steps: (
            asked.append(steps) or dict.fromkeys(planned, Cost(1, 1.0)),
            2**30,
        ),
    )
    folder = fake.folder / "num_steps=2"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"step": 5}\n')
    fake.run(estimates=True)
    assert asked == [{"num_steps=2": 5, "num_steps=3": 0}]


def test_an_estimate_whose_process_is_killed_is_an_error(monkeypatch):
    class Killed(ProcessPoolExecutor):
        def submit(self, *_):
            future = Future()
            future.set_exception(BrokenProcessPool("gone"))
            return future

    monkeypatch.setattr(estimate.concurrent.futures, "ProcessPoolExecutor", Killed)
    with pytest.raises(UserError, match=r"process was killed, .* \(--noestimate"):
        estimate.in_child({}, {})


def test_a_sweep_that_says_no_hours_may_take_a_day(monkeypatch, tmp_path):
    fake = Fake(monkeypatch, tmp_path)
    fake.file.write_text(fake.file.read_text().replace(", hours=1.0", ""))
    half = Cost(1, 13 * 3600.0)
    monkeypatch.setattr(
        estimate, "in_child", lambda planned, _: (dict.fromkeys(planned, half), 2**30)
    )
    with pytest.raises(UserError, match="hours=24: the steps alone take 1 d 2 h"):
        fake.run(estimates=True)


def tiny_points(**points_of):
    """{name: every field} of a small config with other fields."""
    return {
        name: fields.flatten(tiny.get_config("density", **changes))
        for name, changes in points_of.items()
    }


def test_programs_that_differ_in_real_constants_are_measured_once(monkeypatch):
    measured = []

    def measure(experiment, lowered):
        measured.append(experiment.contrast.strategy)
        return len(measured), 0.5

    monkeypatch.setattr(estimate, "_measured", measure)
    found = estimate.costs(
        tiny_points(
            a={"train__num_steps": 30},
            b={"train__num_steps": 30, "train__learning_rate": 0.1},
            c={"train__num_steps": 30, "sampler__num_steps": 7},
        ),
        dict.fromkeys("abc", 0),
    )
    assert found == {"a": Cost(1, 15.0), "b": Cost(1, 15.0), "c": Cost(2, 15.0)}


def test_a_step_is_compiled_and_timed():
    options = {"train__steps_per_dispatch": 1, "train__num_seeds": 3}
    config = tiny.get_config("density", **options)
    of_points, have = estimate.in_child({"a": fields.flatten(config)}, {"a": 0})
    found = of_points["a"]
    state = build(config).shapes
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    assert held < found.nbytes < held + 2**25 < have
    assert 0 < found.seconds < 60 * config.train.num_steps


def test_a_step_that_does_not_fit_is_not_run(monkeypatch):
    monkeypatch.setattr(estimate, "memory_bytes", lambda: 1000)
    found = SimpleNamespace(train_data=None)  # it has no state to run with
    sizes = {"argument": 500, "output": 300, "alias": 200, "temp": 600}
    sizes = {f"{name}_size_in_bytes": size for name, size in sizes.items()}
    step = SimpleNamespace(memory_analysis=lambda: SimpleNamespace(**sizes))
    lowered = SimpleNamespace(compile=lambda: step)
    assert estimate._measured(found, lowered) == (1200, 0.0)


def test_of_a_device_that_does_not_tell_a_step_is_timed_all_the_same():
    experiment = SimpleNamespace(
        train_data=(),
        init_state=lambda: 0,
        periods=SimpleNamespace(steps_per_dispatch=1),
    )

    class Step:
        memory_analysis = staticmethod(lambda: None)

        def __call__(self, state, data):
            return state, {}

    nbytes, seconds = estimate._measured(experiment, SimpleNamespace(compile=Step))
    assert nbytes == 0
    assert seconds >= 0


# The commit


def repository_in(tmp_path):
    """One file, committed."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "a.py").write_text("1\n")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], check=True)
    return tmp_path


def test_another_commit_or_a_change_is_refused_by_name(tmp_path):
    repository = repository_in(tmp_path)
    commit = code.pinned(repository)
    code.require(commit, repository)
    with pytest.raises(UserError, match=f"^--commit=abc: must be .* {commit}"):
        code.require("abc", repository)
    (repository / "a.py").write_text("2\n")
    (repository / "b.py").write_text("2\n")
    with pytest.raises(UserError, match=r"not committed: a\.py, b\.py"):
        code.require(commit, repository)


def test_a_new_file_is_named_whatever_a_person_s_settings_show(tmp_path):
    repository = repository_in(tmp_path)
    setting = ["git", "-C", str(tmp_path), "config", "status.showUntrackedFiles", "no"]
    subprocess.run(setting, check=True)
    (repository / "b.py").write_text("2\n")
    with pytest.raises(UserError, match=r"not committed: b\.py"):
        code.pinned(repository)


def test_results_are_not_left_where_they_are_changes_of_the_code(tmp_path):
    root = tmp_path / "code"
    root.mkdir()
    repository_in(root)
    (root / ".gitignore").write_text("runs/\n")
    for there in (root / "runs" / "a", tmp_path / "a"):
        code.refuse_as_changes(there, root)
    with pytest.raises(UserError, match="results/a: is in the checkout, where git"):
        code.refuse_as_changes(root / "results" / "a", root)


@pytest.mark.parametrize("flag", ["workdir", "scratch"])
def test_a_sweep_whose_results_would_be_changes_is_refused(flag, monkeypatch, tmp_path):
    fake = Fake(monkeypatch, tmp_path)
    repository_in(tmp_path)
    refuse = functools.partial(code.refuse_as_changes, root=tmp_path)
    monkeypatch.setattr(code, "refuse_as_changes", refuse)
    monkeypatch.setattr(code, "pinned", lambda: "abc")
    (tmp_path / ".gitignore").write_text("runs/\n")
    flags = {"workdir": fake.folder, flag: tmp_path / "no_such"}
    argv = [f"--{name}={value}" for name, value in flags.items()]
    with pytest.raises(UserError, match="no_such: is in the checkout"):
        sweep.main(["sweep", f"--config={fake.file}", "--noestimate", *argv])
    assert not fake.folder.exists()


def test_a_job_looks_at_the_commit_itself(monkeypatch):
    with pytest.raises(UserError, match="commit"):
        train.main(["train", "--config=none_such.py", "--commit=abc"])
    made = SimpleNamespace(task=SimpleNamespace(primary=PRIMARY))
    monkeypatch.setattr(points, "build", lambda values: made)
    toy = Sweep("configs/none.py:smoke", {"a": {}})
    (point,) = points.plan(toy, pathlib.Path("runs"), {}, ["--commit=abc"])
    assert "--commit=abc" in point.command


def test_a_sweep_goes_on_at_its_own_commit_alone(tmp_path):
    status.claim(tmp_path, [], "abc")
    (tmp_path / "a.log").touch()
    for commit in ("abc", None):  # --allow_changes
        status.claim(tmp_path, [], commit)
        with pytest.raises(UserError, match="begun at commit abc, here is def"):
            status.claim(tmp_path, [], "def")


def test_a_sweep_that_began_nothing_has_no_commit_yet(tmp_path):
    for commit in ("abc", "def"):
        status.claim(tmp_path, [], commit)
    assert json.loads((tmp_path / "sweep.json").read_text())["commit"] == "def"


def test_a_result_that_is_not_one_is_refused(tmp_path):
    values = {**OF_A_RUN, "train.num_steps": 1}
    point = SimpleNamespace(name="a", primary=PRIMARY, values=values, command=())
    status.claim(tmp_path, [point], None)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "result.json").write_text('{"a": 1}')
    with pytest.raises(UserError, match=r"a: its result.json holds no metrics and no"):
        status.look(tmp_path)


@pytest.mark.parametrize(
    "of_points", [[], {"a": 1}, {"a": {"num_steps": 1}}, {"a": {"lr": 1}}]
)
def test_a_sweep_of_another_version_is_named(of_points, tmp_path):
    content = json.dumps({"commit": None, "points": of_points})
    (tmp_path / "sweep.json").write_text(content)
    said = r"sweep\.json: is damaged or of another version, its points must have"
    with pytest.raises(UserError, match=said):
        status.look(tmp_path)


def test_a_sweep_that_has_no_place_is_refused_in_a_sentence(monkeypatch, tmp_path):
    fake = Fake(monkeypatch, tmp_path)
    fake.folder.touch()
    with pytest.raises(UserError, match="runs cannot be made: File exists"):
        fake.run()


def test_without_a_sweep_there_is_nothing_to_tell(tmp_path):
    with pytest.raises(UserError, match="no sweep was begun there"):
        status.look(tmp_path)


JOBS, STATUS, POINTS = (f"experiments.sweeps.{n}" for n in ("jobs", "status", "points"))
ESTIMATE = "experiments.sweeps.estimate"


def limits(index):
    names = ("count", "hours", "parallel", "is_shared", "said")
    return dict(zip(names, LIMITS[index], strict=True))


def mutant(says, module, old, new, test, error=AssertionError, **arguments):
    return Mutant("sweep", says, module, one(old, new), test, arguments, error)


MUTANTS = [
    mutant(
        "points are compared as they are written",
        POINTS,
        "repr(sorted(point.values.items()))",
        "repr(point.command)",
        test_two_points_that_resolve_to_the_same_run_are_refused,
        second={"sampler.num_steps": 10},
    ),
    mutant(
        "a point may be anything",
        POINTS,
        "isinstance(value, Mapping)",
        "True",
        test_a_file_that_gives_no_sweep_is_refused_in_a_sentence,
        returned="Sweep('a.py', {'b': None})",
        said="b=None",
        error=TypeError,
    ),
    mutant(
        "points that were not named are trained too",
        "experiments.sweep",
        "if p.name in todo]",
        'if rows[p.name].state not in ("done", "running")]',
        test_only_the_points_that_were_named_are_trained,
    ),
    mutant(
        "a pattern that matches nothing is ignored",
        POINTS,
        "if not matching:",
        "if not matching and not found:",
        test_only_the_points_that_were_named_are_trained,
        pytest.fail.Exception,
    ),
    mutant(
        "a value loses its last digits on the way to its run",
        "experiments.fields",
        '",".join(map(str, value))',
        '",".join(f"{v:g}" for v in value)',
        test_the_command_of_a_point_is_read_back_to_the_same_fields,
    ),
    mutant(
        "a grid's later points replace those of the same name",
        "configs.sweeps.base",
        "names.count(name) > 1",
        "names.count(name) > 2",
        test_points_that_would_hide_each_other_are_refused,
        make=lambda: base.grid({"a-b": {}, "a": {}}, {"c": {}, "b-c": {}}),
        said="a-b-c is there",
    ),
    mutant(
        "a point that failed is waited for by all others",
        JOBS,
        "if interrupt.is_set:  # first",
        "if interrupt.is_set or any(not f.cancelled() and f.result() for f in ended):"
        "  # first",
        test_a_failing_point_stops_no_other_and_shows,
    ),
    mutant(
        "a point that failed is called stopped",
        STATUS,
        'else ("failed", why)',
        'else ("stopped", why)',
        test_a_failing_point_stops_no_other_and_shows,
    ),
    mutant(
        "what is done is run again",
        "experiments.sweep",
        'not in ("done", "running")',
        'not in ("running",)',
        test_a_failing_point_stops_no_other_and_shows,
    ),
    mutant(
        "a point of another config is told as done",
        "experiments.sweep",
        "    _refuse_others(planned)\n",
        "",
        test_a_point_of_another_config_is_refused_and_not_told_as_done,
        pytest.fail.Exception,
    ),
    mutant(
        "what stopped early is done, whatever its length",
        STATUS,
        "(would_stop and is_as_long)",
        "patience > 0",
        test_what_stopped_early_is_done_where_it_would_stop_again,
        num_steps=20,
        patience=2,
        state="waiting",
    ),
    mutant(
        "how a point ended is what an earlier try says",
        STATUS,
        "in last.splitlines()",
        "in log.splitlines()",
        test_how_a_point_ended_is_what_its_last_try_says,
        tries=[[INTERRUPTED, "exit code 2"], ["exit code -9"]],
        state="failed",
        why="exit code -9",
    ),
    mutant(
        "a job that could not run says nothing",
        JOBS,
        """log.write(f"error: {' '.join(str(error).split())}\\n".encode())""",
        "pass",
        test_a_scratch_that_cannot_be_made_fails_its_point,
    ),
    mutant(
        "a signal ends the sweep without its points",
        JOBS,
        "self._child.terminate()",
        "self._child.kill()",
        test_an_interrupted_sweep_resumes_each_point_where_it_was,
    ),
    mutant(
        "what was interrupted is told as failed",
        JOBS,
        '"stopped" if is_interrupted else ',
        "",
        test_an_interrupted_sweep_resumes_each_point_where_it_was,
    ),
    mutant(
        "two processes in one run directory",
        JOBS,
        "_takes(log, fcntl.LOCK_EX,",
        "_takes(log, fcntl.LOCK_SH,",
        test_a_point_is_trained_by_one_process_at_a_time,
    ),
    mutant(
        "results stay in the scratch directory",
        JOBS,
        "copy_whole(self._workdir, self.directory)",
        "pass",
        test_results_come_back_from_scratch_when_the_time_is_over,
        FileNotFoundError,
    ),
    mutant(
        "a run on a new node starts anew",
        JOBS,
        "copy_whole(self.directory, self._workdir)",
        "pass",
        test_results_come_back_from_scratch_when_the_time_is_over,
    ),
    mutant(
        "sweeps share a scratch folder",
        JOBS,
        "scratch / _own_name(directory)",
        "scratch / directory.name",
        test_scratch_holds_no_run_of_another_sweep,
    ),
    mutant(
        "a copy that was cut off is forgotten",
        JOBS,
        "        settle(self.directory)\n",
        "",
        test_a_copy_that_was_cut_off_leaves_a_whole_run,
        **dict(zip(("function", "half", "left"), CUTS[1], strict=True)),
    ),
    mutant(
        "what comes back when the time is over is lost",
        JOBS,
        "if self._child is not None:\n            with",
        "if self._child is not None and self._child.returncode is None:\n"
        "            with",
        test_results_come_back_if_the_time_is_over_while_they_do,
    ),
    mutant(
        "half a copy is taken for a whole one",
        "experiments.sweeps.copies",
        "shutil.copytree(source, part)\n    part.rename(whole)",
        "shutil.copytree(source, whole)",
        test_a_copy_that_was_cut_off_leaves_a_whole_run,
        **dict(zip(("function", "half", "left"), CUTS[0], strict=True)),
    ),
    mutant(
        "what is back stays in scratch",
        JOBS,
        "self.directory)\n            remove(self._workdir)",
        "self.directory)",
        test_scratch_holds_no_run_of_another_sweep,
    ),
    mutant(
        "what did not come back from scratch is replaced",
        JOBS,
        "if last_save(self._workdir) > last_save(self.directory):",
        "if False:",
        test_what_did_not_come_back_from_scratch_does_at_the_next_start,
        is_removed=False,
        step=10,
    ),
    mutant(
        "what is left in scratch replaces what is further",
        JOBS,
        "if last_save(self._workdir) > last_save(self.directory):",
        "if self._workdir.exists():",
        test_what_is_left_in_scratch_replaces_nothing_that_is_further,
    ),
    mutant(
        "a sweep that was removed goes on from scratch",
        JOBS,
        "if not log.tell() and",
        "if log.tell() and",
        test_what_did_not_come_back_from_scratch_does_at_the_next_start,
        is_removed=True,
        step=0,
    ),
    mutant(
        "a scheduler's signal kills a run",
        "experiments.run.interrupt",
        "signal.SIGUSR2, signal.SIGHUP)",
        "signal.SIGCONT, signal.SIGHUP)",
        test_a_scheduler_s_signal_is_a_wish_to_end,
    ),
    mutant(
        "a closed terminal kills a run",
        "experiments.run.interrupt",
        "signal.SIGUSR2, signal.SIGHUP)",
        "signal.SIGUSR2)",
        test_a_scheduler_s_signal_is_a_wish_to_end,
    ),
    mutant(
        "nohup is of no use",
        "experiments.run.interrupt",
        "signal.getsignal(number) == signal.SIG_IGN",
        "False",
        test_a_closed_terminal_ends_nothing_under_nohup,
    ),
    mutant(
        "nodes to avoid are forgotten",
        JOBS,
        "{**more, **options}",
        "options",
        test_a_sweep_is_an_array_of_a_cluster_s_jobs,
    ),
    mutant(
        "a job is queued again three times",
        JOBS,
        "cluster=cluster, **limit",
        "cluster=cluster",
        test_a_sweep_is_an_array_of_a_cluster_s_jobs,
    ),
    mutant(
        "a job of this machine has a scheduler's time",
        JOBS,
        'SLURM_MINUTES if cluster == "slurm" else UNLIMITED',
        "SLURM_MINUTES",
        test_a_job_of_this_machine_has_the_time_that_it_needs,
        options={},
    ),
    mutant(
        "a scheduler's job has submitit's five minutes",
        JOBS,
        "SLURM_MINUTES = 240",
        "SLURM_MINUTES = 5",
        test_a_sweep_is_an_array_of_a_cluster_s_jobs,
    ),
    mutant(
        "nodes to avoid are ignored here",
        "experiments.sweep",
        "    _refuse_idle(values)\n",
        "",
        test_flags_that_would_do_nothing_are_refused,
        pytest.fail.Exception,
        arguments=IDLE[0][0],
        said=IDLE[0][1],
    ),
    mutant(
        "what slurm has queued is told as failed",
        "experiments.sweep",
        'if values.executor != "slurm":\n        _finish',
        "if True:\n        _finish",
        test_what_slurm_has_queued_and_what_was_not_named_is_not_told_as_failed,
        UserError,
    ),
    mutant(
        "points that were not named are waited for",
        "experiments.sweep",
        " if row.name in ran]",
        "]",
        test_what_slurm_has_queued_and_what_was_not_named_is_not_told_as_failed,
        UserError,
    ),
    mutant(
        "only points that failed are told at the end",
        "experiments.sweep",
        'row.state != "done"',
        'row.state == "failed"',
        test_a_sweep_whose_points_are_not_done_says_so,
    ),
    mutant(
        "a share of a GPU is said twice",
        JOBS,
        "any(name in os.environ for name in FRACTIONS)",
        "FRACTIONS[0] in os.environ",
        test_points_side_by_side_share_a_gpu_s_memory,
    ),
    mutant(
        "the points that run together are counted as one",
        ESTIMATE,
        "parallel if is_shared else 1",
        "1",
        test_what_does_not_fit_into_memory_or_time_is_refused,
        **limits(1),
    ),
    mutant(
        "points on one device are as fast as on several",
        ESTIMATE,
        "sum(seconds) if is_shared",
        "max(seconds) if is_shared",
        test_what_does_not_fit_into_memory_or_time_is_refused,
        **limits(0),
    ),
    mutant(
        "a sweep that says no hours may take any",
        "configs.sweeps.base",
        "hours: float | None = 24.0",
        "hours: float | None = None",
        test_a_sweep_that_says_no_hours_may_take_a_day,
    ),
    mutant(
        "the hours of a sweep are not looked at",
        "experiments.sweep",
        "        hours=hours,\n",
        "        hours=None,\n",
        test_a_sweep_that_does_not_fit_starts_nothing,
    ),
    mutant(
        "chains of any length cost the same",
        ESTIMATE,
        'REALS.sub("", lowered.as_text())',
        '""',
        test_programs_that_differ_in_real_constants_are_measured_once,
    ),
    mutant(
        "every learning rate is measured",
        ESTIMATE,
        'REALS.sub("", lowered.as_text())',
        "lowered.as_text()",
        test_programs_that_differ_in_real_constants_are_measured_once,
    ),
    mutant(
        "an estimate counts steps that are taken",
        ESTIMATE,
        "max(first, steps[name])",
        "first",
        test_an_estimate_is_of_the_steps_of_each_phase_that_are_left,
        steps=19,
        seconds=1001.0,
    ),
    mutant(
        "an estimate takes each phase for the last",
        ESTIMATE,
        "experiment.dispatch(phase)",
        "experiment.dispatch()",
        test_an_estimate_is_of_the_steps_of_each_phase_that_are_left,
        steps=0,
        seconds=1020.0,
        error=AssertionError,
    ),
    mutant(
        "a step that does not fit is run",
        ESTIMATE,
        "if nbytes > memory_bytes():",
        "if False:",
        test_a_step_that_does_not_fit_is_not_run,
        AttributeError,
    ),
    mutant(
        "changed files are run as the commit",
        "experiments.run.code",
        "if files:",
        "if not files:",
        test_another_commit_or_a_change_is_refused_by_name,
        UserError,
    ),
    mutant(
        "new files are looked for as a person set it",
        "experiments.run.code",
        ', "--untracked-files=normal"',
        "",
        test_a_new_file_is_named_whatever_a_person_s_settings_show,
        pytest.fail.Exception,
    ),
    mutant(
        "results in the checkout are changes that stop each job",
        "experiments.run.code",
        "done.returncode == 1",
        "done.returncode == 2",
        test_results_are_not_left_where_they_are_changes_of_the_code,
        pytest.fail.Exception,
    ),
    mutant(
        "a point has the name of another's log",
        "experiments.sweeps.copies",
        " or name.endswith(BESIDE)",
        "",
        test_a_name_that_is_no_folder_is_refused,
        pytest.fail.Exception,
        name="a.log",
    ),
    mutant(
        "a job does not look at its commit",
        "experiments.train",
        "if values.commit:",
        "if not values.commit:",
        test_a_job_looks_at_the_commit_itself,
    ),
    mutant(
        "points of two commits in one sweep",
        STATUS,
        "begun != commit",
        "not begun",
        test_a_sweep_goes_on_at_its_own_commit_alone,
    ),
    mutant(
        "a sweep is bound to the commit at which it was refused",
        STATUS,
        "if has_begun and path",
        "if path",
        test_a_sweep_that_began_nothing_has_no_commit_yet,
        UserError,
    ),
    mutant(
        "figures on other rows are taken for those asked for",
        STATUS,
        "if num_examples not in (None, result",
        "if num_examples in (None, result",
        test_figures_on_another_number_of_rows_are_not_what_was_asked_for,
        written=64,
        state="waiting",
    ),
    mutant(
        "a device that does not tell its memory ends the estimate",
        "experiments.sweeps.estimate",
        "bytes_of(step) or (0, 0)",
        "bytes_of(step)",
        test_of_a_device_that_does_not_tell_a_step_is_timed_all_the_same,
        TypeError,
    ),
    mutant(
        "of a sweep of an earlier version any figures are the end",
        STATUS,
        "    would_stop =",
        "    if num_examples is None: return True\n    would_stop =",
        test_a_sweep_of_an_earlier_version_takes_figures_on_any_rows,
        step=4,
        state="waiting",
    ),
    mutant(
        "a point that shall be longer has failed",
        STATUS,
        'if lines[-1] == "exit code 0":',
        "if False:",
        test_how_a_point_ended_is_what_its_last_try_says,
        tries=[["exit code 0"]],
        state="waiting",
        why="",
    ),
    mutant(
        "a sweep that does nothing says nothing",
        "experiments.sweep",
        "_finish(folder, name, chosen)",
        "_finish(folder, name, {p.name for p in planned})",
        test_a_sweep_with_nothing_to_do_tells_how_it_stands,
        pytest.fail.Exception,
    ),
    mutant(
        "points that are all started at once each take most of a GPU",
        "experiments.sweep",
        "jobs.shared_device(parallel) if is_shared",
        "jobs.shared_device(values.parallel) if is_here",
        test_the_points_that_are_left_share_the_memory,
        flags=["--executor=local"],
        share="0.450",
    ),
    mutant(
        "the commit is forgotten where code was changed once",
        STATUS,
        '"commit": begun or commit',
        '"commit": commit',
        test_a_sweep_goes_on_at_its_own_commit_alone,
    ),
]
