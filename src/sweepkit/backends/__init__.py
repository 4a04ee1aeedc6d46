"""The one interface behind which trials run somewhere; knows neither Optuna nor MLflow.

A backend is driven by a :class:`Session`, which knows what to try next and what to do with what a trial says. It asks
for specs when a slot is free, passes every event on, and carries the answers back. Where the trial runs is its only business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sweepkit.trial.events import Event
from sweepkit.trial.trial import TrialSpec


class Session(Protocol):
    """What a backend may ask of whoever drives the study."""

    @property
    def stopping(self) -> bool:
        """Whether running trials are to checkpoint and stop."""

    @property
    def killing(self) -> bool:
        """Whether running trials are to end at once."""

    def next(self) -> TrialSpec | None:
        """Return the next trial to start, or None when there is nothing to start now (later there may be: a retry)."""

    def hear(self, event: Event) -> str | None:
        """Take an event; return the answer (``continue``, ``prune``, ``stop``) where the trial waits for one."""

    def tick(self) -> float:
        """Look at budgets; return after how many seconds to look again at the latest."""


class Backend(Protocol):
    """Where trials run."""

    def drive(self, session: Session) -> None:
        """Run trials until there is nothing left to start and nothing running."""


@dataclass(frozen=True)
class Member:
    """One of the trials that train side by side, where they meet."""

    score: float
    """How far it got; higher is better."""
    hyperparameters: Mapping[str, Any]
    """What it trained with so far, of what is searched."""


@dataclass(frozen=True)
class Choice:
    """What a member goes on with."""

    hyperparameters: Mapping[str, Any]
    donor: int | None = None
    """The member whose weights it takes over; None: it keeps its own."""


class Scheduler(Protocol):
    """Decides, where a population meets, who takes over whose weights and what is trained with next."""

    def decide(self, evaluation: int, members: Mapping[int, Member]) -> Mapping[int, Choice]:
        """Return every member's choice. Called for each meeting in order; the same meetings give the same choices."""
