"""The run directory: whose it is, and what its config was."""

import importlib.metadata
import json
import subprocess
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import base
from experiments.errors import UserError
from experiments.fields import flatten
from experiments.logs import write_json

# May differ when a run is resumed: they say how often, not what. The length is free
# where nothing but the end depends on it (see _free_fields).
FREE_ON_RESUME = (
    "train.log_every",
    "train.eval_every",
    "train.patience",
    "eval.num_examples",
    "eval.num_examples_running",
    "eval.batch_size",
)
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def claim(workdir: Path, config: ConfigDict) -> None:
    """Makes the run directory, or checks that it belongs to this config.

    Raises:
      UserError: it belongs to another config (the fields are named), or is not a run
        directory, or cannot be made.
    """
    path = workdir / "config.json"
    if path.exists():
        stored, now = flatten(read_config(workdir)), flatten(config)
        differing = [
            f"{name} is {stored.get(name)!r} there and {now.get(name)!r} here"
            for name in sorted(set(stored) | set(now))
            if stored.get(name) != now.get(name) and name not in _free_fields(config)
        ]
        if differing:
            raise UserError(
                f"{workdir} belongs to another config: {'; '.join(differing)}"
                " (choose another --workdir)"
            )
    elif workdir.exists() and (not workdir.is_dir() or _holds_files(workdir)):
        raise UserError(f"{workdir}: is not empty and holds no config.json of a run")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{workdir} cannot be made: {error.strerror}") from error
    write_json(path, {"config": config.to_dict(), **provenance()})


def _free_fields(config: ConfigDict) -> tuple[str, ...]:
    """A cosine, or whatever goes by the share of the run done, knows its length."""
    knows_length = (
        config.train.lr_schedule == "cosine"
        or config.train.denoise_share > 0
        or config.negatives.noise_scale_end >= 0
        or config.negatives.curriculum > 0
        or config.replay.curriculum > 0
    )
    return FREE_ON_RESUME if knows_length else ("train.num_steps", *FREE_ON_RESUME)


def _holds_files(workdir: Path) -> bool:
    """Whether there is more than what a start that was killed at once left."""
    return any(path.name != "config.json.tmp" for path in workdir.iterdir())


def read_config(workdir: Path) -> ConfigDict:
    """The config of a run directory.

    Raises:
      UserError: there is none, or it does not fit this version's fields.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise UserError(f"{workdir}: is not a run directory, it has no config.json")
    try:
        values = json.loads(path.read_text())["config"]
    except (json.JSONDecodeError, KeyError) as error:
        raise UserError(f"{path}: is damaged ({error})") from error
    config = base.get_config()
    try:
        _update(config, values)
    except (KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: does not fit configs/base.py ({error})") from error
    return config


def provenance() -> dict[str, Any]:
    """Versions and commit, for the record."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"versions": versions, "commit": commit()}


def commit() -> str | None:
    """The commit of the code that runs, with `+` if it was changed since."""
    root = Path(__file__).resolve().parent.parent
    try:
        git = ["git", "-C", str(root), "describe", "--always", "--dirty=+"]
        done = subprocess.run(git, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _update(config: ConfigDict, values: dict[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            _update(config[name], value)
        else:
            config[name] = tuple(value) if isinstance(value, list) else value
