"""The fields of a config: checked, handed to the makers that declare them, and told.

    python -m experiments.fields   # writes docs/fields.md

A config holds the fields of the parts that it chose, and no others. Nothing here knows
any field, task or objective by name.
"""

import contextlib
import difflib
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.errors import UserError
from experiments.schema import (
    NO_DEFAULT,
    Maker,
    Spec,
    Values,
    check,
    chosen,
    everything,
    group_of,
    name_in,
    schema,
)
from ired_jax.fields import (
    Choice,
    Choices,
    Declared,
    Field,
    Names,
    Part,
    declared,
    limits_text,
)
from ired_jax.types import told

MOST_WAYS = 3  # to a field, that a sentence names
PAGE = Path(__file__).resolve().parents[1] / "docs" / "fields.md"


def resolve(maker: Maker, given: Values) -> dict[str, Any]:
    """Every field of a config: those given, the others at their defaults.

    Raises:
      UserError: a field that this config does not have, or a value that is not allowed.
    """
    specs = schema(maker, given)
    for name in given:
        if name not in specs:
            raise UserError(_unknown(maker, specs, given, name))
    return {name: check(s, given.get(name, s.default)) for name, s in specs.items()}


def replace(maker: Maker, given: Values, changes: Values) -> dict[str, Any]:
    """`given` with changes; what belonged to parts no longer chosen leaves with them.

    Raises:
      UserError: as `resolve`.
    """
    given = differing(maker, given)  # a default of the old part is none of the new
    merged = {**given, **changes}
    there = {*schema(maker, merged), *changes}
    return resolve(maker, {k: v for k, v in merged.items() if k in there})


def differing(maker: Maker, values: Values) -> dict[str, Any]:
    """The fields whose values are not their defaults."""
    specs = schema(maker, values)
    return {
        name: value
        for name, value in resolve(maker, values).items()
        if value != specs[name].default
    }


def make(maker: Maker, values: Values, known: Values | None = None) -> Any:
    """What a maker makes of resolved values.

    Args:
      maker: its annotated parameters are made or read, the others handed over by name.
      values: of `resolve`.
      known: what can be asked for by name. What a maker has made of its parameters is
        known, in order, to those that come after and to their makers.

    Raises:
      UserError: what a maker says of values that cannot work.
    """
    try:
        return _make(maker, "", values, known or {})
    except ValueError as error:  # makers speak in one sentence
        raise UserError(str(error)) from error


def others(spec: Spec, value: Any) -> list[Any]:
    """Allowed values other than `value`, for tests."""
    field, guesses = spec.field, ()
    if spec.kind in (int, float):
        guesses = (value + 1,) if spec.kind is int else (value / 2, value + 0.5)
        guesses = (*guesses, value - 1, 1, 0)
    elif spec.kind is bool:
        guesses = (not value,)
    elif isinstance(spec.part, Choice) and isinstance(spec.part.makers, Mapping):
        guesses = tuple(spec.part.makers)
    found = []
    for guess in (field.other, *field.one_of, *guesses):
        if guess is not None and guess != value and guess not in found:
            with contextlib.suppress(UserError):
                found.append(check(spec, guess))
    return found


def meaning(spec: Spec) -> str:
    """What a field is, and what is allowed."""
    allowed, meaning = _told(spec)
    return f"{meaning} ({allowed})" if allowed else meaning


def table(maker: Maker) -> str:
    """Every field under every choice that there is, in Markdown."""
    groups: dict[str, dict] = {}
    for spec in everything(maker):
        group, _, leaf = spec.name.rpartition(".")
        allowed, told = _told(spec)
        rows = groups.setdefault(group, {})
        row = rows.setdefault((leaf, written(spec.default), told), ([], []))
        row[0].append(allowed)
        row[1].append(spec.path[-1] if spec.path else None)
    lines = ["# Fields", "", "Of each: default, what is allowed, meaning, and with"]
    lines += ["which choice there is one. By `python -m experiments.fields`.", ""]
    for group, rows in groups.items():
        lines += [f"## {group or 'top level'}", ""]
        for (leaf, default, told), (allowed, places) in rows.items():
            limits = max(allowed, key=len)
            text = f"- `{leaf}` = `{default or repr(default)}`"
            text += f" ({limits})" if limits else ""
            text += f": {told}"
            text += "" if None in places else f" [{_where(places)}]"
            lines += textwrap.wrap(
                text, 80, subsequent_indent="  ", break_on_hyphens=False
            )
        lines.append("")
    return "\n".join(lines)


def flatten(config: Mapping | ConfigDict) -> dict[str, Any]:
    """{group.field: value} of nested groups, lists as tuples."""
    flat = {}
    for name, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            flat |= {f"{name}.{key}": v for key, v in flatten(value).items()}
        else:
            flat[name] = tuple(value) if isinstance(value, list) else value
    return flat


def nest(values: Values) -> ConfigDict:
    """{group.field: value} as a config with groups."""
    config = ConfigDict()
    for name, value in values.items():
        group, _, leaf = name.rpartition(".")
        if group and group not in config:
            config[group] = ConfigDict()
        (config[group] if group else config)[leaf] = value
    return config.lock()


def _make(maker: Maker, group: str, values: Values, known: Values) -> Any:
    known, arguments = dict(known), {}
    for item in declared(maker):
        name, part = item.parameter, item.spec
        if part is None:
            if name in known:
                arguments[name] = known[name]
            elif item.default is NO_DEFAULT:
                raise UserError(
                    f"{getattr(maker, '__name__', maker)} asks for {name!r}, which is"
                    f" not known: there are {', '.join(sorted(known))}"
                )
            continue
        made = _made(item, group, values, known)
        known |= made if isinstance(made, Names) else {}
        known[name] = arguments[name] = made
    return maker(**arguments)


def _made(item: Declared, group: str, values: Values, known: Values) -> Any:
    part = item.spec
    if isinstance(part, Part):
        return _make(part.maker, group_of(part, group), values, known)
    field = part if isinstance(part, Field) else part.field
    name = name_in(field, item.parameter, group)
    value = values[name]
    if isinstance(part, Field):
        return value

    def by(value: Any) -> Any:
        makes = chosen(name, part, value)
        if makes is None:
            return None
        more = {**known, field.name or item.parameter: value}
        made = _make(makes, group_of(part, group, name, value), values, more)
        _refuse_other_kind(name, value, made, item.kind)
        return made

    return {one: by(one) for one in value} if isinstance(part, Choices) else by(value)


def _refuse_other_kind(name: str, value: Any, made: Any, kind: Any) -> None:
    """One's own maker may give anything; a part's type is what its place says."""
    is_part = isinstance(kind, type) and issubclass(kind, tuple)
    if is_part and not isinstance(made, kind):
        raise UserError(
            f"{name}={value!r}: its maker gives {told(made)}, must give {kind.__name__}"
        )


def _unknown(maker: Maker, specs: Mapping[str, Spec], given: Values, name: str) -> str:
    """One sentence on a field that a config does not have."""
    elsewhere = [spec for spec in everything(maker) if spec.name == name]
    if elsewhere:
        ways = [tuple(_missing(spec.path, specs, given)) for spec in elsewhere]
        least = min(map(len, filter(None, ways)), default=0)
        ways = [*dict.fromkeys(way for way in ways if len(way) == least)]
        way = " or ".join(" and ".join(way) for way in ways[:MOST_WAYS])
        left = len(ways) - MOST_WAYS
        more = f" or {left} more ways (docs/fields.md)" if left > 0 else ""
        return f"{name}: is a field only with {way}{more}"
    names = sorted({*specs, *(spec.name for spec in everything(maker))})
    leaf = name.rpartition(".")[2]
    same = [n for n in names if n.rpartition(".")[2] == leaf]
    close = difflib.get_close_matches(name, names) or names
    near = ", ".join(dict.fromkeys([*same, *close][:5]))
    return f"{name}: there is no such field, nearest are {near} (all: docs/fields.md)"


def _missing(path: tuple, specs: Mapping[str, Spec], given: Values) -> list[str]:
    """Which choices of a path are not those of a config, as sentences' parts."""
    missing = []
    for name, value in path:
        spec = specs.get(name)
        now = given.get(name, spec.default) if spec else None
        if isinstance(now, tuple) and not isinstance(value, tuple):
            if value not in now:
                missing.append(f"{value!r} among {name} (here {', '.join(now)})")
        elif spec is None or not _leads(name, spec, now, value):
            here = f" (here {now!r})" if spec else ""
            is_named = spec is None or isinstance(spec.part.makers, Mapping)
            way = f"{name}={value!r}" if is_named else f"another {name}"
            missing.append(way + here)
    return missing


def _leads(name: str, spec: Spec, now: Any, value: Any) -> bool:
    """Whether a choice leads where another does: the same name, or number's part."""
    if isinstance(spec.part.makers, Mapping):
        return now == value
    return chosen(name, spec.part, now) == chosen(name, spec.part, value)


def _told(spec: Spec) -> tuple[str, str]:
    """What is allowed, and the meaning."""
    allowed = limits_text(spec.field)
    if spec.part is not None and isinstance(spec.part.makers, Mapping):
        allowed = ", ".join(map(str, spec.part.makers))
    return allowed, spec.field.meaning


def _where(places: list[tuple[str, Any]]) -> str:
    """The innermost choices that lead to a field."""
    values: dict[str, list[str]] = {}
    for name, value in dict.fromkeys(places):
        # A number leads to a part where it is not 0, whichever was tried.
        is_number = isinstance(value, int | float)
        values.setdefault(name, []).append("not 0" if is_number else written(value))
    return "; ".join(f"{name}: {' or '.join(v)}" for name, v in values.items())


def written(value: Any) -> str:
    """A value as it is read back from a command line, to the last digit."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


if __name__ == "__main__":
    from experiments.build import make_experiment

    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(table(make_experiment))
