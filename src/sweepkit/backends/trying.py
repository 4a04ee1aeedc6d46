"""Trains one configuration, or one schedule, in this process and records nothing, so that a debugger works."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from sweepkit.study.study import StudyData
from sweepkit.trial.events import Checkpointed, Evaluated, Event, Finished
from sweepkit.trial.objective import run_trial
from sweepkit.trial.trial import Ending, TrialSpec, Turn


def try_one(study: StudyData, params: Mapping[str, Any], turns: Sequence[Turn] = ()) -> Finished:
    """Train hyperparameters, given by name; those left out take their consumer's default.

    With ``turns`` one run follows the schedule: at each turn's evaluation it goes on from its own checkpoint with the
    turn's values, as the members of a population did, whose weights it ends with.
    """
    folder = study.place.folder / "try"
    shutil.rmtree(folder, ignore_errors=True)
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


class _PrintedLine:
    """A trial's line that prints what it says and answers: go on, or, at evaluation ``until``, stop."""

    def __init__(self) -> None:
        self.until: int | None = None
        self.checkpoint: str | None = None
        self.evaluations: list[Mapping[str, Any]] = []

    def say(self, event: Event) -> None:
        """Print the event; keep what is needed to go on from."""
        sys.stdout.write(event.to_json() + "\n")
        if isinstance(event, Checkpointed) and event.role == "last":
            self.checkpoint = event.path

    def ask(self, event: Evaluated) -> str:
        """Print the evaluation and answer it."""
        self.say(event)
        self.evaluations.append({"number": event.number, "step": event.step, "values": list(event.values)})
        return "stop" if event.number == self.until else "continue"

    def heard(self) -> str | None:
        """Return nothing: nobody else talks to it."""
        return None
