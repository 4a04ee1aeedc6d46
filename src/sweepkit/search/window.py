"""What TPE sees of a long study: its better part and the newest of the other trials, so that no proposal goes through all."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from sweepkit.search.history import History

BETTER = 25
"""Trials of TPE's better part, once there are 250 (Optuna's default)."""
LEARNT_FROM = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)

_Key = tuple[int, float, float, int]


class Window:
    """The ranking of a study's trials, as TPE ranks them; it follows from what is stored and is kept up to date."""

    def __init__(self, history: History, *, maximize: bool) -> None:
        self._history = history
        self._sign = -1.0 if maximize else 1.0
        self._changes = 0
        self._ranked: list[_Key] = []
        self._paused: dict[int, _Key] = {}

    def of(self, trials: Sequence[FrozenTrial], newest: int) -> list[FrozenTrial]:
        """Return the better part of these trials and so many of the others, by number; all while there are no more.

        ``trials`` are all, by number, as samplers see them.
        """
        self._update(trials)
        left_out = self._history.partial | self._history.foreign.keys()
        if len(self._ranked) <= newest + BETTER:
            return [trial for trial in trials if trial.number not in left_out]
        kept = {number for *_, number in self._ranked[:BETTER]}
        left_out |= kept
        for trial in reversed(trials):
            if trial.number not in left_out and trial.state in LEARNT_FROM:
                kept.add(trial.number)
                newest -= 1
                if not newest:
                    break
        return [trials[number] for number in sorted(kept)]

    def _update(self, trials: Sequence[FrozenTrial]) -> None:
        self._changes, changed = self._history.changes(self._changes)
        for number in changed:
            if known := self._paused.pop(number, None):  # it went on
                del self._ranked[bisect_left(self._ranked, known)]
            trial = trials[number]
            if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED) or number in self._history.partial:
                continue
            key = self._key(trial)
            insort(self._ranked, key)
            if trial.datetime_complete is None:
                self._paused[number] = key

    def _key(self, trial: FrozenTrial) -> _Key:
        """Return a trial's place: complete ones by value, pruned ones by how far they came, then infeasible ones."""
        if (violation := sum(value for value in trial.constraints.values() if value > 0)) > 0:
            return 2, violation, 0.0, trial.number
        if trial.state == TrialState.COMPLETE:
            assert trial.value is not None
            return 0, self._sign * trial.value, 0.0, trial.number
        if not trial.intermediate_values:
            return 1, 1.0, 0.0, trial.number
        step, value = max(trial.intermediate_values.items())
        return 1, -float(step), float("inf") if value != value else self._sign * value, trial.number


class Windowed(BaseSampler):
    """A sampler that sees ``study`` in place of the one it is asked for."""

    def __init__(self, sampler: BaseSampler, study: Study) -> None:
        self._sampler = sampler
        self._study = study

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return what the sampler infers."""
        return self._sampler.infer_relative_search_space(self._study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the sampler's proposal."""
        return self._sampler.sample_relative(self._study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the sampler's value."""
        return self._sampler.sample_independent(self._study, trial, param_name, param_distribution)
