"""A run as seen by its caller: the watcher's hooks, the switch that stops it, and its outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from sweepkit.study.study import StudyData
from sweepkit.trial.events import Event
from sweepkit.trial.trial import Trial

Status = Literal["done", "failed", "interrupted"]


@dataclass(frozen=True, repr=False)
class Outcome:
    """How a call of ``run`` ended."""

    status: Status
    rows: list[Trial]
    best: Trial | None
    baseline: Trial | None
    reason: str
    """Why the run ended, in words: the budget, the space, an interruption or a failure."""
    seconds: float

    def __repr__(self) -> str:
        ended = sum(row.ending.counts for row in self.rows)
        best = f", best {self.best.value:.5g} (trial {self.best.number})" if self.best and self.best.values else ""
        return f"<{self.status}: {ended} trials{best}; {self.reason}>"


class Switch:
    """Stops a run from another thread: pressed once, running trials checkpoint first; pressed twice, they end at once."""

    def __init__(self) -> None:
        self.pressed = 0
        self._interrupt: Callable[[], None] | None = None

    def press(self) -> None:
        """Ask the run to stop; a run that has not started yet stops as it starts."""
        self.pressed += 1
        if self._interrupt is not None:
            self._interrupt()

    def connect(self, interrupt: Callable[[], None]) -> None:
        """Call ``interrupt`` at every press, and now for every earlier one."""
        self._interrupt = interrupt
        for _ in range(self.pressed):
            interrupt()


class Watcher(Protocol):
    """Follows a run in the driver's process; the driver calls its hooks."""

    def on_open(self, study: StudyData, rows: list[Trial]) -> None:
        """The study is open; ``rows`` are the trials of earlier runs."""

    def on_note(self, text: str) -> None:
        """A sentence about the study as a whole."""

    def on_event(self, event: Event) -> None:
        """An event of a trial."""

    def on_trial_end(self, row: Trial) -> None:
        """A trial ended and will not be retried."""

    def on_close(self, outcome: Outcome) -> None:
        """The run is over."""


class Quiet:
    """Ignores everything; the base of watchers that need a few hooks only."""

    def on_open(self, study: StudyData, rows: list[Trial]) -> None:
        """Do nothing."""

    def on_note(self, text: str) -> None:
        """Do nothing."""

    def on_event(self, event: Event) -> None:
        """Do nothing."""

    def on_trial_end(self, row: Trial) -> None:
        """Do nothing."""

    def on_close(self, outcome: Outcome) -> None:
        """Do nothing."""
