"""Applies the rules of which checkpoints stay: to those of trials that end, and where a running trial needs room."""

from __future__ import annotations

import os

from sweepkit.backends.checkpoints import Checkpoints
from sweepkit.report.answer import Answer
from sweepkit.report.watch import Watcher
from sweepkit.search.search import Search
from sweepkit.study.paths import BEST
from sweepkit.study.study import StudyData
from sweepkit.trackers.courier import Courier
from sweepkit.trial.trial import Ending, Trial


class Retention:
    """The rules of one study; the tracker keeps or drops what the folders do."""

    def __init__(
        self, study: StudyData, search: Search, checkpoints: Checkpoints, *, courier: Courier, watch: Watcher
    ) -> None:
        self._study = study
        self._search = search
        self._checkpoints = checkpoints
        self._courier = courier
        self._watch = watch
        self._answer = Answer(study, ())
        self._known: set[int] = set()
        """The trials in the answer."""

    def answer(self) -> Answer:
        """Return the answer at this moment; other drivers' trials count, too."""
        new = [row for row in self._search.trials() if row.ending.ranks and row.number not in self._known]
        if new:
            self._answer = self._answer.joined_by(new)
            self._known.update(row.number for row in new)
        return self._answer

    def before_writing(self, number: int) -> bool:
        """Make room for what a trial writes at an evaluation; return whether its resumable checkpoint has room."""
        going, resumable = self._checkpoints.before_writing(number, *self._ranked())
        self._drop(going)
        return resumable

    def end(self, row: Trial) -> None:
        """Drop what is over the limits after a trial ended, and let the tracker keep the rest."""
        if row.ending is Ending.paused:
            self._checkpoints.pause(row.number)
            return
        self._checkpoints.end(row.number, keeps_best=row.ending.ranks)
        self._drop(self._checkpoints.surplus(*self._ranked()))
        if row.ending.ranks and os.path.lexists(self._search.place.trial(row.number) / BEST):
            self._courier.keep(row.number)

    def choose_to_end(self, number: int, *, pauses: bool) -> tuple[int, str] | None:
        """Return the paused trial for whose checkpoint there is no room once trial ``number`` has written, and why.

        The least promising one; where ``number`` pauses, too, it may be that one.
        """
        if not (self._study.checkpoints.paused_gb or self._study.budget.disk_gb):
            return None
        paused = self._search.paused_trials(also=number if pauses else None)
        limit = self._checkpoints.find_limit(number, paused) if paused else ""
        return (paused[-1], f"{limit} leaves no room for its checkpoint") if limit else None

    def _ranked(self) -> tuple[list[int], int]:
        """Return the ranked trials, best first, and how many of them keep their checkpoint."""
        answer = self.answer()
        keep = answer.keep(self._study.checkpoints.keep) if self._search.proposes else 0
        return [row.number for row in answer.ranked], keep

    def _drop(self, numbers: list[int]) -> None:
        limit = self._study.budget.disk_gb
        if self._answer.several and self._search.proposes:
            for number in sorted({row.number for row in self._answer.front} & set(numbers)):
                note = f"dropped the checkpoint of Pareto-optimal trial {number}: budget.disk_gb is {limit:g}"
                self._watch.on_note(note)
        for number in numbers:
            self._checkpoints.end(number, keeps_best=False)
            self._courier.drop(number, soon=limit is not None)
