"""What every command shares: flags, one-sentence errors, the compilation cache."""

import ctypes
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict

from experiments import configuration
from experiments.errors import UserError
from experiments.sweeps.copies import is_beside
from ired_jax.types import PartError

OVERRIDE = "config.group.field"  # the flag that overrides are collected in
# Of mallopt(3): no mmap for large blocks, none given back below 2 GiB, grown by 1 GiB,
# one arena for all threads.
MALLOC = {-4: 0, -1: 2**31 - 1, -2: 2**30, -8: 1}


def run(main: Callable[[list[str]], None], argv: list[str] | None = None) -> None:
    """Runs a command; bad input ends it with one sentence and exit code 2."""
    keep_memory()
    enable_compilation_cache()
    try:
        main(argv or sys.argv)
    except (UserError, PartError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr, flush=True)
        sys.stdout.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)  # which ends a loop of the shell, too


def keep_memory() -> None:
    """Lets the process keep what it frees, where its C library can (glibc).

    A step's temporaries, hundreds of MB on a CPU, else go back to the kernel after each
    step and are faulted in again, page by page: up to half of the time.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda option, value: 0)
    for option, value in MALLOC.items():
        mallopt(option, value)


def enable_compilation_cache(home: str | None = None) -> None:
    """Keeps compiled programs in a private directory: a second start is soon.

    `home` is by default $XDG_CACHE_HOME, or ~/.cache.
    """
    try:
        home = home or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        directory = Path(home) / "ired_jax" / "xla"
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (OSError, RuntimeError):
        return  # a read-only home, or none, only costs compilation time
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def parse(
    argv: Sequence[str],
    define: Callable[[flags.FlagValues], None],
    fields_of: Callable[[str], Mapping] = configuration.load,
    rest: str | None = None,
) -> flags.FlagValues:
    """Parses flags; a stray or unknown argument is a UserError, not silence.

    `fields_of` what --config names, its --help tells. Bare arguments are more values of
    the list flag `rest`, if one is named.
    """
    values = flags.FlagValues()
    if rest is not None:
        values.set_gnu_getopt()  # flags may follow bare arguments
    define(values)
    argv = [_as_override(argument) for argument in argv]
    if {"--help", "-h"} & set(argv):
        print(_help(values, argv, fields_of))
        raise SystemExit(0)
    try:
        _, *bare = values(argv)
    except flags.Error as error:
        raise UserError(_sentence(error)) from error
    if rest is not None:
        values[rest].value = [*values[rest].value, *bare]
    elif bare:
        raise UserError(
            f"unexpected argument {bare[0]!r}: overrides are written"
            " --config.group.field=value"
        )
    return values


def run_directories(runs: Sequence[str]) -> dict[str, Path]:
    """{name: directory} of --runs; of the folder of a sweep, those of its points.

    Raises:
      UserError: there is none, or two have the same name.
    """
    if not runs:
        raise UserError("--runs: must name at least one run directory")
    given = [path for run in runs for path in _points_of(Path(run))]
    if not given:
        raise UserError(f"--runs={','.join(runs)}: are none, must be run directories")
    paths = {path.name: path for path in given}
    if len(paths) < len(given):
        raise UserError(f"--runs={','.join(runs)}: two have the same name")
    return paths


def _points_of(folder: Path) -> list[Path]:
    """The run directories in a folder that is none itself; itself if there are none."""
    if is_beside(folder.name):  # of runs/sweep/*
        return []
    if (folder / "config.json").exists():
        return [folder]
    found = sorted(path.parent for path in folder.glob("*/config.json"))
    return [path for path in found if not is_beside(path.name)] or [folder]


def output_path(path: Path | str, flag: str = "output") -> Path:
    """An output whose folder is there, made before the work and not after it.

    Raises:
      UserError: the folder cannot be made, or it is one itself.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"--{flag}={path}: is a folder, must be a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--{flag}={path} cannot be made: {error.strerror}") from error
    return path


def define_config(values: flags.FlagValues, *, required: bool = True) -> None:
    """--config=configs/name.py[:preset,preset], and --config.group.field=value."""
    flags.DEFINE_string(
        "config", None, "configs/name.py[:preset,...]", flag_values=values
    )
    flags.DEFINE_multi_string(
        OVERRIDE, [], "another value of a field: docs/fields.md", flag_values=values
    )
    if required:
        flags.mark_flag_as_required("config", flag_values=values)


def config_of(values: flags.FlagValues) -> ConfigDict | None:
    """Every field of the config, with its overrides; None without one.

    Raises:
      UserError: no such file, preset or field, or a value that is not allowed.
    """
    if values.config is None:
        if values[OVERRIDE].value:
            raise UserError("--config.group.field: needs a --config to be a field of")
        return None
    given = configuration.load(values.config)
    return configuration.overridden(given, override_texts(values))


def override_texts(values: flags.FlagValues) -> dict[str, str]:
    """{group.field: text} of the overrides on the command line."""
    return _texts(values[OVERRIDE].value)


def _texts(overrides: Sequence[str]) -> dict[str, str]:
    parts = (text.partition("=") for text in overrides)
    return {name: text for name, _, text in parts}


def config_name(argv: Sequence[str]) -> str:
    """`cd_full-cpu-classic` from --config=configs/cd_full.py:cpu,classic.

    Where fields are overridden they follow, `cd_full-cpu-replay.share=0.5`, but for
    those that may change when a run is resumed.
    """
    values = parse([argv[0], *filter(_is_of_config, _joined(argv))], define_config)
    return configuration.name_of(values.config, override_texts(values))


def overrides(argv: Sequence[str]) -> list[str]:
    """The fields `group.field` that arguments set, as they are written."""
    found = (re.match(r"--?config\.([^=]*)", argument) for argument in argv)
    return [match[1] for match in found if match]


def _is_of_config(argument: str) -> bool:
    return re.match(r"--?config[.=]", argument) is not None


def _joined(argv: Sequence[str]) -> list[str]:
    """`--config file` as `--config=file`."""
    pairs = zip(argv, [*argv[1:], ""], strict=True)
    return [f"{a}={b}" if a in ("--config", "-config") else a for a, b in pairs]


def _as_override(argument: str) -> str:
    """--config.train.num_steps=30 as a value of the flag OVERRIDE."""
    match = re.match(r"--?config\.([^=]+)(=?)(.*)", argument, re.DOTALL)
    if match is None:
        return argument
    if not match[2]:
        raise UserError(f"{argument}: must be written --config.{match[1]}=value")
    return f"--{OVERRIDE}={match[1]}={match[3]}"


def _help(
    values: flags.FlagValues,
    argv: Sequence[str],
    fields_of: Callable[[str], Mapping],
) -> str:
    """The flags, and the fields of the config, if the command has one."""
    text = values.get_help()
    if "config" not in values:
        return text
    paths = [a.partition("=")[2] for a in _joined(argv) if re.match(r"--?config=", a)]
    given = fields_of(paths[-1]) if paths else {}
    flag = f"--{OVERRIDE}="
    set_to = [a.removeprefix(flag) for a in argv if a.startswith(flag)]
    return f"{text}\n\n{configuration.help_text(given, _texts(set_to))}"


def _sentence(error: Exception) -> str:
    """The message in one line."""
    text = " ".join(str(error).split())[:300]
    missing = re.fullmatch(r"flag --(\w+)=None: .* other than None\.", text)
    return f"--{missing[1]}: is required" if missing else text


def counts(name: str, texts: list[str]) -> tuple[int, ...]:
    """The whole numbers, at least 1, that a flag of that name lists.

    Raises:
      UserError: another text, or none.
    """
    if not texts or not all(text.isdecimal() and int(text) >= 1 for text in texts):
        raise UserError(
            f"--{name}={','.join(texts)}: must be whole numbers, at least 1"
        )
    return tuple(int(text) for text in texts)
