"""The page of one run, written again and again while it goes on."""

from pathlib import Path

from experiments.reporting import content, page, runs, studies
from experiments.run.files import write_bytes
from experiments.run.meter import Every


class Watch:
    """Called, it writes `<run>/report.html`, once in so many seconds; 0: never."""

    def __init__(self, directory: Path, seconds: float):
        self._directory, self._seconds = Path(directory), seconds
        self._every = Every(seconds)

    def __call__(self) -> None:
        if self._every.is_due():
            self._write(self._seconds)

    def finish(self) -> None:
        """The last one: it no longer asks to be read again."""
        if self._seconds:
            self._write(None)

    def _write(self, again: float | None) -> None:
        run = runs.read(self._directory)
        told = content.page([run], studies.sections([run]))
        html = page.html(told._replace(again=again))
        write_bytes(self._directory / "report.html", html.encode())
