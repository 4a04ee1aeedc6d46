"""The history of a search: every trial so far, updated incrementally, so that a trial is read again only where it changed."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from sweepkit.search.records import EVALUATION, FIXED, Records, is_ours, row_of
from sweepkit.study.configurations import key_of
from sweepkit.study.objective import COSTS, Goal, Objective
from sweepkit.trial.events import Evaluated
from sweepkit.trial.trial import Ending, Trial


class Evaluations:
    """The evaluations of one trial; ``stored`` are its user attributes."""

    def __init__(self, stored: Mapping[str, Any]) -> None:
        self._by_number: dict[int, tuple[tuple[float, ...], Mapping[str, float]]] = {
            int(key.removeprefix(EVALUATION)): (tuple(value["values"]), value["metrics"])
            for key, value in stored.items()
            if key.startswith(EVALUATION)
        }

    def add(self, event: Evaluated) -> None:
        """Add an evaluation and drop those after it, which an attempt that is being repeated had reached."""
        self._by_number = {n: known for n, known in self._by_number.items() if n < event.number}
        self._by_number[event.number] = (tuple(event.values), dict(event.metrics))

    def values(self, up_to: float = math.inf) -> list[tuple[float, ...]]:
        """Return the goals' values, oldest first, up to and including evaluation ``up_to``."""
        return [values for number, (values, _) in sorted(self._by_number.items()) if number <= up_to]

    def metrics(self, objective: Objective) -> Mapping[str, float] | None:
        """Return all metrics of the evaluation that decides the trial's value, costs of the last one; None before the first."""
        found = [metrics for _, (_, metrics) in sorted(self._by_number.items())]
        if not found:
            return None
        costs = {goal.metric for goal in objective.goals}.intersection(COSTS)
        return {**found[objective.decisive(self.values())], **{name: found[-1][name] for name in costs}}


class History:
    """The trials in ``records``, and what the search needs to know about all of them at once."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self._lock = threading.Lock()  # the driver's thread and the courier's both read
        self._position = self._seen = 0  # changes and trials that were read
        self._open: set[int] = set()
        self._changes: list[int] = []
        self._counted: set[int] = set()
        self._worst: list[tuple[float, float]] = []
        self._rows: dict[int, Trial] = {}
        self.tried: set[str] = set()
        """Keys of all configurations, waiting ones included."""
        self.waiting: set[int] = set()
        self.running: set[int] = set()
        self.replaced: set[int] = set()
        """Failed trials that were retried as new ones."""
        self.partial: set[int] = set()
        """Trials hidden from samplers, as they lack parameters of the space."""
        self.listed: list[str] = []
        """Keys of the configurations that the study file enqueued."""
        self.baselines: set[int] = set()
        """The baseline and its retries."""
        self.foreign: dict[int, str] = {}
        """Trials in the storage that are not this study's → why they are left out of everything."""
        self.point = 0
        """Next position in the sampler's sequence (qmc, grid)."""

    @property
    def spent(self) -> int:
        """Trials that count in the budget: ended and running ones, without those that were retried."""
        return len(self._counted) - len(self._counted & self.replaced) + len(self.running)

    def trials(self) -> list[Trial]:
        """Return all trials by number."""
        self.read()
        with self._lock:
            return [row for number, row in self._rows.items() if number not in self.foreign]

    def row(self, number: int) -> Trial:
        """Return a trial as it was read last."""
        return self._rows[number]

    def read(self) -> list[FrozenTrial]:
        """Return all trials as stored now, by number, after updating the history from them."""
        with self._lock:
            trials, self._position, changed = self.records.changed_since(self._position)
            self._update(trials, changed)
        return trials

    def changes(self, since: int) -> tuple[int, list[int]]:
        """Return how many changes were read so far, and the trials that changed after the first ``since``, by number.

        So what is known of all trials can be kept up to date without going through them. Foreign trials are left out.
        """
        with self._lock:
            return len(self._changes), sorted(set(self._changes[since:]))

    def worst(self, goals: Sequence[Goal]) -> list[float]:
        """Return each goal's worst value so far; before the first value, the infinity that is worse than any."""
        known = self._worst or [(-math.inf, math.inf)] * len(goals)
        return [low if goal.direction == "maximize" else high for goal, (low, high) in zip(goals, known, strict=True)]

    def refuse(self, number: int, why: str) -> None:
        """Leave a waiting trial out of everything from now on."""
        self.foreign[number] = why
        self._open.discard(number)
        self.waiting.discard(number)

    def _update(self, trials: list[FrozenTrial], changed: list[int]) -> None:
        seen, self._seen = self._seen, len(trials)
        for trial in trials[seen:]:
            if not is_ours(trial) and not (trial.state == TrialState.WAITING and FIXED in trial.system_attrs):
                self.foreign[trial.number] = "it was made by plain Optuna, so what it trained is unknown"
                continue
            row = self._rows[trial.number] = row_of(trial)
            if row.origin == "baseline" or row.retry_of in self.baselines:
                self.baselines.add(row.number)
            if row.retry_of is not None:
                self.replaced.add(row.retry_of)
            if "listed" in trial.user_attrs:
                self.listed.append(trial.user_attrs["listed"])
            self._open.add(trial.number)
        changed = [number for number in changed if number in self._open]
        self._changes += changed
        for number in changed:
            trial = trials[number]
            if number < seen:
                self._rows[number] = row_of(trial)
            if "hyperparameters" in trial.user_attrs:
                self.tried.add(key_of(trial.user_attrs["hyperparameters"]))
            if trial.user_attrs.get("partial"):
                self.partial.add(number)
            self.point = max(self.point, trial.user_attrs.get("point", 0))
            if trial.state.is_finished():
                self._end(self._rows[number])
        self.waiting = _with(self.waiting, changed, {n for n in changed if trials[n].state == TrialState.WAITING})
        self.running = _with(self.running, changed, {n for n in changed if trials[n].state == TrialState.RUNNING})

    def _end(self, row: Trial) -> None:
        self._open.discard(row.number)
        if row.ending.counts:
            self._counted.add(row.number)
        if row.ending in (Ending.complete, Ending.pruned) and row.values:
            known = self._worst or [(value, value) for value in row.values]
            self._worst = [(min(low, v), max(high, v)) for (low, high), v in zip(known, row.values, strict=True)]


def _with(known: set[int], changed: list[int], now: set[int]) -> set[int]:
    """Return a set of which the changed numbers are exactly those in ``now``; another one, as someone may be reading it."""
    return known if known.intersection(changed) == now else known.difference(changed) | now
