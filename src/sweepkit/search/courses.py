"""Keeps the courses of a search's trials for its strategy; only what changed since the last look is read again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from sweepkit.search.history import History
from sweepkit.search.records import EVALUATION
from sweepkit.search.standing import Course, Standing
from sweepkit.study.schedule import evaluations
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import Ending


class Courses:
    """The courses of one search; ``known`` has fixed values and consumers' defaults by name."""

    def __init__(self, study: StudyData, history: History, known: Mapping[str, Any]) -> None:
        self._objective = study.objective
        self._history = history
        self._whole = evaluations(known) if known else None
        self._longest = 0
        self._changes = 0
        self._courses: dict[int, Course] = {}
        self.standing = Standing(study.objective.key_of, self._courses)
        """Where the courses stand that were read last."""

    @property
    def evaluations(self) -> int | None:
        """Evaluations of a whole trial: by its arguments, else as many as complete ones made; None while unknown."""
        return self._whole or self._longest or None

    @property
    def training_seconds(self) -> float | None:
        """Seconds that a training is expected to take, from its start, as far as was read; None while that is unknown."""
        return self.standing.pace.whole(self.evaluations) if self.evaluations else None

    def read(self) -> Mapping[int, Course]:
        """Return the courses by number, as stored now, without failed trials that were retried; not to be modified."""
        trials = self._history.read()
        self._changes, changed = self._history.changes(self._changes)
        last = next(reversed(self._courses), -1)
        late = False  # whether one that waited started after later ones
        for number in changed:
            if trials[number].state == TrialState.WAITING:
                continue
            course, old = self._course(trials[number]), self._courses.get(number)
            late = late or (old is None and number < last)
            self._courses[number] = course
            self.standing.change(old, course)
            if course.ending is Ending.complete:
                self._longest = max(self._longest, course.evaluation)
        if late:
            ordered = sorted(self._courses.items())
            self._courses.clear()  # the same mapping, which their standing knows
            self._courses.update(ordered)
        for number in self._history.replaced & self._courses.keys():
            self.standing.change(self._courses.pop(number), None)
        return self._courses

    def _course(self, trial: FrozenTrial) -> Course:
        row, stored = self._history.row(trial.number), trial.user_attrs
        seconds = {number: stored.get(f"{EVALUATION}{number}", {}).get("seconds") for number in row.intermediate}
        return Course(
            number=row.number,
            ending=Ending.running if row.ending is Ending.stopped else row.ending,
            spared=row.number in self._history.baselines,
            params=row.params,
            drawn=row.drawn,
            values=self._objective.course(row.intermediate),
            seconds={number: each for number, each in seconds.items() if each is not None},
            start_seconds=stored.get("start_seconds"),
        )
