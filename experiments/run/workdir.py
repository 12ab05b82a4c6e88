"""The run directory: whose it is, and what its config was."""

import contextlib
import fcntl
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from experiments import devices
from experiments.build import resolve
from experiments.configuration import free_fields
from experiments.errors import UserError
from experiments.fields import flatten, nest
from experiments.run import code
from experiments.run.files import read_json, write_json
from experiments.run.logs import say
from experiments.schema import Values
from experiments.score import records
from ired_jax.tasks.base import Task

LOCK = "lock"  # a file of the run directory, empty
FORMAT = 2  # of config.json: its fields are those of the parts that it chose
ORIGIN, EARLIER = ("versions", "commit", "device"), "earlier"  # of config.json
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def claim(workdir: Path, config: ConfigDict, task: Task | None = None) -> None:
    """Makes the run directory, or checks that it belongs to this config.

    Raises:
      UserError: as `held`.
    """
    with held(workdir, config, task):
        pass


@contextlib.contextmanager
def held(workdir: Path, config: ConfigDict, task: Task | None = None) -> Iterator[None]:
    """Claims the run directory, and keeps other runs from training in it.

    Of several processes of one run the first one holds it. The lock is the kernel's and
    ends with the process, however that ends. With a `task`, what its metrics are stands
    beside the config.

    Raises:
      UserError: it belongs to another config (the fields are named), or is not a run
        directory, or cannot be made or written, or another process trains in it.
    """
    now = resolve(config)
    with contextlib.ExitStack() as kept:
        with devices.writer_first():
            if devices.is_writer():
                kept.enter_context(_locked(workdir, now))
                _describe(workdir, now, task)
            else:
                refuse_others(workdir, now)
        yield


@contextlib.contextmanager
def _locked(workdir: Path, now: Values) -> Iterator[None]:
    try:
        refuse_others(workdir, now)
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / LOCK).open("ab")
    except OSError as error:
        raise UserError(f"{workdir} cannot be made: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{workdir}: another process trains in it") from error
        except OSError as error:  # a file system without locks
            say(f"{workdir} cannot be locked: {error.strerror}")
        yield


def _describe(workdir: Path, now: Values, task: Task | None) -> None:
    content = {"format": FORMAT, "config": nest(now).to_dict(), **origin(workdir)}
    if task is not None:
        content |= {"primary": task.primary, "metrics": records.described(task)}
    write_json(workdir / "config.json", content)


def origin(workdir: Path) -> dict[str, Any]:
    """Versions, commit and device of who trained a run last, and `earlier` ones.

    Without a config.json they are those of this process.
    """
    path = workdir / "config.json"
    stored = read_json(path) if path.exists() else {}
    found = {name: stored[name] for name in (*ORIGIN, EARLIER) if name in stored}
    return found or provenance()


def sign(workdir: Path, step: int) -> None:
    """Says in config.json that this process trains from `step` on.

    Who trained up to there, if it was another, stays under `earlier`.
    """
    if not devices.is_writer():
        return
    path, now = workdir / "config.json", provenance()
    content = read_json(path)
    before = {name: content[name] for name in ORIGIN if name in content}
    if step and before != now:
        content[EARLIER] = [*content.get(EARLIER, []), {"up_to": step, **before}]
    write_json(path, content | now)


def refuse_others(workdir: Path, now: Values) -> None:
    """Refuses a directory of another config, or of no run.

    Args:
      workdir: that may be there or not.
      now: every field, resolved.

    Raises:
      UserError: the fields that differ, but for those that may when a run is resumed.
    """
    if (workdir / "config.json").exists():
        stored, free = flatten(read_config(workdir)), free_fields(now)
        differing = [
            f"{name} is {stored.get(name)!r} there and {now.get(name)!r} here"
            for name in sorted({*stored, *now} - free)
            if stored.get(name) != now.get(name)
        ]
        if differing:
            raise UserError(
                f"{workdir} belongs to another config: {'; '.join(differing)}"
                " (choose another --workdir)"
            )
    elif workdir.exists() and (not workdir.is_dir() or _holds_files(workdir)):
        raise UserError(f"{workdir}: is not empty and holds no config.json of a run")


def _holds_files(workdir: Path) -> bool:
    """Whether there is more than what a start that was killed at once left."""
    return any(p.name not in (LOCK, "config.json.tmp") for p in workdir.iterdir())


def read_config(workdir: Path) -> ConfigDict:
    """Every field of the config of a run directory.

    Raises:
      UserError: there is none, or it is of an earlier format, or does not fit the
        fields of this version.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise UserError(f"{workdir}: is not a run directory, it has no config.json")
    try:
        content = read_json(path)
        version, values = content.get("format"), flatten(content["config"])
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: is damaged ({error})") from error
    if version != FORMAT:
        raise UserError(
            f"{path}: is of format {version or 1}, must be {FORMAT}: an earlier version"
            f" wrote it, at commit {content.get('commit')}, and can read it"
        )
    try:
        return nest(resolve(values))
    except UserError as error:
        raise UserError(f"{path}: does not fit this version, {error}") from error


def lasting(config: ConfigDict) -> dict[str, Any]:
    """The fields that stay when a run is resumed: they tell it from another run."""
    values = flatten(config)
    free = free_fields(values)
    return {name: value for name, value in values.items() if name not in free}


def provenance() -> dict[str, Any]:
    """Versions, commit and device, for the record."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    kind, count = jax.local_devices()[0].device_kind, jax.local_device_count()
    device = {"kind": kind, "count": count}
    return {"versions": versions, "commit": commit(), "device": device}


def commit() -> str | None:
    """The commit of the code that runs, with `+` if it was changed since."""
    try:
        return code.git("describe", "--always", "--dirty=+").strip() or None
    except UserError:
        return None
