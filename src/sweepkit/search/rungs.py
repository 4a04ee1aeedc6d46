"""Optuna's asha, hyperband, median and percentile pruners, from values kept per rung: deciding costs the same in a long study.

Optuna's classes go through all trials at each evaluation. These give the same answers (a test compares them on random
histories) and leave the same attributes on trials, so that a study goes on under either.
"""

from __future__ import annotations

import math
from array import array
from binascii import crc32
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Iterator, Mapping
from inspect import signature
from itertools import count
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from sweepkit.search.history import History
from sweepkit.search.records import Records
from sweepkit.search.strategy import Ruling, Seen, Strategy
from sweepkit.study.objective import Objective
from sweepkit.study.samplers import PROMOTE, Pruner, resolve_auto
from sweepkit.trial.events import Evaluated

RUNG = "completed_rung_"
"""Prefix of the system attribute in which Optuna's asha keeps a trial's value at a rung; its number follows."""


class _Kept(Strategy):
    """What both have in common: the options with their defaults, and the trials that changed since the last evaluation."""

    def __init__(self, kind: Pruner, options: Mapping[str, Any], records: Records, history: History, goal: Objective):
        self._kind, self._given, self._signature = kind, options, signature(kind.cls())
        self._records, self._history, self._objective = records, history, goal
        self._maximize = goal.goals[goal.deciding].direction == "maximize"
        self._changes = 0
        self._complete = 0
        """Trials that count as complete."""
        self._longest = 0
        """The last evaluation of any of them."""

    def _options(self, evaluations: int | None) -> Mapping[str, Any]:
        given = {name: value for name, value in self._given.items() if name != PROMOTE}
        bound = self._signature.bind(**resolve_auto(self._kind, given, evaluations))
        bound.apply_defaults()
        return bound.arguments

    def _changed(self) -> Iterator[FrozenTrial]:
        """Yield the trials that changed since the last call, and count those that are complete."""
        trials = self._history.read()
        self._changes, changed = self._history.changes(self._changes)
        for trial in map(trials.__getitem__, changed):
            if trial.state == TrialState.COMPLETE:
                self._complete += 1
                self._longest = max([self._longest, *trial.intermediate_values])
            yield trial


class Halving(_Kept):
    """asha and hyperband, which is asha with a first rung that depends on the trial's bracket."""

    def __init__(self, kind: Pruner, options: Mapping[str, Any], records: Records, history: History, goal: Objective):
        super().__init__(kind, options, records, history, goal)
        self._shares: tuple[int, ...] = (1,)
        self._rungs: dict[tuple[int, int], list[float]] = defaultdict(list)
        """Bracket and rung → the values of the trials that reached it, in order."""
        self._reached: dict[int, int] = {}
        """Trial → rungs that are in there."""

    def report(self, event: Evaluated, seen: Seen) -> Ruling:
        """Return ``prune`` at a rung where the trial is not among the best, with its values there to be attached."""
        options, own = self._options(seen.evaluations), self._records.get(event.trial)
        self._update()
        least, factor = options["min_resource"], options["reduction_factor"]
        rate = options.get("min_early_stopping_rate", 0)
        if least == "auto":
            least = max(1, self._longest // 100) if self._longest else None
        if "max_resource" in options:
            shares = _brackets(least, self._most(options["max_resource"]), factor)
            if shares != self._shares:  # trials change brackets
                self._shares, self._changes, self._complete = shares, 0, 0
                self._rungs.clear()
                self._reached.clear()
                self._update()
            least = least if shares else None
            rate = self._bracket(event.trial) if shares else 0
        if least is None or not own.intermediate_values:
            return Ruling()
        step = max(own.intermediate_values)
        value = self._objective.course(own.intermediate_values)[step]
        written: dict[str, float] = {}
        for rung in count(_rungs_of(own)):
            if step < least * factor ** (rate + rung):
                return Ruling(written=written)
            if math.isnan(value):
                return Ruling("prune", written=written)
            written[f"{RUNG}{rung}"] = value
            others = self._rungs[self._bracket(event.trial), rung]
            better = len(others) - bisect_right(others, value) if self._maximize else bisect_left(others, value)
            few = len(others) + 1 <= options["bootstrap_count"]
            if few or better > max(0, (len(others) + 1) // factor - 1):
                return Ruling("prune", written=written)
        raise AssertionError("a rung lies ahead of every evaluation")

    def _update(self) -> None:
        for trial in self._changed():
            for rung in range(self._reached.get(trial.number, 0), reached := _rungs_of(trial)):
                insort(self._rungs[self._bracket(trial.number), rung], trial.system_attrs[f"{RUNG}{rung}"])
            if reached:
                self._reached[trial.number] = reached

    def _most(self, given: int | str) -> int:
        """Return hyperband's ``max_resource``; 0 while it is unknown."""
        return (self._longest + 1 if self._longest else 0) if isinstance(given, str) else given

    def _bracket(self, number: int) -> int:
        """Return a trial's bracket, which follows from its number."""
        place = crc32(f"{self._records.name}_{number}".encode()) % (sum(self._shares) or 1)
        for bracket, share in enumerate(self._shares):
            place -= share
            if place < 0:
                return bracket
        return 0


class Percentile(_Kept):
    """median and percentile: a trial whose best value is worse than the percentile of the complete ones is stopped."""

    def __init__(self, kind: Pruner, options: Mapping[str, Any], records: Records, history: History, goal: Objective):
        super().__init__(kind, options, records, history, goal)
        self._values: dict[int, array[float]] = defaultdict(lambda: array("d"))
        """Evaluation → the values there of the complete trials."""

    def report(self, event: Evaluated, seen: Seen) -> Ruling:
        """Return ``prune`` where the trial's best value is below the percentile."""
        for trial in self._changed():
            if trial.state == TrialState.COMPLETE:
                for number, value in self._objective.course(trial.intermediate_values).items():
                    self._values[number].append(value)
        options, own = self._options(None), self._records.get(event.trial).intermediate_values
        if self._complete < max(1, options["n_startup_trials"]) or not own:
            return Ruling()
        step, warm_up, interval = max(own), options["n_warmup_steps"], options["interval_steps"]
        before = max((number for number in own if number != step), default=-1)
        if step < warm_up or before >= (step - warm_up) // interval * interval + warm_up:
            return Ruling()
        known = [value for value in self._objective.course(own).values() if not math.isnan(value)]
        if not known:
            return Ruling("prune")
        others = np.array(self._values[step])
        if len(others) < options["n_min_trials"] or np.isnan(others).all():
            return Ruling()
        percentile = options.get("percentile", 50.0)
        with np.errstate(invalid="ignore"):  # between two infinite values
            limit = float(np.nanpercentile(others, 100 - percentile if self._maximize else percentile))
        worse = max(known) < limit if self._maximize else min(known) > limit
        return Ruling("prune" if worse else "continue")


STRATEGIES: Mapping[str, type[_Kept]] = {
    "optuna.pruners:MedianPruner": Percentile,
    "optuna.pruners:PercentilePruner": Percentile,
    "optuna.pruners:SuccessiveHalvingPruner": Halving,
    "optuna.pruners:HyperbandPruner": Halving,
}
"""Source of a pruner in the table → the strategy that decides as it does."""


def _rungs_of(trial: FrozenTrial) -> int:
    return next(rung for rung in count() if f"{RUNG}{rung}" not in trial.system_attrs)


def _brackets(least: int, most: int, factor: int) -> tuple[int, ...]:
    """Return how many of so many trials each of hyperband's brackets gets; none while the longest trial is unknown."""
    if not most:
        return ()
    last = math.floor(math.log(most / least, factor))
    return tuple(math.ceil((last + 1) * factor ** (last - each) / (last - each + 1)) for each in range(last + 1))
