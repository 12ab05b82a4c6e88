"""What every command shares: flags, one-sentence errors, the compilation cache."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from experiments.errors import UserError


def run(main: Callable[[list[str]], None]) -> None:
    """Runs a command; bad input ends it with one sentence and exit code 2."""
    enable_compilation_cache()
    try:
        main(sys.argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def enable_compilation_cache() -> None:
    """Keeps compiled programs in a private directory: a second start is soon."""
    home = os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")
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
    values = flags.FlagValues()
    define(values)
    try:
        rest = values(list(argv))
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(_first_line(error)) from error
    except OSError as error:
        raise UserError(f"--config: {error.filename} cannot be read") from error
    if len(rest) > 1:
        raise UserError(
            f"unexpected argument {rest[1]!r}: overrides are written"
            " --config.group.field=value"
        )
    return values


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
        return values.config
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"--config: {_first_line(error)}") from error


def config_name(argv: Sequence[str]) -> str:
    """`cd_full-cpu-classic` from --config=configs/cd_full.py:cpu,classic."""
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        name, _, value = argument.lstrip("-").partition("=")
        if name == "config":
            path, _, presets = (value or following).partition(":")
            return "-".join([Path(path).stem, *filter(None, presets.split(","))])
    raise UserError("--config: is required, e.g. --config=configs/cd_full.py:cpu")


def _first_line(error: Exception) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) else str(error)
    return " ".join(text.split())[:300] or type(error).__name__
