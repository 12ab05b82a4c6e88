"""Run directories that are copied: whole at any moment, whatever cuts it off."""

import shutil
from pathlib import Path

# In the folder of a sweep, beside its points: logs, copies on their way, tables.
BESIDE = (".log", ".part", ".whole", ".json")


def is_beside(name: str) -> bool:
    """Whether what is named so in the folder of a sweep is no point of it."""
    return name == "submitit" or name.endswith(BESIDE)


def copy_whole(source: Path, target: Path) -> None:
    """Copies a directory; at any moment the target is whole, or `<target>.whole` is."""
    settle(target)
    part, whole = _beside(target)
    shutil.copytree(source, part)
    part.rename(whole)
    settle(target)


def settle(target: Path) -> None:
    """Ends a `copy_whole` that was cut off, or takes away what it left."""
    part, whole = _beside(target)
    shutil.rmtree(part, ignore_errors=True)
    if whole.exists():
        shutil.rmtree(target, ignore_errors=True)
        whole.rename(target)


def remove(target: Path) -> None:
    """Takes a directory away, at once: half of one is never left under its name."""
    settle(target)
    if target.exists():
        part, _ = _beside(target)
        target.rename(part)
        shutil.rmtree(part, ignore_errors=True)


def last_save(directory: Path) -> int:
    """The last step of a run that has a checkpoint; -1: none has."""
    names = [path.name for path in directory.glob("checkpoints/*")]
    return max((int(name) for name in names if name.isdecimal()), default=-1)


def _beside(target: Path) -> tuple[Path, Path]:
    """The copy that is being made, and the one that is whole."""
    name = target.name
    return target.with_name(f"{name}.part"), target.with_name(f"{name}.whole")
