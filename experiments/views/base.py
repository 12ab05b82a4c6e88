"""The host side of a task: a module of functions, most of them optional.

It is `experiments/views/<task>.py`; for a task that is a module of one's own, that
module. Inputs are what `read` gives, one by one; x and y are trees of NumPy arrays as
the task has them.
"""

import contextlib
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from experiments.errors import UserError


class View(NamedTuple):
    """Attributes are named as the module's functions.

    Attributes:
      load_data: () -> the arrays of a finite set, with declared fields.
      read: path -> inputs; raises UserError in one sentence.
      check: inputs -> what is wrong with each, None if it can be solved.
      warn: inputs -> a sentence for each that is unlike the training, else None.
      sizes: inputs -> the config's fields of a task for them, {"task.n": 5}.
      to_x: input -> x.
      write: (path, answers): trees like y, leaves [N, ...], NaN where there is none.
      is_right: (x, y) -> whether the answer is right, checked without any truth; None
        where it cannot be said. Without it all answers are unknown.
      describe: (x, y) -> {column: value}, for table and .csv.
      text: (x, y) -> the answer drawn in characters, with rich's markup.
      to_answer: y -> the answer as a person holds it.
      draw: (axes, x, truth or None, y), one example.
      draw_model: (two axes, the task's fields, energy_fn (x, y, t)), a landscape whole.
      diagnostics: y, leaves [N, ...] -> {name: [N]}, figures of answers alone.
    """

    load_data: Callable[..., Any] | None = None
    read: Callable[[str], Sequence[Any]] | None = None
    check: Callable[[Sequence[Any]], list[str | None]] = lambda rows: [None] * len(rows)
    warn: Callable[[Sequence[Any]], list[str | None]] = lambda rows: [None] * len(rows)
    sizes: Callable[[Sequence[Any]], Mapping[str, Any]] = lambda inputs: {}
    to_x: Callable[[Any], Any] = np.asarray
    write: Callable[[Path, Any], None] | None = None
    is_right: Callable[[Any, Any], bool | None] | None = None
    describe: Callable[[Any, Any], dict[str, Any]] = lambda x, y: {}
    text: Callable[[Any, Any], str] | None = None
    to_answer: Callable[[Any], Any] = lambda y: y
    draw: Callable[..., None] | None = None
    draw_model: Callable[..., None] | None = None
    diagnostics: Callable[[Any], dict[str, np.ndarray]] | None = None

    def needs(self, *names: str) -> "View":
        """Itself; raises UserError if the module lacks any of these functions."""
        missing = [name for name in names if getattr(self, name) is None]
        if missing:
            functions = " and ".join(f"`{name}`" for name in missing)
            raise UserError(
                f"task.name: its module lacks {functions} (docs/extending.md)"
            )
        return self


def view_of(task: str) -> View:
    """The view of the task of that name; without a module, all is left out."""
    for name in (f"experiments.views.{task}", task):
        if _exists(name):
            module = vars(importlib.import_module(name))
            view = View(**{n: module[n] for n in View._fields if n in module})
            is_right = view.is_right and _plain(view.is_right)
            return view._replace(is_right=is_right)
    return View()


def _plain(check: Callable) -> Callable:
    """The same check with Python's own booleans: NumPy's True `is` not True."""

    def is_right(x: Any, y: Any) -> bool | None:
        said = check(x, y)
        return None if said is None else bool(said)

    return is_right


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # of a dotted name whose package is none
        return False


@contextlib.contextmanager
def reading(path: str, kind: str, errors: tuple = (OSError, ValueError)) -> Iterator:
    """Turns what is raised of a file that is none of that kind into one sentence."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"--input={path}: there is no such file") from error
    except errors as error:
        raise UserError(f"--input={path}: is not a readable {kind} file") from error


def draw_graph(
    axis,
    n: int,
    lines: Sequence[tuple[int, int, Any, float, str]],
    names: Mapping[int, str] = MappingProxyType({}),
) -> None:
    """n nodes on a circle, numbered or named, and lines between them.

    lines: (from, to, colour, width, style) each, the later ones above.
    """
    angle = 2 * np.pi * np.arange(n) / n
    at = np.stack([np.sin(angle), np.cos(angle)], axis=-1)
    for i, j, colour, width, style in lines:
        axis.plot(*at[[i, j]].T, color=colour, linewidth=width, linestyle=style)
    axis.plot(*at.T, "o", color="black", markersize=3)
    for node, (x, y) in enumerate(1.14 * at):
        text = names.get(node, str(node))
        weight = "bold" if node in names else "normal"
        axis.text(x, y, text, ha="center", va="center", fontsize=7, weight=weight)
    axis.set(xlim=(-1.35, 1.35), ylim=(-1.3, 1.3), aspect="equal")
    axis.axis("off")
