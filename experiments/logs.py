"""What a run says: metrics.jsonl, TensorBoard scalars, lines and a progress bar."""

import contextlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import rich
import rich.progress
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from tensorboardX import SummaryWriter

from experiments.errors import UserError

T = TypeVar("T")

# name or pattern: (unit, meaning). A name that is not here is an error.
SCHEMA = {
    "step": ("steps", "finished train steps"),
    "steps_per_second": ("1/s", "since the last line, evaluation left out"),
    "train/loss": ("-", "what the optimizer lowers"),
    "train/denoise_mse": ("per element", "noise prediction, raw parameters"),
    "val/denoise_mse": ("per element", "noise prediction, held out, EMA parameters"),
    "(val|ood|train)/task_mse": ("per element", "final answer, EMA, full inference"),
    "(val|ood|train)/task_mse/(stderr|(pred|target)_(mean|std))": ("", "of the above"),
    "val/denoise_mse/(stderr|(pred|target)_(mean|std))": ("", "of the above"),
    "(val|ood)/steps": ("steps", "of descent a level, where eval.tolerance stops it"),
    "energy_pos": ("nats", "mean energy of positives, E / s_t"),
    "energy_neg": ("nats", "mean energy of negatives, E / s_t"),
    "margin": ("nats", "energy_neg - energy_pos"),
    "frac_sat": ("share", "pairs with sigmoid((U+ - U-) / tau) < .01"),
    "grad_norm_pos": ("per element", "root mean square of grad_y E at positives"),
    "pred_norm": ("per element", "root mean square of the denoised y_0"),
    "chain/acceptance": ("share", "of the moves"),
    "chain/displacement": ("per element", "root mean square of end - start"),
    "replay/size": ("rows", "held in all buckets"),
    "filter/kept": ("share", "of the negatives"),
    r"filter/q\d+_level\d+": ("residual", "quantile of a level's residuals"),
    "norm/(param|grad|update)": ("-", "global norms"),
}
_PATTERN = re.compile("|".join(f"(?:{name})" for name in SCHEMA))
MAY_BE_NAN = re.compile(r"filter/q\d+_level\d+")  # a level without rows in a batch
COLUMNS = (  # of the line on the screen
    ("loss", "train/loss"),
    ("denoise", "train/denoise_mse"),
    ("grad+", "grad_norm_pos"),
    ("U+", "energy_pos"),
    ("margin", "margin"),
    ("sat", "frac_sat"),
    ("kept", "filter/kept"),
    ("val", "val/task_mse"),
    ("ood", "ood/task_mse"),
)


def check_names(metrics: Mapping[str, Any]) -> None:
    """Raises KeyError for a metric name that the schema does not have."""
    unknown = [name for name in metrics if not _PATTERN.fullmatch(name)]
    if unknown:
        raise KeyError(
            f"metrics {unknown} are not in the schema of experiments/logs.py"
        )


def read_rows(workdir: Path) -> list[dict[str, float]]:
    """The whole lines of metrics.jsonl; a last line that was cut off is left out."""
    path = Path(workdir) / "metrics.jsonl"
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def write_json(path: Path, value: Any) -> None:
    """Writes a file whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, default=float) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all.

    Raises:
      UserError: it could not be written; what was there stays.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UserError(f"{path} could not be written: {error.strerror}") from error


class Logs:
    """One line a log step in metrics.jsonl, on TensorBoard and on the screen.

    Opened at `step`, it forgets what an interrupted run logged after it, so that each
    step stands there once.
    """

    def __init__(self, workdir: Path, *, step: int, num_steps: int):
        self._path = Path(workdir) / "metrics.jsonl"
        self.rows = [row for row in read_rows(workdir) if row["step"] <= step]
        kept = "".join(json.dumps(row) + "\n" for row in self.rows)
        write_bytes(self._path, kept.encode())
        self._board = SummaryWriter(
            str(Path(workdir) / "tensorboard"), purge_step=step + 1
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

    def advance(self, step: int, rate: float) -> None:
        """Moves the bar; `rate` in steps a second."""
        self._progress.update(self._bar, completed=step, rate=rate)

    def write(self, metrics: Mapping[str, float]) -> None:
        """Writes one row; `metrics` has `step` and any names of the schema."""
        check_names(metrics)
        row = {name: float(value) for name, value in metrics.items()}
        row["step"] = int(row["step"])
        self.rows.append(row)
        try:
            with self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise UserError(
                f"{self._path} could not be written: {error.strerror}"
            ) from error
        for name, value in row.items():
            if name != "step":
                self._board.add_scalar(name, value, row["step"])
        self._print(row)

    def _print(self, row: Mapping[str, float]) -> None:
        if self._lines % 20 == 0:
            header = "".join(f"{title:>10}" for title, _ in COLUMNS)
            self._progress.console.print(
                f"{'step':>8}{header}", style="bold", soft_wrap=True
            )
        cells = (
            f"{row[name]:>10.3g}" if name in row else " " * 10 for _, name in COLUMNS
        )
        line = f"{row['step']:>8}{''.join(cells)}"
        self._progress.console.print(line.rstrip(), highlight=False, soft_wrap=True)
        self._lines += 1


def track(items: Iterable[T], title: str) -> Iterable[T]:
    """The items, with a progress bar where a person looks at the screen."""
    is_watched = rich.get_console().is_terminal
    return rich.progress.track(items, title, transient=True, disable=not is_watched)


def say(text: str) -> None:
    """One line for the person at the screen."""
    rich.print(text)
