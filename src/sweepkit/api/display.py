"""Shows a run where it was called: a live picture in a notebook, the terminal's view elsewhere. Knows no process."""

from __future__ import annotations

import sys
import threading
import time
import uuid
from types import TracebackType
from typing import Protocol, Self

from sweepkit.api import picture
from sweepkit.report import live as view
from sweepkit.report import tables
from sweepkit.report.watch import Outcome, Watcher
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Event, Started
from sweepkit.trial.trial import Trial

SECONDS_BETWEEN = 1.0
NOTES = 2
"""So many of the last lines about the study as a whole are shown."""


class Watching(Watcher, Protocol):
    """A watcher to enter while the study runs."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Show the last of it."""

    def again(self) -> None:
        """Show it in this place too."""

    def summary(self, outcome: Outcome, study: StudyData) -> None:
        """Say what came out, where the view has not said it."""


def watching() -> Watching:
    """Return the view that fits this process."""
    if in_notebook():
        return Live()
    return _Picture() if sys.stdout.isatty() else _Lines()


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel, which can replace what it has shown."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class _Picture(view.Picture):
    def again(self) -> None:
        """Do nothing: a terminal shows it once."""

    def summary(self, outcome: Outcome, study: StudyData) -> None:
        """Print what ``sweep run`` ends with."""
        tables.show(tables.summary(outcome, study))


class _Lines(view.Lines):
    def again(self) -> None:
        """Do nothing: lines are written once."""

    def summary(self, outcome: Outcome, study: StudyData) -> None:
        """Print what ``sweep run`` ends with."""
        tables.show(tables.summary(outcome, study))


class Live:
    """A picture in a notebook's output, replaced every second by a thread of its own."""

    def __init__(self) -> None:
        self._id = f"sweepkit-{uuid.uuid4().hex}"
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._began = time.monotonic()
        self._board: view.Board | None = None
        self._curves: dict[int, list[tuple[float, float]]] = {}
        self._notes: list[str] = []
        self._outcome: Outcome | None = None
        self._error = ""
        self._ticker = threading.Thread(target=self._tick, name="sweepkit view", daemon=True)

    def __enter__(self) -> Self:
        self.again()
        self._ticker.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._ticker.join()
        if error is not None:
            self._error = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        self._publish(update=True)

    def again(self) -> None:
        """Show it in the cell that runs now; every place it was shown in goes on."""
        self._publish(update=False)

    def summary(self, outcome: Outcome, study: StudyData) -> None:
        """Do nothing: the picture says it."""

    def _tick(self) -> None:
        while not self._over.wait(SECONDS_BETWEEN):
            self._publish(update=True)

    def _publish(self, *, update: bool) -> None:
        from IPython.display import display

        with self._lock:
            content = {"text/html": self._html(), "text/plain": self._text()}
        display(content, raw=True, display_id=self._id, update=update)

    def _html(self) -> str:
        notes = self._notes[-NOTES:] if self._outcome is None else []
        if self._board is None:
            return picture.starting(notes, self._error)
        seconds = self._outcome.seconds if self._outcome else time.monotonic() - self._began
        return picture.html(
            self._board, self._curves, seconds=seconds, notes=notes, outcome=self._outcome, error=self._error
        )

    def _text(self) -> str:
        return picture.text(self._board, self._outcome, self._error)

    def opened(self, study: StudyData, rows: list[Trial]) -> None:
        """Begin the picture with what was there before."""
        from sweepkit.report.evidence import courses

        board = view.Board(study, study.place)
        board.take(rows)
        board.running.clear()
        known: dict[int, list[tuple[float, float]]] = {
            number: [(event.epoch, event.values[0]) for event in course.evaluations if event.values]
            for number, course in courses(study.place.trials, rows).items()
        }
        with self._lock:
            self._board, self._curves = board, known

    def said(self, text: str) -> None:
        """Show a line below the picture until others follow."""
        with self._lock:
            self._notes.append(text)

    def event(self, event: Event) -> None:
        """Take in what a trial says."""
        with self._lock:
            if self._board is None:
                return
            self._board.event(event)
            if isinstance(event, Started) and not event.resumed:
                self._curves[event.trial] = []
            elif isinstance(event, Evaluated) and event.values:
                self._curves.setdefault(event.trial, []).append((event.epoch, event.values[0]))

    def ended(self, row: Trial) -> None:
        """Take in a finished trial."""
        with self._lock:
            if self._board is not None:
                self._board.end(row)

    def closed(self, outcome: Outcome) -> None:
        """Show how it ended."""
        with self._lock:
            self._outcome = outcome
