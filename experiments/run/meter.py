"""How fast a run is, and how long it takes yet."""

import time

SURE_AFTER = 2.0  # seconds of steps, compilation left out, that a forecast is made from


class Meter:
    """The time that train steps take, evaluation left out."""

    def __init__(self):
        self.last = 0.0  # steps a second
        self._stepping = 0.0  # seconds up to `_since`
        self._start: tuple[int, float] | None = None  # step, seconds of steps
        self._has_told = False
        self.restart()

    def rate(self, num_steps: int) -> float:
        """Steps a second since the last call or restart; there were so many."""
        now = time.monotonic()
        self.last = num_steps / max(now - self._since, 1e-9)
        self._stepping += now - self._since
        self._since = now
        return self.last

    def restart(self) -> None:
        """After an evaluation: the time since `rate` is left out."""
        self._since = time.monotonic()

    def forecast(self, step: int, num_steps: int) -> str | None:
        """`0.25 s a step, 42 min left` and so on, once, after a few measured seconds.

        Called with the number of finished steps after each dispatch; the first, which
        compiles, is not measured.
        """
        now = self._stepping + time.monotonic() - self._since
        if self._start is None:
            self._start = step, now
        seconds, steps = now - self._start[1], step - self._start[0]
        if self._has_told or not steps or seconds < SURE_AFTER:
            return None
        self._has_told = True
        each = seconds / steps
        left = duration(each * (num_steps - step))
        return f"{each:.3g} s a step, {left} left, evaluations aside"


def duration(seconds: float) -> str:
    """`3 h 20 min`, `12 min`, `40 s`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"))
    return " ".join([f"{value} {unit}" for value, unit in parts if value][:2])
