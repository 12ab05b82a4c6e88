"""Signals that ask a run to end."""

import signal
from collections.abc import Callable

from experiments import devices

ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGHUP)


class Interrupt:
    """Turns the signals ENDS into a flag, asked for between dispatches.

    SIGUSR2 is what a cluster's scheduler sends before a job's time is over, SIGHUP a
    terminal that is closed: unless it is ignored, as by `nohup`. A second Ctrl-C does
    not wait: KeyboardInterrupt.
    """

    def __init__(self):
        self.is_set = False
        self._previous: dict[int, Callable] = {}

    def is_asked(self) -> bool:
        """Whether any process got a signal: all of them must ask together."""
        return devices.agreed(self.is_set)

    def __enter__(self) -> "Interrupt":
        for number in ENDS:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._previous[number] = signal.signal(number, self._set)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _set(self, number, frame) -> None:
        del frame
        if self.is_set and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.is_set = True
