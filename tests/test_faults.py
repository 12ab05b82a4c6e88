"""What goes wrong around a run: other processes, disks, damaged files, clocks, NaN."""

import contextlib
import fcntl
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import pytest

from experiments.errors import UserError
from experiments.run import loop, workdir
from experiments.run.files import read_json
from experiments.run.logs import read_rows
from experiments.run.programs import Programs
from experiments.score.scorer import Scorer
from experiments.sweeps import status
from ired_jax import training, trees
from tests import plain, simulated, tiny
from tests.mutants import Mutant, one
from tests.runs import EVERY_STEP, last_state, train
from tests.test_checkpoint import restore, save, state_at

NOBODY = 65_534
HOLDER = """
import fcntl, sys, time
file = open(sys.argv[1], "ab")
fcntl.flock(file, fcntl.LOCK_EX)
print("holds", flush=True)
time.sleep(600)
"""


def run_of(num_steps: int, name: str = "density_pcd", **changes):
    """Persistent chains in the plane: everything that a run holds, soon compiled."""
    options = EVERY_STEP | {"train__num_steps": num_steps} | plain.of(4) | changes
    return tiny.get_config(name, **options)


def contents(folder: Path) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- two processes -------------------------------------------------------------------


def test_a_second_process_is_refused_and_a_killed_one_holds_nothing(tmp_path):
    config = tiny.get_config("none")
    workdir.claim(tmp_path, config)
    before = contents(tmp_path)
    command = [sys.executable, "-c", HOLDER, str(tmp_path / workdir.LOCK)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "holds\n"
            with pytest.raises(UserError, match=r"another process trains in it$"):
                train(tiny.get_config("none", eval__num_examples=17), tmp_path)
            assert contents(tmp_path) == before
        finally:
            other.kill()
    workdir.claim(tmp_path, config)


def test_a_run_holds_its_directory_until_it_ends(tmp_path, monkeypatch):
    held = []

    def look(*_):
        with (tmp_path / workdir.LOCK).open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(True)
                raise UserError("seen") from None

    monkeypatch.setattr(loop, "_train", look)
    monkeypatch.setattr(loop, "Programs", lambda *_: contextlib.nullcontext())
    for _ in range(2):
        with pytest.raises(UserError, match="seen"):
            train(run_of(3), tmp_path)
    assert held == [True, True]


# --- disks ---------------------------------------------------------------------------


@contextlib.contextmanager
def without_rights():
    """Root may write anywhere: as someone else, who keeps no compiled programs."""
    is_root, name = os.geteuid() == 0, "jax_persistent_cache_min_compile_time_secs"
    least = getattr(jax.config, name)
    jax.config.update(name, float("inf"))
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        jax.config.update(name, least)


@pytest.mark.parametrize("mode", [0o555, 0o000])
@pytest.mark.parametrize("is_begun", [False, True])
def test_a_folder_that_cannot_be_written_is_named_and_left(folder, mode, is_begun):
    directory, config = folder / "run", tiny.get_config("none")
    if is_begun:
        workdir.claim(directory, config)
    else:
        directory.mkdir()
    before = contents(directory)
    directory.chmod(mode)
    with without_rights(), pytest.raises(UserError, match=str(directory)) as caught:
        train(config, directory)
    assert "\n" not in str(caught.value)
    directory.chmod(0o755)
    assert contents(directory) == before


# --- files that are cut or flipped ---------------------------------------------------


def test_a_checkpoint_of_which_a_bit_is_flipped_is_never_taken_for_whole(tmp_path):
    """What comes back is what was saved, at the last step or at the one before it.

    In a process of its own: what orbax leaves behind when a read fails ends with it.
    """
    child = simulated.start(flip_each, str(tmp_path), count=1)
    back = simulated.result_of(child)
    assert back <= {3, 6}
    assert 3 in back


def flip_each(folder: str) -> set[int]:
    """The steps that come back where a bit of one file is flipped."""
    folder, saved = Path(folder), {step: state_at(step) for step in (3, 6)}
    save(folder, *saved.values())
    chance, back = random.Random(0), set()
    whole, last = folder / "whole", folder / "checkpoints" / "6"
    shutil.copytree(last, whole)
    files = sorted(p for p in last.rglob("*") if p.is_file() and p.stat().st_size)
    # An item's own `d`, not that of its writer, is what is read.
    for path in [path for path in files if path.parent.parent.parent == last]:
        shutil.rmtree(last, ignore_errors=True)
        shutil.copytree(whole, last)
        flip(path, chance)
        state = restore(folder, saved[3])
        back.add(int(state.step))
        chex.assert_trees_all_equal(state, saved[int(state.step)])
    return back


def flip(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def test_a_damaged_line_of_the_log_costs_that_line(tmp_path):
    lines = [b'{"step": %d, "train/loss": 1.0}' % step for step in range(1, 8)]
    lines[1] = b'{"step": 2, "train/l\xff'
    lines[2], lines[3], lines[4] = b"3", b'{"train/loss": 1.0}', b'{"step": "5"}'
    lines[5] = b'{"step": 6, "train/loss": null}'
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    assert [row["step"] for row in read_rows(tmp_path)] == [1, 7]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"3", b"[" * 100_000])
def test_a_damaged_file_of_a_run_or_a_sweep_is_named(tmp_path, content):
    for name, read in (
        ("config.json", workdir.read_config),
        (status.FILE, status.look),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: is damaged") as caught:
            read(tmp_path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot be read"):
        read_json(tmp_path)


# --- clocks --------------------------------------------------------------------------


def jumping(wall=time.time, steady=time.monotonic):
    """A wall clock that jumps by up to days, either way, twice a second."""
    since = steady()
    jump = lambda number: random.Random(number).uniform(-1e6, 1e6)  # noqa: E731
    return lambda: wall() + jump(int(2 * (steady() - since)))


def test_a_clock_that_jumps_changes_no_bit(tmp_path, monkeypatch):
    config = run_of(6)
    monkeypatch.setattr(Scorer, "score", lambda *_: {"kl": 1.0})
    train(config, tmp_path / "steady", report=False)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", jumping())
        train(config, tmp_path / "jumps", report=False)
    first, second = (last_state(tmp_path / n, config) for n in ("steady", "jumps"))
    chex.assert_trees_all_equal(first, second)
    rates = [row["steps_per_second"] for row in read_rows(tmp_path / "jumps")]
    assert len(rates) == 6
    assert all(0 < rate < 1e6 for rate in rates)


def test_a_save_outlasts_a_jump_of_the_clock(tmp_path, monkeypatch):
    """By a day between any two looks at it that are a tenth of a second apart.

    From when its folders are there: their making has a limit in orbax, 20 minutes of
    this clock, that cannot be set.
    """
    wall, steady, since = time.time, time.monotonic, []

    def jumping():
        if not since and any(tmp_path.glob("checkpoints/*/memory*")):
            since.append(steady())
        days = int(10 * (steady() - since[0])) if since else 0
        return wall() + 86_400 * days

    monkeypatch.setattr(time, "time", jumping)
    state = state_at(3)._replace(memory={"rows": jnp.arange(10_000_000.0)})
    save(tmp_path, state)
    assert since
    chex.assert_trees_all_equal(restore(tmp_path, state), state)


# --- NaN -----------------------------------------------------------------------------

PLANTED_AT, LOG_EVERY = 5, 3


def spoil(tree):
    """NaN in every number of a tree that is a float."""
    is_float = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating)  # noqa: E731
    return jax.tree.map(lambda a: a * jnp.nan if is_float(a) else a, tree)


def plant(part: str, state):
    if part == "parameters":
        return state._replace(params=spoil(state.params))
    return state._replace(memory=spoil(state.memory))


def spoilt_examples(source, data, key, step, batch_size):
    """Drawn as ever, but for one step."""
    examples = DRAW(source, data, key, step, batch_size)
    return trees.where(step == PLANTED_AT, spoil(examples), examples)


DRAW = training.draw_examples


@pytest.mark.parametrize("part", ["data", "parameters", "chain"])
def test_nan_is_named_within_one_log_interval(part, tmp_path, monkeypatch):
    """From the step after PLANTED_AT finished ones on, once in a run."""
    name = "density" if part == "data" else "density_pcd"  # whose rows may be older
    config = run_of(30, name, train__log_every=LOG_EVERY, train__eval_every=30)
    run = Programs.__call__

    def planted(programs, state, step):
        if part != "data" and step == PLANTED_AT:
            state = plant(part, state)
        return run(programs, state, step)

    monkeypatch.setattr(Programs, "__call__", planted)
    if part == "data":
        monkeypatch.setattr(training, "draw_examples", spoilt_examples)
    with pytest.raises(UserError, match="not finite; the last good") as caught:
        train(config, tmp_path)
    step = int(str(caught.value).split(":")[0].removeprefix("step "))
    assert PLANTED_AT < step <= PLANTED_AT + LOG_EVERY
    rows = read_rows(tmp_path)
    assert [row["step"] for row in rows] == [3]
    assert json.loads(next((tmp_path / "spikes").iterdir()).read_text())


WORKDIR = "experiments.run.workdir"
MUTANTS = [
    Mutant(
        "run",
        "a save has twenty minutes of a clock that jumps",
        "experiments.run.checkpoint",
        one("timeout_secs=NEVER", "timeout_secs=1_200"),
        test_a_save_outlasts_a_jump_of_the_clock,
        error=TimeoutError,
    ),
    Mutant(
        "run",
        "two processes train in one directory",
        WORKDIR,
        one("fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass"),
        test_a_run_holds_its_directory_until_it_ends,
        error=AttributeError,
    ),
    Mutant(
        "run",
        "a lock that its process leaves behind",
        WORKDIR,
        one(
            "fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)",
            """if lock.tell():
                raise BlockingIOError
            lock.write(b"held")""",
        ),
        test_a_second_process_is_refused_and_a_killed_one_holds_nothing,
        error=UserError,
    ),
    Mutant(
        "run",
        "a folder without rights is a traceback",
        WORKDIR,
        one(
            "    except OSError as error:\n        raise",
            "    except KeyError as error:\n        raise",
        ),
        test_a_folder_that_cannot_be_written_is_named_and_left,
        {"mode": 0o555, "is_begun": False},
        error=OSError,
    ),
    Mutant(
        "logs",
        "lines after a damaged one are forgotten",
        "experiments.run.logs",
        one(
            "[row for row in map(_row_of, lines) if row is not None]",
            "list(__import__('itertools').takewhile(bool, map(_row_of, lines)))",
        ),
        test_a_damaged_line_of_the_log_costs_that_line,
    ),
    Mutant(
        "run",
        "what is not finite is left out of the mean",
        "experiments.run.summary",
        one(
            "    refuse_not_finite(columns, first_step=first_step)\n    row", "    row"
        ),
        test_nan_is_named_within_one_log_interval,
        {"part": "parameters"},
    ),
]
