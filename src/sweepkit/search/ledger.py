"""What is known of a study's trials, kept up to date at the price of what is new. Knows how trials are stored, not where."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from sweepkit.study.configurations import key_of
from sweepkit.study.objective import Goal, Objective
from sweepkit.trial.events import Evaluated
from sweepkit.trial.trial import Ending, Reason, Trial, Turn

EVALUATION = "evaluation:"
"""Trial attribute of one evaluation, followed by its number."""
_BY_STATE = {
    TrialState.COMPLETE: Ending.complete,
    TrialState.PRUNED: Ending.pruned,
    TrialState.FAIL: Ending.failed,
    TrialState.RUNNING: Ending.running,
    TrialState.WAITING: Ending.waiting,
}


def ending_of(trial: FrozenTrial) -> Ending:
    """Return how a trial ended, by our own word where it was stored, else by Optuna's state."""
    return Ending(trial.user_attrs.get("ending", _BY_STATE[trial.state]))


def row_of(trial: FrozenTrial) -> Trial:
    """Return a stored trial as a row."""
    facts = trial.user_attrs
    values = tuple(facts.get("values", trial.values or ()))
    return Trial(
        number=trial.number,
        ending=ending_of(trial),
        reason=Reason(facts["reason"]) if "reason" in facts else None,
        cause=facts.get("cause", ""),
        params=dict(facts.get("hyperparameters", facts.get("fixed", trial.params))),
        drawn=dict(trial.params),
        values=values if all(map(math.isfinite, values)) else (),
        intermediate=dict(sorted(trial.intermediate_values.items())),
        started=trial.datetime_start.astimezone().isoformat(timespec="seconds") if trial.datetime_start else None,
        seconds=facts.get("seconds"),
        attempts=facts.get("attempts", 0),
        origin=facts.get("origin", "sampled"),
        name=facts.get("name", ""),
        schedule=tuple(Turn(**turn) for turn in facts.get("schedule", ())),
    )


class Evaluations:
    """The evaluations of one trial."""

    def __init__(self, stored: Mapping[str, Any]) -> None:
        self._by_number: dict[int, tuple[tuple[float, ...], Mapping[str, float]]] = {
            int(key.removeprefix(EVALUATION)): (tuple(value["values"]), value["metrics"])
            for key, value in stored.items()
            if key.startswith(EVALUATION)
        }

    def add(self, event: Evaluated) -> None:
        """Take an evaluation; those after it, of an attempt that is being repeated, are forgotten."""
        self._by_number = {n: known for n, known in self._by_number.items() if n < event.number}
        self._by_number[event.number] = (tuple(event.values), dict(event.metrics))

    def values(self, up_to: float = math.inf) -> list[tuple[float, ...]]:
        """Return the goals' values, oldest first, up to an evaluation's number."""
        return [values for number, (values, _) in sorted(self._by_number.items()) if number <= up_to]

    def metrics(self, objective: Objective) -> Mapping[str, float] | None:
        """Return all metrics of the evaluation that stands for the trial."""
        found = [metrics for _, (_, metrics) in sorted(self._by_number.items())]
        return found[objective.decisive(self.values())] if found else None


class Ledger:
    """Everything the search asks about all trials at once. Ended trials are read once, the others each time."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        """Held by whoever reads the stored trials into it: the driver's thread, or the courier's."""
        self._seen = 0
        self._open: set[int] = set()
        self._counted: set[int] = set()
        self._worst: list[tuple[float, float]] = []
        self.rows: dict[int, Trial] = {}
        """Ended trials."""
        self.tried: set[str] = set()
        """Keys of the configurations that were tried or are about to be."""
        self.waiting: set[int] = set()
        self.running: set[int] = set()
        self.replaced: set[int] = set()
        """Failed trials that are run again."""
        self.partial: set[int] = set()
        """Trials that samplers must not see."""
        self.listed: list[str] = []
        """Keys of the configurations enqueued by the study file."""
        self.has_baseline = False
        self.point = 0
        """Where the sampler's sequence goes on (qmc, grid)."""

    @property
    def spent(self) -> int:
        """Trials that count in the budget, running ones included and replaced ones left out."""
        return len((self._counted - self.replaced) | self.running)

    def read(self, trials: Sequence[FrozenTrial]) -> None:
        """Take in what changed; ``trials`` are all trials, by number."""
        for trial in trials[self._seen :]:
            origin = trial.user_attrs.get("origin", "")
            self.has_baseline |= origin == "baseline"
            if origin.startswith("retry of "):
                self.replaced.add(int(origin.removeprefix("retry of ")))
            if "listed" in trial.user_attrs:
                self.listed.append(trial.user_attrs["listed"])
            self._open.add(trial.number)
        self._seen = len(trials)
        waiting, running = set(), set()
        for number in sorted(self._open):
            trial = trials[number]
            if "hyperparameters" in trial.user_attrs:
                self.tried.add(key_of(trial.user_attrs["hyperparameters"]))
            if trial.user_attrs.get("partial"):
                self.partial.add(number)
            self.point = max(self.point, trial.user_attrs.get("point", 0))
            if trial.state == TrialState.WAITING:
                waiting.add(number)
            elif trial.state == TrialState.RUNNING:
                running.add(number)
            else:
                self._end(row_of(trial))
        self.waiting, self.running = waiting, running

    def _end(self, row: Trial) -> None:
        self._open.discard(row.number)
        self.rows[row.number] = row
        if row.ending.counts:
            self._counted.add(row.number)
        if row.ending in (Ending.complete, Ending.pruned) and row.values:
            known = self._worst or [(value, value) for value in row.values]
            self._worst = [(min(low, v), max(high, v)) for (low, high), v in zip(known, row.values, strict=True)]

    def worst(self, goals: Sequence[Goal]) -> list[float]:
        """Return the worst value so far of each goal; while there is none, the worst there can be (an infinity)."""
        known = self._worst or [(-math.inf, math.inf)] * len(goals)
        return [low if goal.direction == "maximize" else high for goal, (low, high) in zip(goals, known, strict=True)]
