"""Asynchronous successive halving with promotion (Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning").

Trials pause at rungs, which are evaluations min_resource · reduction_factor^k. A free slot resumes a paused trial that is among
the best 1/reduction_factor of its rung, the highest rung first; where there is none, a new trial starts.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

from sweepkit.search.strategy import Next, Ruling, Seen, Strategy
from sweepkit.study.samplers import first_rung
from sweepkit.trial.events import Evaluated


class Promotion(Strategy):
    """ASHA with the options of Optuna's pruner of that name; ``min_resource: auto`` is a tenth of a trial."""

    def __init__(self, options: Mapping[str, Any], *, least: int = 1) -> None:
        self._options = options
        self._least = least
        self._factor = int(options.get("reduction_factor", 4))
        self._bootstrap = int(options.get("bootstrap_count", 0))

    def report(self, event: Evaluated, seen: Seen) -> Ruling:
        """Return ``pause`` at a rung: whether the trial goes on is decided where all that could is compared."""
        rung = first_rung(self._options, seen.evaluations)
        while rung < event.number:
            rung *= self._factor
        if rung > event.number:
            return Ruling()
        return Ruling("pause", self._rank(seen, event.number, event.trial))

    def ask(self, seen: Seen) -> Next | None:
        """Return the best promotable trial of the highest rung, else a new one.

        Where no new one may start, the best paused trial of the highest rung goes on if only the time for a new one is missing,
        or if fewer than ``least`` trials, the baseline aside, run or were trained to their end.
        """
        seen = seen.in_time
        paused = seen.paused_at
        for rung, here in paused:  # highest first, in it best first
            if self._place(seen, rung, number := here[0][1]) < self._going(seen, rung):
                return Next(number, self._rank(seen, rung, number))
        if seen.may_start(self._least):
            return Next()
        if not paused or not (seen.room or seen.missing(self._least)):
            return None
        why = "no more trials start, and too few were trained to their end"
        return Next(paused[0][1][0][1], "the time left is too short for a new trial" if seen.room else why)

    def _going(self, seen: Seen, evaluation: int) -> int:
        """Return how many of the trials that reached a rung may go on: so many of the best, without those of no value."""
        ranked = seen.standing.reached(evaluation)
        most = len(ranked) // self._factor if len(ranked) > self._bootstrap else 0
        return min(most, bisect_left(ranked, (math.inf,)))

    def _place(self, seen: Seen, evaluation: int, number: int) -> int:
        """Return how many trials stand before this one at a rung."""
        worth = seen.key(seen.courses[number].values[evaluation])
        return bisect_left(seen.standing.reached(evaluation), (-worth, number))

    def _rank(self, seen: Seen, evaluation: int, number: int) -> str:
        of = len(seen.standing.reached(evaluation))
        place = f"{self._place(seen, evaluation, number) + 1} of {of} after evaluation {evaluation}"
        return f"{place}, of which {self._going(seen, evaluation)} may continue"
