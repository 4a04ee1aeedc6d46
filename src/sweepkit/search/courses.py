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
        self._longest = 0
        self._seen = 0
        self._open: set[int] = set()
        self._read: dict[int, FrozenTrial] = {}
        self._courses: dict[int, Course] = {}

    @property
    def evaluations(self) -> int | None:
        """Evaluations of a whole trial: by its arguments, else as many as complete ones made; None while unknown."""
        return self._whole or self._longest or None

    def read(self) -> dict[int, Course]:
        """Return the courses by number, as stored now, without failed trials that were retried."""
        trials = self._history.read()
        self._open |= set(range(self._seen, len(trials))) - self._history.foreign.keys()
        self._seen = len(trials)
        for number in sorted(self._open):
            trial = trials[number]
            if trial.state == TrialState.WAITING or self._read.get(number) is trial:  # one that changes is replaced
                continue
            self._read[number], self._courses[number] = trial, self._course(trial)
            if trial.state.is_finished():
                self._open.discard(number)
                del self._read[number]
            if self._courses[number].ending is Ending.complete:
                self._longest = max(self._longest, self._courses[number].evaluation)
        replaced = self._history.replaced
        return {number: course for number, course in sorted(self._courses.items()) if number not in replaced}

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
