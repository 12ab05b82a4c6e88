"""Where a number that a person may choose is declared: on the maker that reads it.

    def make_ring(
        task,  # not annotated so: handed over by name
        *,
        capacity: Annotated[int, Field("rows a bucket", at_least=1)] = 10_000,
    ): ...

Default, type, limits and meaning stand there and nowhere else: help, documentation,
checks and the tests' other values are made from them. A maker may also ask for what
another maker makes (`Part`), or leave to the user which (`Choice`, `Choices`). Nothing
here reads a config: a maker is an ordinary function.
"""

import functools
import importlib
import importlib.util
import inspect
import math
import pkgutil
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

Maker = Callable[..., Any]


class Field(NamedTuple):
    """A value that a person may set. Limits are of numbers; `one_of` of anything."""

    meaning: str  # with its unit
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    one_of: tuple = ()
    group: str | None = None  # None: that of the maker
    name: str | None = None  # None: that of the parameter
    on_resume: bool = False  # may differ when a run is resumed
    other: Any = None  # another legal value, where none can be derived


# Of numbers of features, units and ranks, and of layers: more than any machine holds is
# refused before it is traced.
of_size = partial(Field, at_least=1, at_most=100_000)
of_depth = partial(Field, at_least=1, at_most=100)


class Part(NamedTuple):
    """What another maker makes, whose fields are in `group` unless they say."""

    maker: Maker
    group: str | None = None


class Choice(NamedTuple):
    """What one of several makers makes: which, is a field of its own.

    `makers` is a mapping from the field's values (None: the parameter is None), or for
    a number a function of it. The maker may ask for the value by the field's name.
    """

    makers: Mapping[str, Maker | None] | Callable[[Any], Maker | None]
    field: Field
    group: str | None = None  # of the chosen maker's fields; None: that of the field
    default: Any = inspect.Parameter.empty  # of the field; else the parameter's own


class Choices(NamedTuple):
    """What some of several makers make, {name: made}; the field is a tuple of names."""

    makers: Mapping[str, Maker]
    field: Field
    group: str | None = None  # of the chosen makers' fields; None: the name of each


class Names(dict):
    """What a part hands over: each value is known by its own name to what follows."""


class Declared(NamedTuple):
    """One parameter of a maker."""

    parameter: str
    spec: Field | Part | Choice | Choices | None  # None: handed over by name
    kind: Any  # the annotated type; of Choices that of each
    default: Any  # inspect.Parameter.empty without one


class Package(Mapping):
    """The makers of a package: its module `name` has a function `make_name`.

    A name that is not in the package is that of a module anywhere on the path: a task
    of one's own is a file beside the config.
    """

    def __init__(self, package: ModuleType):
        self._package = package

    def __iter__(self) -> Iterator[str]:
        for module in pkgutil.iter_modules(self._package.__path__):
            if not module.ispkg and self._has_maker(module.name):
                yield module.name

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, name: str) -> Maker:
        """The maker of that name.

        Raises:
          KeyError: there is none.
          ImportError: there is a module, but what it imports is missing.
        """
        if not isinstance(name, str):
            raise KeyError(name)
        maker = f"make_{name.rpartition('.')[2]}"
        for path in (f"{self._package.__name__}.{name}", name):
            try:
                found = importlib.util.find_spec(path)
            except (ImportError, ValueError):
                continue
            if found is not None and hasattr(importlib.import_module(path), maker):
                return getattr(importlib.import_module(path), maker)
        raise KeyError(name)

    def _has_maker(self, name: str) -> bool:
        module = importlib.import_module(f"{self._package.__name__}.{name}")
        return hasattr(module, f"make_{name}")


@functools.cache
def declared(maker: Maker) -> tuple[Declared, ...]:
    """The parameters of a maker, in order."""
    bound = set(maker.keywords) if isinstance(maker, partial) else set()
    function = maker.func if isinstance(maker, partial) else maker
    target = function.__new__ if _is_tuple(function) else function
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = inspect.signature(target).parameters.values()
    found = []
    for parameter in parameters:
        if parameter.name in bound | {"_cls"} or parameter.kind in _VARIADIC:
            continue
        hint = hints.get(parameter.name)
        specs = getattr(hint, "__metadata__", ())
        spec = next((s for s in specs if isinstance(s, _SPECS)), None)
        annotated = typing.get_args(hint)[0] if specs else None
        if isinstance(spec, Choices):  # {name: made}
            annotated = (annotated, *typing.get_args(annotated))[-1]
        kind = _plain(annotated, parameter.default) if specs else hint
        default = getattr(spec, "default", _NONE)
        default = parameter.default if default is _NONE else default
        found.append(Declared(parameter.name, spec, kind, default))
    return tuple(found)


def check(name: str, value: Any, kind: Any, field: Field) -> Any:
    """The value, of the declared type and within the limits.

    Raises:
      ValueError: names the field, its value and what is allowed.
    """
    kinds = (int, float) if kind is float else (kind,)
    is_kind = isinstance(value, kinds) and isinstance(value, bool) == (kind is bool)
    if not is_kind:
        raise ValueError(f"{name}={value!r}: must be of type {kind.__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}={value!r}: must be finite")
    if not all(holds(value, limit) for holds, limit in _limits(field).values()):
        allowed = limits_text(field._replace(one_of=()))
        raise ValueError(f"{name}={value!r}: must be {allowed}")
    if field.one_of and value not in field.one_of:
        raise ValueError(f"{name}={value!r}: allowed are {limits_text(field)}")
    return value


def limits_text(field: Field) -> str:
    """What is allowed, for a table: `at least 1 and below 2`, `a, b`, or nothing."""
    if field.one_of:
        return ", ".join(map(str, field.one_of))
    return " and ".join(
        f"{name} {limit}" for name, (_, limit) in _limits(field).items()
    )


def _limits(field: Field) -> dict[str, tuple[Callable[[Any, Any], bool], float]]:
    limits = {
        "at least": (lambda v, limit: v >= limit, field.at_least),
        "above": (lambda v, limit: v > limit, field.above),
        "at most": (lambda v, limit: v <= limit, field.at_most),
        "below": (lambda v, limit: v < limit, field.below),
    }
    return {
        k: (holds, limit) for k, (holds, limit) in limits.items() if limit is not None
    }


def _plain(hint: Any, default: Any) -> Any:
    """tuple[float, ...] is a tuple, and a Literal what its default is."""
    origin = typing.get_origin(hint) or hint
    return origin if isinstance(origin, type) else type(default)


def _is_tuple(function: Any) -> bool:
    return isinstance(function, type) and issubclass(function, tuple)


_NONE = inspect.Parameter.empty
_SPECS = (Field, Part, Choice, Choices)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
