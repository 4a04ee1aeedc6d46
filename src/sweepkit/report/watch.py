"""What somebody in the same process sees of a study while it runs, how it is stopped, and how it ended.

Knows no one who looks.
"""

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
    """Why the study ended: its budget, its space, an interruption or a failure, in words."""
    seconds: float

    def __repr__(self) -> str:
        ended = sum(row.ending.counts for row in self.rows)
        best = f", best {self.best.value:.5g} (trial {self.best.number})" if self.best and self.best.values else ""
        return f"<{self.status}: {ended} trials{best}; {self.reason}>"


class Switch:
    """Stops a run from another thread: pressed once, running trials checkpoint first; twice, they end at once."""

    def __init__(self) -> None:
        self.pressed = 0
        self._interrupt: Callable[[], None] | None = None

    def press(self) -> None:
        """Ask the run to stop; a run that has not begun yet stops as it begins."""
        self.pressed += 1
        if self._interrupt is not None:
            self._interrupt()

    def connect(self, interrupt: Callable[[], None]) -> None:
        """Have ``interrupt`` called at every press, those before now included."""
        self._interrupt = interrupt
        for _ in range(self.pressed):
            interrupt()


class Watcher(Protocol):
    """Somebody in the same process who is told what happens."""

    def opened(self, study: StudyData, rows: list[Trial]) -> None:
        """The study is open; ``rows`` are its earlier trials."""

    def said(self, text: str) -> None:
        """A line about the study as a whole."""

    def event(self, event: Event) -> None:
        """An event of a trial."""

    def ended(self, row: Trial) -> None:
        """A trial ended for good."""

    def closed(self, outcome: Outcome) -> None:
        """The study's run is over."""


class Quiet:
    """A watcher that looks away."""

    def opened(self, study: StudyData, rows: list[Trial]) -> None:
        """Do nothing."""

    def said(self, text: str) -> None:
        """Do nothing."""

    def event(self, event: Event) -> None:
        """Do nothing."""

    def ended(self, row: Trial) -> None:
        """Do nothing."""

    def closed(self, outcome: Outcome) -> None:
        """Do nothing."""
