"""What somebody in the same process sees of a study while it runs, and how the run ended. Knows no one who looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from sweepkit.events import Event
from sweepkit.study import Study
from sweepkit.trial import Trial

Status = Literal["done", "failed", "interrupted"]


@dataclass(frozen=True)
class Outcome:
    """How a call of ``run`` ended."""

    status: Status
    rows: list[Trial]
    best: Trial | None
    baseline: Trial | None
    reason: str
    """Why the study ended: its budget, its space, an interruption or a failure, in words."""
    seconds: float


class Watcher(Protocol):
    """Somebody in the same process who is told what happens."""

    def opened(self, study: Study, rows: list[Trial]) -> None:
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

    def opened(self, study: Study, rows: list[Trial]) -> None:
        """Do nothing."""

    def said(self, text: str) -> None:
        """Do nothing."""

    def event(self, event: Event) -> None:
        """Do nothing."""

    def ended(self, row: Trial) -> None:
        """Do nothing."""

    def closed(self, outcome: Outcome) -> None:
        """Do nothing."""
