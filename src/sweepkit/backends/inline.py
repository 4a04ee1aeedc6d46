"""Trials in this process, one after another: for a debugger, and for tasks that cannot be sent to another process.

Nothing isolates such a trial: a crash ends the driver too, and what it leaves in memory stays.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from sweepkit.backends import Session
from sweepkit.study.files import remove
from sweepkit.study.gpus import gpus_here
from sweepkit.study.study import StudyData
from sweepkit.tasks.task import Task
from sweepkit.trial.events import Checkpointed, Evaluated, Event, Finished
from sweepkit.trial.objective import run_trial
from sweepkit.trial.trial import Ending, TrialSpec, Turn


class InlineBackend:
    """Runs a session's trials in this process; ``kind`` is the task's class."""

    slots = 1
    description = ""

    def __init__(self, study: StudyData, kind: type[Task]) -> None:
        self._study = study
        self._kind = kind
        self.gpus = study.resources.gpus(found=bool(gpus_here()))

    def drive(self, session: Session) -> None:
        """Run trials until there is nothing left to start."""
        while (spec := session.next()) is not None:
            session.handle(run_trial(self._study, spec, _SessionLine(session), kind=self._kind))
            gc.collect()


def try_one(study: StudyData, params: Mapping[str, Any], turns: Sequence[Turn] = ()) -> Finished:
    """Train one configuration and record nothing; hyperparameters left out take their consumer's default.

    With ``turns`` the trial follows that schedule, as the members of a population do: at each turn's evaluation it
    continues from its own checkpoint with the turn's values. Events are printed as JSON lines; files go to ``try/`` in the
    study's folder.
    """
    folder = study.place.folder / "try"
    remove(folder)
    folder.mkdir(parents=True)
    line, values = _PrintedLine(), dict(params)
    for turn in [*turns, None]:
        line.until = turn.evaluation if turn else None
        spec = TrialSpec(
            number=0,
            hyperparameters=values,
            directory=str(folder),
            resume_from=line.checkpoint,
            evaluations=tuple(line.evaluations),
        )
        finished = run_trial(study, spec, line)
        if turn is None or finished.ending != Ending.stopped:
            break
        values = {**values, **turn.hyperparameters}
    return finished


class _SessionLine:
    """A trial's line to a session in the same process: plain calls."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def send(self, event: Event) -> None:
        self._session.handle(event)

    def ask(self, event: Evaluated) -> str:
        self._session.tick()
        return self._session.handle(event) or "continue"

    def poll(self) -> str | None:
        return "stop" if self._session.stopping else None


class _PrintedLine:
    """A trial's line that prints events; the answer is ``continue``, or ``stop`` at evaluation ``until``."""

    def __init__(self) -> None:
        self.until: int | None = None
        self.checkpoint: str | None = None
        self.evaluations: list[Mapping[str, Any]] = []

    def send(self, event: Event) -> None:
        sys.stdout.write(event.to_json() + "\n")
        if isinstance(event, Checkpointed) and event.role == "last":
            self.checkpoint = event.path

    def ask(self, event: Evaluated) -> str:
        self.send(event)
        self.evaluations.append({"number": event.number, "step": event.step, "values": list(event.values)})
        return "stop" if event.number == self.until else "continue"

    def poll(self) -> str | None:
        return None
