"""Files that are written whole or not at all, by process 0 alone."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from experiments import devices
from experiments.errors import UserError


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
      UserError: it is damaged, or cannot be read.
    """
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is damaged ({error})") from error


def write_json(path: Path, value: Any) -> None:
    """Writes a file whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, default=float) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all.

    Raises:
      UserError: it could not be written; what was there stays.
    """
    if not devices.is_writer():
        return
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UserError(f"{path} could not be written: {error.strerror}") from error


def make_folder(path: Path) -> None:
    """Makes a folder in one that is there, unless it is there itself.

    Raises:
      UserError: it cannot be made.
    """
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be made: {error.strerror}") from error


def append(path: Path, line: str) -> None:
    """Writes one more line.

    Raises:
      UserError: it could not be written.
    """
    if not devices.is_writer():
        return
    try:
        with path.open("a") as file:
            file.write(line + "\n")
    except OSError as error:
        raise UserError(f"{path} could not be written: {error.strerror}") from error
