"""Which fields a config has: a walk over makers' signatures.

From a maker through its `Part`s and through what its `Choice`s choose. Nothing here
knows any field, task or objective by name.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from experiments.errors import UserError
from ired_jax.fields import Choice, Choices, Declared, Field, Part, declared
from ired_jax.fields import check as check_value

Maker = Callable[..., Any]
Values = Mapping[str, Any]  # {group.field: value}

NO_DEFAULT = inspect.Parameter.empty


class Spec(NamedTuple):
    """One field of a schema."""

    name: str  # group.field
    kind: type
    default: Any
    field: Field
    path: tuple[tuple[str, Any], ...]  # choices that lead to it: (field, value)
    part: Choice | Choices | None  # what it chooses


def schema(maker: Maker, given: Values) -> dict[str, Spec]:
    """The fields that a config with these choices has, in order, by name.

    Raises:
      UserError: a choice that there is not.
    """

    def pick(spec: Spec, part: Choice | Choices):
        value = check(spec, given.get(spec.name, spec.default))
        names = value if isinstance(part, Choices) else (value,)
        return [(name, chosen(spec.name, part, name)) for name in names]

    found: dict[str, Spec] = {}
    for spec in _walk(maker, "", pick):
        first = found.setdefault(spec.name, spec)
        if first[1:4] != spec[1:4]:
            raise ValueError(f"{spec.name}: is declared twice, {first}, {spec}")
    return found


@functools.cache
def everything(maker: Maker) -> tuple[Spec, ...]:
    """The fields under every choice that there is; a name may come more than once."""

    def pick(spec: Spec, part: Choice | Choices):
        seen = []
        for value in _alternatives(spec, part):
            makes = chosen(spec.name, part, value)
            if makes not in seen:
                seen.append(makes)
                yield value, makes

    return tuple(_walk(maker, "", pick))


def check(spec: Spec, value: Any) -> Any:
    """The value, an int as float where a float is declared.

    Raises:
      UserError: names the field, its value and what is allowed.
    """
    if value is NO_DEFAULT:
        raise UserError(f"{spec.name}: must be given, it has no default")
    try:
        value = check_value(spec.name, value, spec.kind, spec.field)
    except ValueError as error:
        raise UserError(str(error)) from error
    if isinstance(spec.part, Choices) and len(set(value)) < len(value):
        raise UserError(f"{spec.name}={value}: names one twice")
    return float(value) if spec.kind is float else value


def chosen(name: str, part: Choice | Choices, value: Any) -> Maker | None:
    """The maker that a value of a choice stands for; None: the part is None.

    Raises:
      UserError: there is none of that name.
    """
    if not isinstance(part.makers, Mapping):
        return part.makers(value)
    try:
        return part.makers[value]
    except KeyError as error:
        allowed = ", ".join(map(str, part.makers))
        own = ""
        if isinstance(value, str) and "." in value:
            maker = f"make_{value.rpartition('.')[2]}"
            own = f", or a module on the path with a function {maker}"
        raise UserError(f"{name}={value!r}: allowed are {allowed}{own}") from error
    except ImportError as error:
        raise UserError(f"{name}={value!r}: cannot be imported ({error})") from error


def _walk(
    maker: Maker,
    group: str,
    pick: Callable,
    path: tuple[tuple[str, Any], ...] = (),
    instance: Any = None,
) -> Iterator[Spec]:
    """The specs of a maker and of what makes its parts.

    `pick(spec, part)` gives the (value, maker) to follow; defaults are those of
    `instance`, if there is one.
    """
    for item in declared(maker):
        part, default = item.spec, item.default
        if instance is not None:
            default = getattr(instance, item.parameter, default)
        if isinstance(part, Part):
            inner = default if isinstance(default, tuple) else None
            yield from _walk(part.maker, group_of(part, group), pick, path, inner)
        elif part is not None:
            spec = _spec_of(item, default, group, path)
            yield spec
            for value, makes in pick(spec, part) if spec.part else ():
                if makes is not None and spec.name not in dict(path):
                    below = group_of(part, group, spec.name, value)
                    yield from _walk(makes, below, pick, (*path, (spec.name, value)))


def _spec_of(item: Declared, default: Any, group: str, path: tuple) -> Spec:
    is_choice = not isinstance(item.spec, Field)
    field = item.spec.field if is_choice else item.spec
    kind = type(default) if is_choice else item.kind
    name = name_in(field, item.parameter, group)
    return Spec(name, kind, default, field, path, item.spec if is_choice else None)


def name_in(field: Field, parameter: str, group: str) -> str:
    group = group if field.group is None else field.group
    return ".".join(filter(None, (group, field.name or parameter)))


def group_of(part, group: str, name: str = "", value: Any = None) -> str:
    """Of the fields below a part; by default its own, or of several each one's name."""
    if part.group is not None:
        return part.group
    if isinstance(part, Choices):
        return str(value).rpartition(".")[2]
    return name.rpartition(".")[0] if name else group


def _alternatives(spec: Spec, part: Choice | Choices) -> list[Any]:
    """Values of a choice that together lead to every maker."""
    if isinstance(part.makers, Mapping):
        return list(part.makers)
    field, tried = spec.field, []
    limits = (field.at_least, field.at_most)
    for value in (spec.default, field.other, *limits, *field.one_of):
        if value is not None and value not in tried:
            tried.append(value)
    return tried
