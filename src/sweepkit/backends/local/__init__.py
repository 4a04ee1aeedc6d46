"""Trials on this machine: fills free slots, passes events on, carries answers back. Knows no rule of the search."""

from __future__ import annotations

from sweepkit.backends import Session
from sweepkit.backends.local.executor import Executor
from sweepkit.trial.trial import Reason


class OptunaBackend:
    """Runs a session's trials on one Executor."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def drive(self, session: Session) -> None:
        """Run trials until there is nothing left to start and nothing running."""
        executor = self._executor
        told: set[int] = set()
        while True:
            while executor.free and (spec := session.next()) is not None:
                executor.start(spec)
            if not executor.running:
                return
            for event in executor.poll(session.tick()):
                answer = session.hear(event)
                if answer:
                    executor.answer(event.trial, answer)
            if session.killing:
                for number in executor.running:
                    executor.kill(number, Reason.interrupted, "stopped")
            elif session.stopping:
                for number in set(executor.running) - told:
                    executor.answer(number, "stop")
                    told.add(number)
