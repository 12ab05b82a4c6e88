"""The metrics of the steps since the last line: means, extremes, and spikes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.errors import UserError
from experiments.run.files import make_folder, write_json
from experiments.run.schema import must_be_finite

Columns = dict[str, np.ndarray]  # of each metric [steps, seeds]
RING = 100  # steps that a spike is seen among
LEAST = 20  # steps without which nothing is a jump
JUMP = 1000.0  # times the median of the steps before
MOST_FILES = 5  # a run
MUCH_CUT = 0.25  # of a chain's gradient by its clip: it then does not hold energies


def length(pending: Sequence[Mapping[str, Any]]) -> int:
    """Steps of the dispatches whose metrics have not been fetched."""
    return sum(len(metrics["train/loss"]) for metrics in pending)


def fetch(pending: Sequence[Mapping[str, Any]]) -> Columns:
    """The metrics of dispatches, each [steps] or [steps, seeds], on the host."""
    fetched = jax.device_get(list(pending))
    columns = {name: np.concatenate([m[name] for m in fetched]) for name in fetched[0]}
    return {name: v if v.ndim > 1 else v[:, None] for name, v in columns.items()}


def summarize(columns: Columns, *, first_step: int) -> dict[str, float]:
    """Means over steps and seeds, and `/min` and `/max`; NaN values are left out.

    Args:
      columns: of the steps after `first_step`.
      first_step: finished steps before them.

    Raises:
      UserError: a metric is not finite; names the first step and the metrics.
    """
    refuse_not_finite(columns, first_step=first_step)
    row = {}
    for name, values in columns.items():
        seen = values[np.isfinite(values)]
        if seen.size:
            row[name] = float(np.mean(seen))
            row |= {f"{name}/min": float(seen.min()), f"{name}/max": float(seen.max())}
    return row


def refuse_not_finite(columns: Columns, *, first_step: int) -> None:
    """Raises the UserError of `summarize`."""
    is_bad = {name: _is_bad(name, values) for name, values in columns.items()}
    if any(bad.any() for bad in is_bad.values()):
        first = min(int(np.argmax(bad)) for bad in is_bad.values() if bad.any())
        names = sorted(name for name, bad in is_bad.items() if bad[first])
        raise UserError(
            f"step {first_step + first + 1}: {', '.join(names)} not finite; the last"
            f" good checkpoint stays (try {_advice(columns, first)})"
        )


def _is_bad(name: str, values: np.ndarray) -> np.ndarray:
    """[steps] bool, where a run stops."""
    is_bad = ~np.isfinite(values) if must_be_finite(name) else np.isinf(values)
    return is_bad.any(axis=1)


def _advice(columns: Columns, first: int) -> str:
    cut = np.median(columns.get("chain/clipped", np.zeros((1, 1)))[: first + 1])
    if cut > MUCH_CUT:
        return f"a larger sampler.grad_clip: it cut {cut:.0%} of the chains' gradient"
    return "a lower train.learning_rate or loss.weight"


class Spikes:
    """Keeps the last raw steps, and writes them where a loss or norm leaves its range.

    `<run>/spikes/step<N>.json` holds up to `RING` steps, N the last of them: there a
    loss or norm is `JUMP` times the median of the steps before the line, or a metric
    stops the run. The next file of a jump is of a step that shares none with it.
    """

    def __init__(self, directory: Path):
        self._directory = Path(directory) / "spikes"
        self._ring: Columns = {}
        self._quiet_until = 0

    def look(self, columns: Columns, *, first_step: int) -> None:
        """Takes the steps after `first_step`, which follow those of the last call."""
        held = len(self._ring.get("train/loss", ()))
        joined = {
            name: np.concatenate([self._ring.get(name, _nothing(held, values)), values])
            for name, values in columns.items()
        }
        bad = {name: _is_bad(name, values) for name, values in columns.items()}
        stops = np.any([*bad.values()], axis=0)
        jumps = {n: self._jumps(n, v) for n, v in columns.items() if must_be_finite(n)}
        leaps = {name: bad[name] | jumps.get(name, False) for name in columns}
        for index in np.flatnonzero(np.any([*leaps.values()], axis=0)):
            step, end = first_step + int(index) + 1, held + index + 1
            if step > self._quiet_until or stops[index]:
                self._quiet_until = step + RING
                window = {n: v[max(end - RING, 0) : end] for n, v in joined.items()}
                names = [n for n in leaps if leaps[n][index]]
                self._write(step, names, window, is_last=stops[index])
            if stops[index]:
                break
        self._ring = {name: values[-RING:] for name, values in joined.items()}

    def _jumps(self, name: str, values: np.ndarray) -> np.ndarray:
        """[steps] bool."""
        before = self._ring.get(name, values)
        before = before if len(before) >= LEAST else values
        usual = np.median(np.abs(before), axis=0) if len(before) >= LEAST else np.inf
        is_jump = np.abs(values) > JUMP * np.where(usual > 0, usual, np.inf)
        return is_jump.any(axis=1)

    def _write(
        self, step: int, names: list[str], window: Columns, *, is_last: bool
    ) -> None:
        make_folder(self._directory)
        is_full = len(list(self._directory.glob("step*.json"))) >= MOST_FILES
        if is_full and not is_last:
            return
        write_json(
            self._directory / f"step{step}.json",
            {
                "step": step,
                "leaps": names,
                "steps": [*range(step + 1 - len(window["train/loss"]), step + 1)],
                "metrics": {name: _plain(v) for name, v in window.items()},
            },
        )


def _nothing(count: int, like: np.ndarray) -> np.ndarray:
    return np.full((count, *like.shape[1:]), np.nan)


def _plain(values: np.ndarray) -> list:
    """[steps] of one seed, [steps][seeds] of several."""
    return (values[:, 0] if values.shape[1] == 1 else values).tolist()
