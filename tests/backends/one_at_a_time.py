"""A backend in one file: one trial at a time on the study's executor, whatever the machine has room for."""

from __future__ import annotations

from sweepkit.backends import Session
from sweepkit.backends.local.executor import Executor
from sweepkit.backends.slots import Need, Slot
from sweepkit.study.study import StudyData


class OneAtATime:
    """Starts the next trial when the last one has ended."""

    slots = 1
    gpus = 0.0
    description = "one at a time"

    def __init__(self, study: StudyData, executor: Executor, need: Need | None = None) -> None:
        self._executor = executor
        executor.free.append(Slot())

    def drive(self, session: Session) -> None:
        """Run trials until there is nothing left to start."""
        while (spec := session.next()) is not None:
            self._executor.start(spec)
            while self._executor.running:
                for event in self._executor.poll(session.tick()):
                    if answer := session.handle(event):
                        self._executor.answer(event.trial, answer)
