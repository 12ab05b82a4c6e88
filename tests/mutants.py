"""Planting bugs, each with the test that has to notice: the proof of the suite.

Each test file ends in a list `MUTANTS` of bugs in what it tests: test_mutants collects
them. A mutant is a text edit of one module. `planted` runs the edited source in the
module's own namespace, so that everything that reaches it through the module sees the
bug. `pytest tests/test_mutants.py -k "losses:"` plants what test_losses.py lists.
"""

import contextlib
import importlib
import pathlib
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

# Bugs of earlier implementations, by the ids of the table in the design notes.
KNOWN_BUGS = (
    *("001", "002", "003", "004", "005", "006", "007", "008", "009", "010"),
    *("detached", "bounds", "space", "shape", "12", "9", "q209", "reg", "filter"),
)


NOW: list[tuple[str, tuple]] = []  # modules with the edits that are planted in them


class Mutant(NamedTuple):
    """One bug and one call of a test that must fail while it is there."""

    bug: str  # one of KNOWN_BUGS, or the part of the library
    says: str  # what is planted
    module: str
    edits: tuple[tuple[str, str], ...]  # (old, new), each old exactly once
    test: Callable
    arguments: Mapping[str, object] = MappingProxyType({})  # others: fixtures
    error: type[Exception] = AssertionError  # what the test fails with


@contextlib.contextmanager
def planted(module, *edits):
    """Runs the module's source with each (old, new) replaced, and puts it back.

    Names that other modules imported from it are exchanged as well, and what tests keep
    compiled is forgotten.

    Raises:
      ValueError: an `old` that does not occur exactly once.
    """
    source = pathlib.Path(module.__file__).read_text()
    for old, new in edits:
        if source.count(old) != 1:
            raise ValueError(f"{source.count(old)} times in {module.__name__}: {old}")
        source = source.replace(old, new)
    saved, exchanged = dict(module.__dict__), []
    NOW.append((module.__name__, edits))
    _forget_compiled()
    try:
        exec(compile(source, f"<mutant of {module.__name__}>", "exec"), module.__dict__)
        exchanged = list(_exchange(module, saved))
        yield
    finally:
        for other, name, value in exchanged:
            setattr(other, name, value)
        module.__dict__.clear()
        module.__dict__.update(saved)
        NOW.pop()
        _forget_compiled()


def _ours():
    """The loaded modules of this repository."""
    rooms = ("ired_jax", "experiments", "configs", "tests")
    loaded = list(sys.modules.items())
    return [m for name, m in loaded if m and name.split(".")[0] in rooms]


def _exchange(module, saved):
    """Gives the importers of a name its new value; yields what they had."""
    defined = {
        id(value): module.__dict__[name]
        for name, value in saved.items()
        if getattr(value, "__module__", None) == module.__name__
        and module.__dict__[name] is not value
    }
    for other in _ours():
        if other is module:
            continue
        for alias, value in list(vars(other).items()):
            if id(value) in defined:
                setattr(other, alias, defined[id(value)])
                yield other, alias, value


def _forget_compiled():
    """Empties the caches of what tests compile or build once."""
    for module in _ours():
        if module.__name__.startswith("tests."):
            for value in filter(callable, list(vars(module).values())):
                for forget in ("cache_clear", "clear_cache"):
                    getattr(value, forget, lambda: None)()


def module_of(mutant):
    return importlib.import_module(mutant.module)


def one(old, new):
    return ((old, new),)


def of_all_tests() -> dict[str, Mutant]:
    """The planted bugs of all test files, by `file: bug: what it is`.

    Raises:
      ValueError: two of one file have the same name.
    """
    found = {}
    for path in sorted(pathlib.Path(__file__).parent.glob("test_*.py")):
        if path.stem == "test_mutants":
            continue
        tests = importlib.import_module(f"tests.{path.stem}")
        for mutant in getattr(tests, "MUTANTS", ()):
            name = f"{path.stem.removeprefix('test_')}: {mutant.bug}: {mutant.says}"
            if name in found:
                raise ValueError(f"{name}: is planted twice")
            found[name] = mutant
    return found
