"""Where trials run: the protocol of a backend, and the factory that reads the table of ``sweepkit.study.backends``.

A backend is driven by a :class:`Session`: it asks the session for a spec when a slot is free, passes every event to it and
carries the answer back to the trial.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, cast

from sweepkit.backends.slots import Need
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Event
from sweepkit.trial.trial import TrialSpec, Turn

if TYPE_CHECKING:
    from sweepkit.backends.local.executor import Executor


class Session(Protocol):
    """The study as a backend sees it."""

    @property
    def stopping(self) -> bool:
        """Whether running trials are to checkpoint and stop."""

    @property
    def killing(self) -> bool:
        """Whether running trials are to end at once."""

    def next(self) -> TrialSpec | None:
        """Return the next trial to start, or None if there is none now; a retry may follow later."""

    def handle(self, event: Event) -> str | None:
        """Process an event; return the answer (``continue``, ``prune``, ``stop``) if the trial waits for one."""

    def tick(self) -> float:
        """Check the budgets; return the seconds until the next check is due."""


class Backend(Protocol):
    """Where trials run. The class is called with the study, its executor (if any) and ``need``."""

    slots: int
    """Trials at a time; 0 where slots come and go (a cluster)."""
    gpus: float
    """GPUs of one trial; a share where trials share one."""
    description: str
    """The slots in words, for the user; may be empty."""

    def drive(self, session: Session) -> None:
        """Run trials until there is nothing left to start and nothing running."""


class Scheduler(Protocol):
    """Decides at each meeting of a population who copies whose weights, and the next hyperparameters."""

    def decide(self, members: Mapping[int, Turn]) -> Mapping[int, Turn]:
        """Return how each member continues after a meeting.

        ``members`` are turns, all at the same evaluation, with the hyperparameters trained with so far and no donor. Called
        for the meetings in order; deterministic.
        """


def backend_of(study: StudyData, executor: Executor | None, need: Need) -> Backend:
    """Return the backend that ``backend.type`` names.

    ``executor`` is the study's own, without slots, for backends on this machine; ``need`` is what a trial was seen to take.
    Raises MissingExtra, and InputError for what can never fit.
    """
    return cast("Backend", study.backend.kind.cls()(study, executor, need))


def scheduler_of(study: StudyData) -> Scheduler | None:
    """Return what decides for the study's population; None for a study without one."""
    return cast("Scheduler", study.pruner.kind.scheduler_cls()(study)) if study.pruner.population else None
