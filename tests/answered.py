"""What a fuzzer asks of a file: each input has a verdict or a sentence, soon."""

import contextlib
import functools
import signal
from pathlib import Path

import jax
import numpy as np

from experiments import fields
from experiments.build import build, make_experiment
from experiments.errors import UserError
from experiments.schema import everything
from experiments.views.base import view_of
from tests import tiny

SECONDS = 60  # of computing; longer is a hang
FIELDS = frozenset(spec.name for spec in everything(make_experiment))


class Hang(Exception):
    """Something took longer than it may."""


@contextlib.contextmanager
def in_time(seconds: float = SECONDS):
    """Raises Hang after so long, by the clock of this process."""

    def end(number, frame):
        raise Hang(f"longer than {seconds:g} s")

    before = signal.signal(signal.SIGPROF, end)
    # Again and again: what is raised in a destructor is lost.
    signal.setitimer(signal.ITIMER_PROF, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def refuse_unless_sentence(text: str, names) -> None:
    """Raises AssertionError for what is not one line that names a field."""
    assert text.strip(), "says nothing"
    assert "\n" not in text, f"more than one line: {text!r}"
    assert len(text) < 1_000, f"{len(text)} characters: {text[:200]!r}"
    assert any(name in text for name in names), f"names no field: {text!r}"


@functools.cache
def small_of(task: str):
    return tiny.get_config(task if task != "inverse" else "none")


def try_file(task: str, name: str, content: bytes, folder: Path) -> str:
    """`runs`, or the sentence that refuses the file; what `solve` does but the descent.

    Each input has a verdict, or a sentence of its own.
    """
    path, view = folder / name, view_of(task)
    path.write_bytes(content)
    before = {p: p.read_bytes() for p in folder.iterdir()}
    try:
        with in_time():
            return _solved(view, task, str(path), folder)
    except UserError as error:
        refuse_unless_sentence(str(error), (str(path), "--input", *FIELDS))
        left = {p: p.read_bytes() for p in folder.iterdir()}
        assert left == before, "something was left in the folder"
        return str(error)


def _solved(view, task: str, path: str, folder: Path) -> str:
    inputs = view.read(path)
    changes = view.sizes(inputs)
    said = view.check(inputs)
    assert len(said) == len(inputs) > 0
    for sentence in said:
        assert sentence is None or "\n" not in sentence
    good = [i for i, sentence in enumerate(said) if sentence is None]
    if not good:
        raise UserError(f"--input: {'; '.join(said)[:300]}")
    given = fields.flatten(small_of(task))
    config = fields.nest(fields.replace(make_experiment, given, changes))
    example = build(config).task.example
    rows = []
    for i in good:
        x = view.to_x(inputs[i])
        if jax.tree.map(np.shape, x) == jax.tree.map(np.shape, example.x):
            rows.append(x)
    assert len(view.warn([inputs[i] for i in good])) == len(good)
    for x in rows[:20]:
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(x))
        y = np.zeros(example.y.shape, np.float32)
        for answer in (y, y + 0.5, y * np.nan):
            figures = view.describe(x, answer)
            assert isinstance(figures, dict)
            if view.is_right is not None:
                assert view.is_right(x, answer) in (True, False, None)
    out = folder / "out"
    view.write(out, np.full((2, *example.y.shape), np.nan, np.float32))
    out.unlink()
    return "runs"
