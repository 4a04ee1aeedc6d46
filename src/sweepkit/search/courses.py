"""Keeps the courses of a search's trials for its strategy; only what changed since the last look is read again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from sweepkit.search.history import History
from sweepkit.search.records import EVALUATION
from sweepkit.search.strategy import Course
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

    @property
    def evaluations(self) -> int | None:
        """Evaluations of a whole trial: by its arguments, else as many as complete ones made; None while unknown."""
        return self._whole or self._longest or None

    def read(self) -> Mapping[int, Course]:
        """Return the courses by number, as stored now, without failed trials that were retried; not to be modified."""
        trials = self._history.read()
        self._changes, changed = self._history.changed(self._changes)
        last = next(reversed(self._courses), -1)
        for number in changed:
            if trials[number].state == TrialState.WAITING:
                continue
            self._courses[number] = self._course(trials[number])
            if self._courses[number].ending is Ending.complete:
                self._longest = max(self._longest, self._courses[number].evaluation)
        if changed and changed[0] < last:  # one that waited may have started after later ones
            self._courses = dict(sorted(self._courses.items()))
        for number in self._history.replaced & self._courses.keys():
            del self._courses[number]
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
