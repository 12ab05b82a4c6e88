"""The page of one run, written again and again while it goes on."""

from pathlib import Path

from rich.text import Text

from experiments.reporting import content, page, runs, studies
from experiments.run.files import write_bytes
from experiments.run.logs import say
from experiments.run.meter import Every


class Watch:
    """Called, it writes `<run>/report.html`, once in so many seconds; 0: never.

    A page that cannot be written ends no training: the reason is said once.
    """

    def __init__(self, directory: Path, seconds: float):
        self._directory, self._seconds = Path(directory), seconds
        self._every = Every(seconds)
        self._is_said = False

    def __call__(self) -> None:
        if self._every.is_due():
            self._try(self._seconds)

    def finish(self) -> None:
        """The last one: it no longer asks to be read again."""
        if self._seconds:
            self._try(None)

    def _try(self, again: float | None) -> None:
        try:
            self._write(again)
        except Exception as error:  # of whatever lies in the folder
            if not self._is_said:
                why = " ".join(f"{type(error).__name__}: {error}".split())
                say(Text(f"report.html is not written, the run goes on: {why}"))
            self._is_said = True

    def _write(self, again: float | None) -> None:
        run = runs.read(self._directory)
        told = content.page([run], studies.sections([run]))
        html = page.html(told._replace(again=again))
        write_bytes(self._directory / "report.html", html.encode())
