"""The time that a study may still take, by ``budget.hours`` and ``budget.gpu_hours``."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import fmean

from sweepkit.driver.clock import Clock
from sweepkit.search.strategy import TimeLeft
from sweepkit.study import words
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
        self._whole: list[float] = []

    def end(self, seconds: float, ending: Ending) -> None:
        """Count a trial that ended or paused after so many seconds in all."""
        self._ended_seconds += seconds
        if ending is Ending.complete and seconds:
            self._whole.append(seconds)

    def reopen(self, seconds: float) -> None:
        """Take a trial that goes on out of those that ended or paused."""
        self._ended_seconds -= seconds

    def used_up(self) -> str:
        """Return in words which budget is used up; empty while none is."""
        hours, gpu_hours = self._budget.hours, self._budget.gpu_hours
        if hours is not None and self._by_hours(hours) <= 0:
            kept = self.kept_to_confirm(hours * 3600)
            rest = f"the last {words.span(kept)} of {hours:g} h are reserved for confirmation" if kept else ""
            return f"budget.hours: {rest or f'{hours:g} h used up'}"
        if gpu_hours is not None and self._by_gpu_hours(gpu_hours) <= 0:
            return f"budget.gpu_hours: {gpu_hours:g} GPU-hours used up"
        return ""

    def too_short(self) -> str:
        """Return in words that no new trial can be trained to its end any more."""
        hours, gpu_hours = self._budget.hours, self._budget.gpu_hours
        if gpu_hours is None or (hours is not None and self._by_hours(hours) <= self._by_gpu_hours(gpu_hours)):
            return f"budget.hours: the rest of {hours:g} h is too short for another trial"
        return f"budget.gpu_hours: the rest of {gpu_hours:g} GPU-hours is too short for another trial"

    def left(self) -> TimeLeft | None:
        """Return the time left to a slot; None without a budget of time."""
        by = [self._by_hours(self._budget.hours)] if self._budget.hours is not None else []
        by += [self._by_gpu_hours(self._budget.gpu_hours)] if self._budget.gpu_hours is not None else []
        seconds = min(by, default=math.inf)
        return None if seconds == math.inf else TimeLeft(seconds, seconds + self._budget.grace_minutes * 60)

    def kept_to_confirm(self, limit: float) -> float:
        """Return the seconds that the search leaves for its last trials and the confirmation, at most half of the limit."""
        confirm = self._study.confirm
        if confirm is None or not self._whole:
            return 0.0
        runs = confirm.seeds * (confirm.top + (self._study.baseline is not None))
        rounds, each = math.ceil(runs / self._slots), fmean(self._whole)
        return min(limit / 2, rounds * each + min(each, 60 * self._budget.grace_minutes))

    def _by_hours(self, hours: float) -> float:
        return hours * 3600 - self.kept_to_confirm(hours * 3600) - self._clock.seconds

    def _by_gpu_hours(self, gpu_hours: float) -> float:
        if not self._gpus:
            return math.inf
        return (gpu_hours * 3600 / self._gpus - self._ended_seconds - self._running()) / self._slots
