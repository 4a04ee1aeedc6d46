"""Trials on this machine, one process each, in the slots that its GPUs and cores have room for."""

from __future__ import annotations

from sweepkit.backends import Session
from sweepkit.backends.local.executor import Executor
from sweepkit.backends.slots import Machine, Need, describe, explain, gpus_of, plan, shares_gpus
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import Reason


class LocalBackend:
    """Runs a session's trials on an executor; one without slots gets those that this machine has room for."""

    def __init__(self, study: StudyData, executor: Executor, need: Need | None = None) -> None:
        self._executor = executor
        need, why = need or Need(), ""
        if not executor.free:
            machine = Machine.here()
            executor.free.extend(plan(study.resources, machine, need))
            why = explain(study.resources, machine, need)
            if shares_gpus(study.resources, machine):
                executor.room = {gpu: known.free_mb for gpu, known in machine.known.items()}
        self.slots = len(executor.free)
        self.gpus = gpus_of(executor.free)
        self.description = describe(executor.free) + (f" ({why})" if why else "")

    def drive(self, session: Session) -> None:
        """Run trials until there is nothing left to start and nothing running."""
        executor = self._executor
        notified: set[int] = set()
        while True:
            while executor.free and (spec := session.next()) is not None:
                executor.start(spec)
            if not executor.running:
                return
            for event in executor.poll(session.tick()):
                if answer := session.handle(event):
                    executor.answer(event.trial, answer)
            if session.killing:
                for number in executor.running:
                    executor.kill(number, Reason.interrupted, "stopped")
            elif session.stopping:
                for number in set(executor.running) - notified:
                    executor.answer(number, "stop")
                    notified.add(number)
