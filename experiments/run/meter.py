"""How fast a run is, and how long it takes yet."""

import time
from collections.abc import Mapping, Sequence

SURE_AFTER = 2.0  # seconds of steps, compilation left out, that a forecast is made from


class Meter:
    """The time that train steps take, evaluation left out."""

    def __init__(self):
        self.last = 0.0  # steps a second
        self._stepping = 0.0  # seconds up to `_since`
        self._start: tuple[int, float] | None = None  # step, seconds of steps
        self._pauses: list[float] = []  # seconds of each evaluation
        self._told = 0  # of the two forecasts
        self._since = time.monotonic()

    def rate(self, num_steps: int) -> float:
        """Steps a second since the last call or restart; there were so many."""
        now = time.monotonic()
        self.last = num_steps / max(now - self._since, 1e-9)
        self._stepping += now - self._since
        self._since = now
        return self.last

    def restart(self) -> None:
        """After an evaluation: the time since `rate` is left out."""
        self._pauses.append(time.monotonic() - self._since)
        self.skip()

    def skip(self) -> None:
        """Leaves out the time since `rate`, in which no step was taken."""
        self._since = time.monotonic()

    def forecast(self, step: int, num_steps: int, eval_every: int) -> str | None:
        """What is known of the time that is left, each thing once; else None.

        `0.25 s a step, 42 min left` after a few measured seconds, `12 s an evaluation`
        after the second. Called with the number of finished steps after each dispatch;
        the first of either, which compiles, is not measured.
        """
        now = self._stepping + time.monotonic() - self._since
        if self._start is None:
            self._start = step, now
        seconds, steps = now - self._start[1], step - self._start[0]
        if self._told == 0 and steps and seconds >= SURE_AFTER:
            self._told = 1
            each = seconds / steps
            left = duration(each * (num_steps - step))
            return f"{each:.3g} s a step, {left} left, evaluations aside"
        more = -(-(num_steps - step) // eval_every)
        if self._told == 1 and len(self._pauses) > 1 and more:
            self._told = 2
            each, left = self._pauses[-1], self._pauses[-1] * more
            return f"{duration(each)} an evaluation, {duration(left)} for {more} more"
        return None


class Every:
    """A period of some seconds; 0: never."""

    def __init__(self, seconds: float):
        self._seconds, self._last = seconds, -float("inf")

    def is_due(self) -> bool:
        """Whether the period has passed since this last said so; true at first."""
        now = time.monotonic()
        if not self._seconds or now - self._last < self._seconds:
            return False
        self._last = now
        return True


def seconds_of(rows: Sequence[Mapping[str, float]]) -> float:
    """What the steps of metrics.jsonl took, evaluation left out, and compilation but
    for what that of a later phase took from the first steps."""
    seconds, step = 0.0, 0
    for row in rows:
        if row.get("steps_per_second"):
            seconds += (row["step"] - step) / row["steps_per_second"]
        step = row["step"]
    return seconds


def duration(seconds: float) -> str:
    """`3 h 20 min`, `12 min`, `40 s`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"))
    return " ".join([f"{value} {unit}" for value, unit in parts if value][:2])
