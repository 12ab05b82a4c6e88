"""Configs as a person writes them: files, presets, overrides on the command line."""

import ast
import hashlib
import importlib.util
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import fields
from experiments.build import make_experiment
from experiments.errors import UserError
from experiments.schema import Spec, Values

BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False}
BOOLEANS |= {"no": False}
WIDTH = 80  # of a line of help
# What a config file may raise.
BROKEN = (ValueError, ImportError, SyntaxError, NameError, TypeError)
BROKEN = (*BROKEN, AttributeError, LookupError)
LONGEST_NAME = 120  # of a run's folder, without its seed


def load(path_and_presets: str) -> dict[str, Any]:
    """The fields that `configs/name.py:preset,preset` gives: {group.field: value}.

    Raises:
      UserError: no such config or preset, or a config that does not load.
    """
    path, _, presets = path_and_presets.partition(":")
    given = made_by(path, "get_config", presets)
    if not isinstance(given, Mapping | ConfigDict):
        raise UserError(
            f"--config={path}: get_config must return a ConfigDict, not"
            f" {type(given).__name__}"
        )
    return fields.flatten(given)


def made_by(path: str, maker: str, *arguments: str) -> Any:
    """What the function `maker` of a config file returns.

    Raises:
      UserError: no such file or function, or one that does not load.
    """
    file = Path(path)
    if file.suffix != ".py" or not file.is_file():
        raise UserError(
            f"--config={path}: is no config file, must be one of configs/*.py or your"
            " own, e.g. configs/cd_full.py:cpu"
        )
    spec = importlib.util.spec_from_file_location(f"_config_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, maker):
            raise UserError(
                f"--config={path}: has no {maker}, must be another of configs/*.py"
            )
        return getattr(module, maker)(*arguments)
    except BROKEN as error:
        written = ":".join(filter(None, (path, *arguments)))
        said = repr(error) if isinstance(error, LookupError) else str(error)
        raise UserError(f"--config={written}: {' '.join(said.split())}") from error


def overridden(given: Values, texts: Mapping[str, str]) -> ConfigDict:
    """Every field of a config, `texts` read by the types of the fields that they set.

    Choices are read first, since the other fields depend on them; what belonged to
    parts that are no longer chosen leaves with them.

    Raises:
      UserError: a field that there is not, or a value that is not allowed.
    """
    return fields.nest(_apply(given, texts))


def name_of(path_and_presets: str, texts: Mapping[str, str]) -> str:
    """A folder's name: the config, its presets, and what is overridden.

    Fields that may change when a run is resumed are left out, the seed too.
    """
    path, _, presets = path_and_presets.partition(":")
    name = "-".join([Path(path).stem, *filter(None, presets.split(","))])
    given = load(path_and_presets)
    before = fields.resolve(make_experiment, given)
    after = _apply(given, texts)
    free = {"seed", *free_fields(after)}
    changed = {
        k: after[k]
        for k in sorted(texts)
        if k not in free and before.get(k) != after[k]
    }
    plain = "".join(f"-{_leaf(k, after)}={_plain(v)}" for k, v in changed.items())
    if len(name + plain) > LONGEST_NAME or not re.fullmatch(r"[\w.=+-]*", plain):
        digest = hashlib.sha256(repr(changed).encode()).hexdigest()[:8]
        plain = re.sub(r"[^\w.=+-]", "_", plain)[: LONGEST_NAME - len(name) - 9]
        plain += f"-{digest}"
    return name + plain


def free_fields(values: Values) -> set[str]:
    """The fields that may differ when a run is resumed.

    The length is one where nothing but the end depends on it: a cosine, or whatever
    goes by the share of the run done, knows it.
    """
    specs = fields.schema(make_experiment, values)
    free = {name for name, spec in specs.items() if spec.field.on_resume}
    knows_length = (
        values["train.lr_schedule"] == "cosine"
        or values.get("train.denoise_share", 0) > 0
        or values.get("negatives.noise_scale_end", -1) >= 0
        or values.get("negatives.curriculum", 0) > 0
        or values.get("replay.curriculum", 0) > 0
    )
    return free if knows_length else free | {"train.num_steps"}


def help_text(given: Values, texts: Mapping[str, str]) -> str:
    """The fields of a config, one a line, with values, limits and meanings.

    They are those that it has with `texts`, overrides of choices among them.
    """
    values = _apply(given, texts)
    specs = fields.schema(make_experiment, values)
    wrapped = textwrap.TextWrapper(
        WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8, break_on_hyphens=False
    )
    lines = [
        f"  --config.{name}={show(values[name])}\n{wrapped.fill(fields.meaning(spec))}"
        for name, spec in specs.items()
    ]
    return "\n".join(["fields of this config (all: docs/fields.md):", "", *lines])


def show(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _apply(given: Values, texts: Mapping[str, str]) -> dict[str, Any]:
    values, left = dict(given), dict(texts)
    while left:
        specs = fields.schema(make_experiment, values)
        there = [name for name in left if name in specs]
        choices = [name for name in there if specs[name].part is not None]
        now = choices[:1] or there or list(left)
        changes = {name: _read(specs.get(name), name, left.pop(name)) for name in now}
        values = fields.replace(make_experiment, values, changes)
    return fields.resolve(make_experiment, values)


def _read(spec: Spec | None, name: str, text: str) -> Any:
    """The value that a text stands for."""
    if spec is None or spec.kind is str:
        return text
    try:
        if spec.kind is bool:
            return BOOLEANS[text.lower()]
        if spec.kind is tuple:
            return _tuple(text)
        return spec.kind(text)
    except (ValueError, KeyError) as error:
        kinds = {int: "a whole number", float: "a number", bool: "true or false"}
        wanted = kinds.get(spec.kind, "values with commas")
        raise UserError(f"--config.{name}={text}: must be {wanted}") from error


def _tuple(text: str) -> tuple:
    """`(1, 2)`, `1,2` or `one,two`."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = [part.strip() for part in text.split(",") if part.strip()]
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _leaf(name: str, values: Values) -> str:
    """The field without its group, where no other group has it."""
    leaf = name.rpartition(".")[2]
    same = [k for k in values if k.rpartition(".")[2] == leaf]
    return leaf if len(same) == 1 else name


def _plain(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, tuple) else str(value)
