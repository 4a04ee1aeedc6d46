"""Trials in this very process, one after another: for a debugger, and for what cannot be sent to another process.

Nothing isolates such a trial: a crash of it is the driver's, and what it leaves in memory stays. Knows no rule of the search.
"""

from __future__ import annotations

import gc

from sweepkit.backends import Session
from sweepkit.study.study import StudyData
from sweepkit.tasks.task import Task
from sweepkit.trial.events import Evaluated, Event
from sweepkit.trial.objective import run_trial


class HereBackend:
    """Runs a session's trials in this process; ``kind`` is the task's class."""

    def __init__(self, study: StudyData, kind: type[Task]) -> None:
        self._study = study
        self._kind = kind

    def drive(self, session: Session) -> None:
        """Run trials until there is nothing left to start."""
        while (spec := session.next()) is not None:
            session.hear(run_trial(self._study, spec, _Direct(session), kind=self._kind))
            gc.collect()


class _Direct:
    """A trial's line that is a function call."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def say(self, event: Event) -> None:
        """Hand over an event."""
        self._session.hear(event)

    def ask(self, event: Evaluated) -> str:
        """Hand over an evaluation and return the answer."""
        self._session.tick()
        return self._session.hear(event) or "continue"

    def heard(self) -> str | None:
        """Return ``stop`` once somebody asked for it."""
        return "stop" if self._session.stopping else None
