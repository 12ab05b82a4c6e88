"""A run that is killed, or whose disk is full, loses nothing that it has saved."""

import gc
import multiprocessing
import os
import random
import resource
import signal
import time
from pathlib import Path

import chex
import pytest

from experiments import cli
from experiments.errors import UserError
from experiments.run.logs import read_rows
from tests import plain
from tests.runs import config_of, last_state, train, without_scores

KILLS = 10
LIMIT = 20_000  # bytes of a file on the full disk
# One program for all; its parameters are more than the limit.
RUN = {"num_steps": 30, "replay__capacity": 64} | plain.of(512)


def train_in_child(directory: str, cache_home: str, file_limit: int | None):
    """Entry of a child process; exit code 3 for a UserError."""
    gc.disable()  # what is traced in so short a life is no garbage
    cli.enable_compilation_cache(cache_home)
    if file_limit is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    without_scores(pytest.MonkeyPatch())  # `tests.kills` has them
    try:
        train(config_of(**RUN), Path(directory))
    except UserError:
        os._exit(3)


@pytest.fixture(scope="module")
def children():
    """Starts children from a server that has imported everything and run nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.test_kills"])

    def start(directory, file_limit=None):
        arguments = str(directory), os.environ["XDG_CACHE_HOME"], file_limit
        child = context.Process(target=train_in_child, args=arguments)
        child.start()
        return child

    return start


@pytest.mark.long
def test_a_run_killed_ten_times_ends_like_the_undisturbed_one(children, tmp_path):
    """kill -9 at random moments, half of them while a checkpoint is being written."""
    undisturbed = children(tmp_path / "undisturbed")
    undisturbed.join()
    assert undisturbed.exitcode == 0
    chance, directory = random.Random(0), tmp_path / "killed"
    for _ in range(KILLS):
        child = children(directory)
        before = progress(directory)
        while child.is_alive() and progress(directory) == before:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))
        child.kill()
        child.join()
    child = children(directory)
    child.join()
    assert child.exitcode == 0
    config = config_of(**RUN)
    first, second = (
        last_state(tmp_path / n, config) for n in ("undisturbed", "killed")
    )
    assert int(first.step) == 30
    chex.assert_trees_all_equal(first, second)
    rows = [row["step"] for row in read_rows(directory)]
    assert rows == list(range(1, 31))


def progress(directory: Path) -> int:
    path = directory / "metrics.jsonl"
    return path.stat().st_size if path.exists() else 0


@pytest.mark.long
def test_a_full_disk_keeps_the_last_good_checkpoint(children, tmp_path):
    config, first = config_of(**RUN), children(tmp_path)
    while first.is_alive() and not (tmp_path / "checkpoints" / "3").exists():
        time.sleep(0.01)
    first.kill()
    first.join()
    good = last_state(tmp_path, config)
    second = children(tmp_path, file_limit=LIMIT)
    second.join()
    assert second.exitcode == 3
    assert 3 <= int(good.step) < 30
    chex.assert_trees_all_equal(last_state(tmp_path, config), good)
