"""The time that a study may still take, by ``budget.hours`` and ``budget.gpu_hours``."""

from __future__ import annotations

import math
from collections.abc import Callable

from sweepkit.driver.clock import Clock
from sweepkit.search.strategy import TimeLeft
from sweepkit.study import words
from sweepkit.study.locks import lock_owners
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import Ending


class Limits:
    """What is left of a study's budgets of time; a study that confirms leaves it some.

    ``running`` returns the seconds of the trials that neither ended nor paused; ``gpus`` are those of one trial.
    """

    def __init__(
        self, study: StudyData, clock: Clock, running: Callable[[], float], *, slots: int = 0, gpus: float = 0.0
    ) -> None:
        self._study, self._budget = study, study.budget
        self._clock, self._running = clock, running
        self._slots, self._gpus = max(1, slots), gpus
        self._ended_seconds = 0.0
        self._complete, self._complete_seconds = 0, 0.0

    def end(self, seconds: float, ending: Ending) -> None:
        """Count a trial that ended or paused after so many seconds in all."""
        self._ended_seconds += seconds
        if ending is Ending.complete and seconds:
            self._complete += 1
            self._complete_seconds += seconds

    def reopen(self, seconds: float) -> None:
        """Take a trial that goes on out of those that ended or paused."""
        self._ended_seconds -= seconds

    def used_up(self, expected: float | None = None) -> str:
        """Return in words which budget is used up; empty while none is."""
        hours, gpu_hours = self._budget.hours, self._budget.gpu_hours
        if hours is not None and self._by_hours(expected) <= 0:
            kept = self.kept_to_confirm(hours * 3600, expected)
            rest = f"the last {words.span(kept)} of {hours:g} h are reserved for confirmation" if kept else ""
            return f"budget.hours: {rest or f'{hours:g} h used up'}"
        if gpu_hours is not None and self._by_gpu_hours() <= 0:
            return f"budget.gpu_hours: {gpu_hours:g} GPU-hours used up"
        return ""

    def too_short(self) -> str:
        """Return in words that no new trial can be trained to its end any more."""
        if self._by_gpu_hours() / self._slots < self._by_hours(None):
            return f"budget.gpu_hours: the rest of {self._budget.gpu_hours:g} GPU-hours is too short for another trial"
        return f"budget.hours: the rest of {self._budget.hours:g} h is too short for another trial"

    def left(self, expected: float | None = None) -> TimeLeft | None:
        """Return the time left; None without a budget of time."""
        start, together = self._by_hours(expected), self._by_gpu_hours()
        if start == together == math.inf:
            return None
        drivers = len(lock_owners(self._study.place)) if self._study.several_drivers else 1
        return TimeLeft(start / max(1, drivers), self._budget.grace_minutes * 60, together)

    def kept_to_confirm(self, limit: float, expected: float | None = None) -> float:
        """Return the seconds that the search leaves for its last trials and the confirmation, at most half of the limit.

        ``expected`` are those of a training, while none has ended.
        """
        confirm = self._study.confirm
        each = self._complete_seconds / self._complete if self._complete else expected
        if confirm is None or each is None:
            return 0.0
        runs = confirm.seeds * (confirm.top + (self._study.baseline is not None))
        rounds = math.ceil(runs / self._slots)
        return min(limit / 2, rounds * each + min(each, 60 * self._budget.grace_minutes))

    def _by_hours(self, expected: float | None) -> float:
        """Return the seconds until nothing may start any more, of all drivers together."""
        if self._budget.hours is None:
            return math.inf
        limit = self._budget.hours * 3600
        return limit - self.kept_to_confirm(limit, expected) - self._clock.seconds

    def _by_gpu_hours(self) -> float:
        """Return the seconds of training that are left, of all trials together."""
        if self._budget.gpu_hours is None or not self._gpus:
            return math.inf
        return self._budget.gpu_hours * 3600 / self._gpus - self._ended_seconds - self._running()
