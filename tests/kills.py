"""kill -9 at random moments of a run, its saves and its report, over and over.

    python -m tests.kills --count=100

A run is started and killed until it has ended; it must then be bit for bit the one that
nobody disturbed. Then another is begun, until so many kills were made.
"""

import collections
import json
import multiprocessing
import random
import tempfile
import time
from pathlib import Path

import chex
from absl import flags

from experiments import cli
from experiments.run.logs import read_rows
from experiments.run.loop import train_and_evaluate
from tests.runs import config_of, last_state

STEPS, EVERY = 30, 3
FIELDS = {"num_steps": STEPS, "replay__capacity": 64, "train__eval_every": EVERY}


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_integer("count", 100, "kills", 1, flag_values=values)
    flags.DEFINE_float("minutes", 60.0, "after which none is made", flag_values=values)
    flags.DEFINE_integer("seed", 0, "of the moments", flag_values=values)


def run(directory: str) -> None:
    """Entry of a child process: a whole run, with its report and its pictures."""
    cli.enable_compilation_cache()
    train_and_evaluate(config_of(**FIELDS), Path(directory))


def saved(directory: Path) -> int:
    """The last step with a checkpoint that is whole."""
    names = (path.name for path in (directory / "checkpoints").glob("*"))
    return max((int(name) for name in names if name.isdecimal()), default=0)


def logged(directory: Path) -> int:
    return max((row["step"] for row in read_rows(directory)), default=0)


def where(directory: Path) -> str:
    """What a run was at when it was killed."""
    if not (directory / "config.json").exists() or not logged(directory):
        return "start"
    is_saving = any((directory / "checkpoints").glob("*tmp*"))
    at_end = "report" if logged(directory) == STEPS else "steps or resuming"
    return "save" if is_saving else at_end


def main(argv: list[str]) -> None:
    values = cli.parse(argv, define)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.kills"])
    chance, end = random.Random(values.seed), time.monotonic() + 60 * values.minutes
    lost, places, whole = collections.Counter(), collections.Counter(), 0
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / "undisturbed"
        for directory in (Path(folder) / "warm", first):  # the first compiles
            begun = time.monotonic()
            child = context.Process(target=run, args=(str(directory),))
            child.start()
            child.join()
            assert child.exitcode == 0
            length = time.monotonic() - begun
        good = last_state(first, config_of(**FIELDS))
        directory = Path(folder) / "killed0"
        while lost.total() < values.count and time.monotonic() < end:
            child = context.Process(target=run, args=(str(directory),))
            child.start()
            child.join(chance.uniform(0, length))
            if child.exitcode is None:
                before = logged(directory)
                child.kill()
                child.join()
                lost[max(before - saved(directory), 0)] += 1
                places[where(directory)] += 1
                continue
            _check(child.exitcode, directory, good)
            whole += 1
            directory = Path(folder) / f"killed{whole}"
        child = context.Process(target=run, args=(str(directory),))
        child.start()
        child.join()
        _check(child.exitcode, directory, good)
    counts = {"kills": lost.total(), "runs": whole + 1, "at": places}
    print(json.dumps({**counts, "steps lost, how often": dict(sorted(lost.items()))}))


def _check(exitcode: int, directory: Path, good) -> None:
    """Raises AssertionError where the end is another than the undisturbed one."""
    assert exitcode == 0, f"{directory}: exit code {exitcode}"
    chex.assert_trees_all_equal(last_state(directory, config_of(**FIELDS)), good)
    steps = [row["step"] for row in read_rows(directory)]
    assert steps == [*range(1, STEPS + 1)], steps
    assert json.loads((directory / "result.json").read_text())["step"] == STEPS
    left = [path.name for path in directory.rglob("*tmp*")]
    assert not left, left


if __name__ == "__main__":
    cli.run(main)
