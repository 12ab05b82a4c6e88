"""What every command shares: flags, one-sentence errors, the compilation cache."""

import contextlib
import difflib
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from configs import base
from experiments.errors import UserError
from experiments.fields import flatten

PARSE_ERRORS = (
    flags.Error,
    AttributeError,
    ImportError,
    KeyError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
)


def run(main: Callable[[list[str]], None], argv: list[str] | None = None) -> None:
    """Runs a command; bad input ends it with one sentence and exit code 2."""
    enable_compilation_cache()
    try:
        main(argv or sys.argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def enable_compilation_cache(home: str | None = None) -> None:
    """Keeps compiled programs in a private directory: a second start is soon.

    `home` is by default $XDG_CACHE_HOME, or ~/.cache.
    """
    home = home or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    directory = Path(home) / "ired_jax" / "xla"
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return  # a read-only home only costs compilation time
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def parse(
    argv: Sequence[str], define: Callable[[flags.FlagValues], None]
) -> flags.FlagValues:
    """Parses flags; a stray or unknown argument is a UserError, not silence."""
    _refuse_unknown_fields(argv)
    _refuse_missing_config(argv)
    values = flags.FlagValues()
    define(values)
    if {"--help", "-h"} & set(argv):
        print(values.get_help())
        raise SystemExit(0)
    with _as_sys_argv(argv):
        try:
            rest = values(list(argv))
        except PARSE_ERRORS as error:
            raise UserError(_sentence(error)) from error
    if len(rest) > 1:
        raise UserError(
            f"unexpected argument {rest[1]!r}: overrides are written"
            " --config.group.field=value"
        )
    return values


def run_directories(runs: Sequence[str]) -> dict[str, Path]:
    """{name: directory} of --runs.

    Raises:
      UserError: there is none, or two have the same name.
    """
    if not runs:
        raise UserError("--runs: must name at least one run directory")
    paths = {Path(run).name: Path(run) for run in runs}
    if len(paths) < len(runs):
        raise UserError(f"--runs={','.join(runs)}: two have the same name")
    return paths


def output_path(path: Path | str) -> Path:
    """An output whose folder is there, made before the work and not after it.

    Raises:
      UserError: the folder cannot be made.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output={path} cannot be made: {error.strerror}") from error
    return path


def define_config(values: flags.FlagValues, *, required: bool = True) -> None:
    """--config=configs/name.py[:preset,preset], and --config.group.field=value."""
    config_flags.DEFINE_config_file(
        "config", None, "configs/name.py[:preset,...]", flag_values=values
    )
    if required:
        flags.mark_flag_as_required("config", flag_values=values)


def config_of(values: flags.FlagValues) -> ConfigDict:
    """The config, read with its overrides."""
    try:
        config = values.config
        if config is not None:
            config.keys()  # a file that failed to load says so at the first look
        return config
    except PARSE_ERRORS as error:
        raise UserError(f"--config: {_sentence(error)}") from error


def config_name(argv: Sequence[str]) -> str:
    """`cd_full-cpu-classic` from --config=configs/cd_full.py:cpu,classic."""
    path, presets = _config_path(argv)
    if path is None:
        raise UserError("--config: is required, e.g. --config=configs/cd_full.py:cpu")
    return "-".join([path.stem, *filter(None, presets.split(","))])


def _config_path(argv: Sequence[str]) -> tuple[Path | None, str]:
    """The file and the presets of --config."""
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        name, _, value = argument.lstrip("-").partition("=")
        if name == "config":
            path, _, presets = (value or following).partition(":")
            return Path(path), presets
    return None, ""


def _refuse_missing_config(argv: Sequence[str]) -> None:
    path, _ = _config_path(argv)
    if path is None:
        return
    if path.suffix != ".py" or not path.is_file():
        raise UserError(
            f"--config={path}: is no config file, must be one of configs/*.py, e.g."
            " configs/cd_full.py:cpu"
        )
    if path.resolve() == Path(base.__file__).resolve():
        raise UserError(
            f"--config={path}: holds what all configs share, must be another of"
            " configs/*.py"
        )


def overrides(argv: Sequence[str]) -> list[str]:
    """The fields `group.field` that arguments set, as they are written."""
    found = (re.match(r"--?config\.([^=]*)", argument) for argument in argv)
    return [match[1] for match in found if match]


def _refuse_unknown_fields(argv: Sequence[str]) -> None:
    fields = flatten(base.get_config())
    for name in overrides(argv):
        if name not in fields:
            close = difflib.get_close_matches(name, fields) or sorted(fields)
            raise UserError(
                f"--config.{name}: there is no such field, nearest are"
                f" {', '.join(close[:5])} (all: configs/base.py)"
            )


@contextlib.contextmanager
def _as_sys_argv(argv: Sequence[str]):
    """config_flags looks for overrides in sys.argv, whatever it is asked to parse."""
    previous, sys.argv = sys.argv, list(argv)
    try:
        yield
    finally:
        sys.argv = previous


def _sentence(error: Exception) -> str:
    """The message in one line; of a quoted traceback, its last line."""
    text = str(error.args[0]) if isinstance(error, KeyError) else str(error)
    text = re.sub(r"invalid literal for int.*", "must be a whole number", text)
    text = re.sub(r"could not convert string to float.*", "must be a number", text)
    text = re.sub(r"\('Non-boolean argument.*", "must be true or false", text)
    lines = [line.strip() for line in text.splitlines() if line.strip(" ^")]
    if any(line.endswith("Traceback (most recent call last):") for line in lines):
        lines = [lines[-1].partition(": ")[2] or lines[-1]]
    return " ".join(lines)[:300] or type(error).__name__
