"""How a sweep stands, from its files alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table

from experiments.errors import UserError
from experiments.run.files import read_json, write_json
from experiments.run.logs import read_rows
from experiments.run.meter import duration
from experiments.score.records import read_result
from experiments.sweeps.jobs import BEGUN, is_running, log_of
from experiments.sweeps.points import Point

FILE = "sweep.json"
OF_POINT = {"primary", "num_steps", "patience", "command"}  # there
OF_SOME = {"num_examples"}  # there, but for sweeps of an earlier version
OF_ALL = OF_POINT | OF_SOME


class Row(NamedTuple):
    """One point."""

    name: str
    state: str  # waiting, running, stopped, failed, done
    step: int
    num_steps: int
    primary: str | None  # metric
    value: float | None  # of it, the last
    seconds_left: float | None  # evaluations aside
    why: str = ""  # it failed


def claim(folder: Path, points: Sequence[Point], commit: str | None) -> None:
    """Writes down what the sweep is, and the commit of all of its points.

    Raises:
      UserError: it was begun at another commit, or cannot be written.
    """
    path = folder / FILE
    # A sweep that was refused by its estimate left its file alone.
    has_begun = any(not p.name.startswith(FILE) for p in folder.glob("*"))
    begun = _read(path)["commit"] if has_begun and path.exists() else None
    if None not in (begun, commit) and begun != commit:
        raise UserError(
            f"{folder}: was begun at commit {begun}, here is {commit} (check that"
            " out, choose another --workdir, or --allow_changes)"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}") from error
    of_points = {
        point.name: {
            "primary": point.primary,
            "num_steps": point.values["train.num_steps"],
            "patience": point.values["train.patience"],
            "num_examples": point.values["eval.num_examples"],
            "command": point.command,
        }
        for point in points
    }
    write_json(path, {"commit": begun or commit, "points": of_points})


def look(folder: Path) -> list[Row]:
    """Every point of a sweep.

    Raises:
      UserError: no sweep was begun there.
    """
    path = folder / FILE
    if not path.exists():
        raise UserError(f"{folder}: no sweep was begun there, it has no {FILE}")
    points = _read(path)["points"]
    return [_row(folder / name, **about) for name, about in points.items()]


def table(rows: Sequence[Row], title: str) -> Table:
    """One table, whole on a terminal of 80 columns."""
    metrics = {row.primary for row in rows}
    metric = f"{metrics.pop()}" if len(metrics) == 1 else "primary"
    view = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    view.add_column("point", overflow="fold")
    for name in ("state", "step", "of", metric, "left"):
        view.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        left = row.seconds_left
        view.add_row(
            row.name,
            row.state,
            str(row.step),
            str(row.num_steps),
            "-" if row.value is None else f"{row.value:.3g}",
            "-" if left is None else duration(left),
        )
    return view


def reasons(rows: Sequence[Row]) -> str:
    """Why points failed, a line each."""
    return "\n".join(f"{r.name}: {r.why}" for r in rows if r.state == "failed")


def _row(
    directory: Path,
    *,
    num_steps: int,
    patience: int,
    primary: str | None,
    command: list[str],
    num_examples: int | None = None,
) -> Row:
    del command
    rows, result = read_rows(directory), read_result(directory)
    step = rows[-1]["step"] if rows else 0
    value = next((row[primary] for row in reversed(rows) if primary in row), None)
    state, why, left = "waiting", "", None
    if is_running(directory):
        state, rate = "running", rows[-1].get("steps_per_second") if rows else 0
        left = (num_steps - step) / rate if rate else None
    elif result and _is_whole(result, num_steps, patience, num_examples):
        state, value = "done", result["metrics"].get(primary, value)
    elif log_of(directory).exists():
        state, why = _ended(log_of(directory).read_text(errors="replace"))
    return Row(directory.name, state, step, num_steps, primary, value, left, why)


def _is_whole(
    result: dict, num_steps: int, patience: int, num_examples: int | None
) -> bool:
    """Whether a run went to the end, or stopped early where this one would too.

    And was scored on as many rows; None: on any number.
    """
    if num_examples not in (None, result.get("num_examples", num_examples)):
        return False
    would_stop = 0 < patience <= result.get("patience", 0)
    is_as_long = result.get("num_steps", 0) >= num_steps
    return result["step"] >= num_steps or (would_stop and is_as_long)


def _read(path: Path) -> dict:
    """What a sweep is."""
    about = read_json(path)
    if not isinstance(about, dict) or not {"commit", "points"} <= set(about):
        raise UserError(f"{path}: is damaged, it has no commit and no points")
    points = about["points"].values() if isinstance(about["points"], dict) else [None]
    if not all(isinstance(p, dict) and set(p) | OF_SOME == OF_ALL for p in points):
        raise UserError(
            f"{path}: is damaged or of another version, its points must have"
            f" {', '.join(sorted(OF_POINT))}"
        )
    return about


def _ended(log: str) -> tuple[str, str]:
    """(state, why) of a point whose process is gone."""
    last = log.rpartition(f"{BEGUN}\n")[2]  # a log is of all tries
    lines = [line for line in last.splitlines() if line.strip()]
    if not lines or not lines[-1].startswith(("exit code", "error: ")):
        return "stopped", ""  # by its sweep, or with it
    if lines[-1] == "exit code 0":  # and not done: it shall be longer, or is gone
        return "waiting", ""
    said = [line for line in lines[-20:] if line.startswith("error: ")]
    why = said[-1] if said else lines[-1]
    return ("stopped", "") if "error: interrupted" in why else ("failed", why)
