"""kill -9 at random moments of a run or a sweep, its saves and reports, over and over.

    python -m tests.kills --count=100
    python -m tests.kills --count=100 --sweep

It is started and killed until it has ended; it must then be bit for bit the one that
nobody disturbed. Then another is begun, until so many kills were made. Of a sweep all
processes are killed or the scheduler alone, and every other one trains in a folder of
`--scratch`.
"""

import collections
import contextlib
import itertools
import json
import multiprocessing
import os
import random
import signal
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import chex
from absl import flags

from experiments import cli, sweep
from experiments.run.logs import read_rows
from experiments.run.loop import train_and_evaluate
from experiments.run.workdir import read_config
from experiments.sweeps import jobs
from experiments.sweeps.copies import last_save
from tests import plain
from tests.runs import EVERY_STEP, config_of, last_state

STEPS, EVERY = 30, 3
FIELDS = {"num_steps": STEPS, "replay__capacity": 64, "train__eval_every": EVERY}
POINTS = ("weight=0.05", "weight=0.1")
SHARED = {
    **{name.replace("__", "."): value for name, value in EVERY_STEP.items()},
    **{"train.num_steps": STEPS, "replay.capacity": 64, **plain.of(4)},
}
SWEEP = f"""
from configs.sweeps.base import Sweep, listed

def get_sweep() -> Sweep:
    points = listed("loss.weight", 0.05, 0.1)
    return Sweep("configs/cd_full.py:smoke", points, shared={SHARED}, seeds=1)
"""


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_integer("count", 100, "kills", 1, flag_values=values)
    flags.DEFINE_float("minutes", 60.0, "after which none is made", flag_values=values)
    flags.DEFINE_integer("seed", 0, "of the moments", flag_values=values)
    flags.DEFINE_bool("sweep", False, "kill sweeps, not runs", flag_values=values)


def run(directory: Path) -> None:
    """Entry of a child process: a whole run, with its report and its pictures."""
    os.setsid()
    cli.enable_compilation_cache()
    train_and_evaluate(config_of(**FIELDS), directory)


def run_sweep(directory: Path) -> None:
    """Entry of a child process: a whole sweep, whose points are processes of it."""
    os.setsid()
    file, scratch = directory.with_suffix(".py"), scratch_of(directory)
    file.write_text(SWEEP)
    command = ["sweep", f"--config={file}", f"--workdir={directory}", "--noestimate"]
    if scratch.exists():
        command.append(f"--scratch={scratch}")
    cli.run(sweep.main, [*command, "--allow_changes"])


def scratch_of(directory: Path) -> Path:
    return directory.with_suffix(".scratch")


def places_of(directory: Path) -> list[list[Path]]:
    """The run, or each point of a sweep: where it is, and its copy in scratch."""
    if not directory.with_suffix(".py").exists():
        return [[directory]]
    scratch = scratch_of(directory)
    return [[directory / name, *scratch.glob(f"{name}-????????")] for name in POINTS]


def logged(places: list[Path]) -> int:
    """The last step that is in a log."""
    rows = itertools.chain.from_iterable(map(read_rows, places))
    return max((row["step"] for row in rows), default=0)


def saved(places: list[Path]) -> int:
    """The last step with a checkpoint that is whole."""
    return max(0, *map(last_save, places))


def moment(directory: Path) -> str:
    """What a run, or the point of a sweep that is not done, is at."""
    for places in places_of(directory):
        if not (places[0] / "result.json").exists():
            break
    if not logged(places):
        return "start"
    if any(any(path.glob("checkpoints/*tmp*")) for path in places):
        return "save"
    return "report" if logged(places) == STEPS else "steps or resuming"


def kill(child: BaseProcess, directory: Path, *, is_alone: bool) -> int:
    """Ends a process or its whole session; returns the steps that are lost."""
    before = [logged(places) for places in places_of(directory)]
    with contextlib.suppress(ProcessLookupError):  # it has ended in this moment
        has_session = os.getpgid(child.pid) == child.pid  # not at its very start
        if is_alone or not has_session:
            child.kill()
        else:
            os.killpg(child.pid, signal.SIGKILL)
    child.join()
    while any(jobs.is_running(places[0]) for places in places_of(directory)):
        time.sleep(0.1)  # a point whose scheduler is gone goes on to its end
    after = [saved(places) for places in places_of(directory)]
    return sum(max(b - a, 0) for b, a in zip(before, after, strict=True))


def check(directory: Path, good: Path) -> None:
    """Raises AssertionError where the end is another than the undisturbed one."""
    left = [path.name for path in directory.parent.rglob(f"{directory.name}*/**/*tmp*")]
    assert not left, left
    for (run, *copies), (other, *_) in zip(
        places_of(directory), places_of(good), strict=True
    ):
        states = [last_state(path, read_config(path)) for path in (run, other)]
        chex.assert_trees_all_equal(*states)
        steps = [row["step"] for row in read_rows(run)]
        assert steps == [*range(1, STEPS + 1)], steps
        assert json.loads((run / "result.json").read_text())["step"] == STEPS
        for copy in copies:  # killed between its coming back and its removal
            assert last_save(copy) == STEPS, copy


def main(argv: list[str]) -> None:
    values = cli.parse(argv, define)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.kills"])
    chance, end = random.Random(values.seed), time.monotonic() + 60 * values.minutes
    lost, found, whole = collections.Counter(), collections.Counter(), 0

    def start(directory: Path, seconds: float | None = None) -> BaseProcess:
        entry = run_sweep if values.sweep else run
        child = context.Process(target=entry, args=(directory,))
        child.start()
        child.join(seconds)
        assert not child.exitcode, f"{directory}: exit code {child.exitcode}"
        return child

    with tempfile.TemporaryDirectory() as folder:
        for good in (Path(folder) / "warm", Path(folder) / "undisturbed"):
            begun = time.monotonic()
            start(good)  # the first one compiles
            length = time.monotonic() - begun
        directory = Path(folder) / "killed0"
        while lost.total() < values.count and time.monotonic() < end:
            child = start(directory, chance.uniform(0, length))
            if child.exitcode is None:
                is_alone = values.sweep and chance.random() < 0.5
                who = "the scheduler" if is_alone else "all"
                found[f"{who}, {moment(directory)}"] += 1
                lost[kill(child, directory, is_alone=is_alone)] += 1
                continue
            check(directory, good)
            whole += 1
            directory = Path(folder) / f"killed{whole}"
            if values.sweep and whole % 2:
                scratch_of(directory).mkdir()
        start(directory)
        check(directory, good)
    counts = {"kills": lost.total(), "runs": whole + 1, "at": found}
    print(json.dumps({**counts, "steps lost, how often": dict(sorted(lost.items()))}))


if __name__ == "__main__":
    cli.run(main)
