"""Keeps the courses of a search's trials for its strategy; only what changed since the last look is read again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from sweepkit.search.history import History
from sweepkit.search.records import EVALUATION, row_of
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
        self._read: dict[int, tuple[FrozenTrial, Course]] = {}

    def read(self) -> dict[int, Course]:
        """Return the courses by number, as stored now."""
        found = {}
        for trial in self._history.read():
            if trial.state == TrialState.WAITING or trial.number in self._history.foreign:
                continue
            known = self._read.get(trial.number)
            if known is None or known[0] is not trial:  # a storage replaces a trial that changes
                known = self._read[trial.number] = trial, self._course(trial)
            found[trial.number] = known[1]
        return found

    def whole(self, courses: Mapping[int, Course]) -> int | None:
        """Return the evaluations of a whole trial: by its arguments, else as many as complete ones made; None while unknown."""
        complete = (course.evaluation for course in courses.values() if course.ending is Ending.complete)
        return self._whole or max(complete, default=None)

    def _course(self, trial: FrozenTrial) -> Course:
        row, stored = row_of(trial), trial.user_attrs
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
