"""What a run says: metrics.jsonl, TensorBoard scalars, lines and a progress bar."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import rich
import rich.progress
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from experiments import devices
from experiments.errors import UserError
from experiments.run.files import append, write_bytes
from experiments.run.schema import EXTREMES, Schema

T = TypeVar("T")


def read_rows(workdir: Path) -> list[dict[str, float]]:
    """The whole lines of metrics.jsonl: one that is cut off or damaged is left out.

    Raises:
      UserError: the file cannot be read.
    """
    path = Path(workdir) / "metrics.jsonl"
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    return [row for row in map(_row_of, lines) if row is not None]


def _row_of(line: bytes) -> dict[str, float] | None:
    """A line's {name: number}; None where it is no such line."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        return None
    return row if all(type(v) in (int, float) for v in row.values()) else None


class Logs:
    """One line a log step in metrics.jsonl, on TensorBoard and on the screen.

    Opened at `step`, it forgets what an interrupted run logged after it, so that each
    step stands there once. Extremes (`<name>/min`, `<name>/max`) are in metrics.jsonl
    only. `then` is called after each line.
    """

    def __init__(
        self,
        workdir: Path,
        schema: Schema,
        *,
        step: int,
        num_steps: int,
        then: Callable[[], None] | None = None,
    ):
        self.directory, self._schema, self._then = Path(workdir), schema, then
        self._path = Path(workdir) / "metrics.jsonl"
        self.rows = [row for row in read_rows(workdir) if row["step"] <= step]
        kept = "".join(json.dumps(row) + "\n" for row in self.rows)
        write_bytes(self._path, kept.encode())
        self._board = _writer_of_board()(
            str(Path(workdir) / "tensorboard"),
            purge_step=step + 1,
            write_to_disk=devices.is_writer(),
        )
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.1f} steps/s, left"),
            TimeRemainingColumn(),
            transient=True,
        )
        self._bar = self._progress.add_task(
            "training", total=num_steps, completed=step, rate=0.0
        )
        self._lines = 0

    def __enter__(self) -> "Logs":
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()
        self._board.close()

    def advance(self, step: int, rate: float, forecast: str | None = None) -> None:
        """Moves the bar; `rate` in steps a second.

        A `forecast` is printed where nobody watches the bar.
        """
        self._progress.update(self._bar, completed=step, rate=rate)
        if forecast and not self._progress.console.is_terminal:
            self._progress.console.print(forecast, highlight=False)

    def write(self, metrics: Mapping[str, float]) -> None:
        """Writes one row; `metrics` has `step` and any names of the schema."""
        self._schema.check(metrics)
        row = {name: float(value) for name, value in metrics.items()}
        row["step"] = int(row["step"])
        self.rows.append(row)
        append(self._path, json.dumps(row))
        for name, value in row.items():
            if name != "step" and name.rpartition("/")[2] not in EXTREMES:
                self._board.add_scalar(name, value, row["step"])
        self._print(row)
        if self._then:
            self._then()

    def _print(self, row: Mapping[str, float]) -> None:
        console = self._progress.console
        # A terminal's line has an end, a file's has none.
        room = console.width - 8 if console.is_terminal else sys.maxsize
        cells = [("step", f"{row['step']:>8}")]
        for name in self._schema.fitting(room, _width):
            value = f"{row[name]:.3g}" if name in row else ""
            cells.append((_title(name), f"{value:>{_width(name)}}"))
        show = console.print
        if self._lines % 20 == 0:
            header = "".join(f"{title:>{len(cell)}}" for title, cell in cells)
            show(header, style="bold", soft_wrap=True)
        line = "".join(cell for _, cell in cells)
        show(line.rstrip(), highlight=False, soft_wrap=True)
        self._lines += 1


def _width(name: str) -> int:
    return max(len(_title(name)) + 2, 10)


def _writer_of_board() -> type:
    """tensorboardX's. Where torch is, it would import it, seconds, for a type."""
    is_hidden = "torch" not in sys.modules
    if is_hidden:
        sys.modules["torch"] = None
    try:
        from tensorboardX import SummaryWriter
    finally:
        if is_hidden:
            del sys.modules["torch"]
    return SummaryWriter


def _title(name: str) -> str:
    """`loss` of `train/loss`: other splits are named."""
    return name.removeprefix("train/")


def track(items: Iterable[T], title: str) -> Iterable[T]:
    """The items, with a progress bar where a person looks at the screen."""
    is_watched = rich.get_console().is_terminal
    title = escape(title)  # of folders that a person named
    return rich.progress.track(items, title, transient=True, disable=not is_watched)


def say(text: object) -> None:
    """One line for the person at the screen, as it is: paths may have brackets."""
    rich.get_console().print(text, markup=False, emoji=False)
