"""Turns a sampler's proposals into whole trials, and decides what samplers and pruners see of the stored ones."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import copy
from itertools import chain, repeat
from random import Random
from typing import Any

from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState

from sweepkit.search.history import History
from sweepkit.search.proposer import Proposer
from sweepkit.search.read_only import ReadOnlyStorage
from sweepkit.search.records import DECIDED, Records, blank, ending_of, whole
from sweepkit.search.samplers import Grid, Nearby, combinations, make_sampler
from sweepkit.search.strategy import Next
from sweepkit.search.window import Window, Windowed
from sweepkit.study.configurations import Configuration
from sweepkit.study.errors import InputError
from sweepkit.study.parameters import Scalar
from sweepkit.study.samplers import WINDOW
from sweepkit.study.space import trial_seed
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import Ending

RANDOM_REDRAWS = 1000
"""Random proposals, once the sampler's own are used up, before all combinations are enumerated (where that is possible)."""


class Proposals:
    """The proposals of one search, made for ``driver``; everything is read from its records when it is needed."""

    def __init__(
        self, study: StudyData, records: Records, history: History, proposer: Proposer, driver: str | None
    ) -> None:
        self._study = study
        self._objective = study.objective
        self._records = records
        self._history = history
        self._proposer = proposer
        self._driver = driver
        self._changes = 0
        self._judged: list[FrozenTrial] = []
        kind, options, directions = (
            study.sampler.kind,
            study.sampler.options,
            [g.direction for g in study.objective.goals],
        )
        self._newest = max(int(options.get(WINDOW, kind.window)), int(options.get("n_startup_trials", 0)))
        windowed = kind.window and len(directions) == 1
        self._window = Window(history, maximize=directions == ["maximize"]) if windowed else None
        self._combinations = combinations(study) if study.sampler.kind.enumerates else None
        make_sampler(study, 0, grid=self._combinations)

    def view(self, own: FrozenTrial) -> ReadOnlyStorage:
        """Return the storage as a sampler sees it that proposes this trial."""
        several = self._objective.metrics is not None

        def trials() -> list[FrozenTrial]:
            found = self._visible(self._history.partial)
            return list(map(_without_curve, found)) if several else found

        def judged(trial: FrozenTrial) -> FrozenTrial:
            return _without_curve(self.judge(trial)) if several else self.judge(trial)

        return ReadOnlyStorage(self._records.storage, own, trials=trials, judged=judged)

    def pruner_view(self, trial: FrozenTrial) -> ReadOnlyStorage:
        """Return the storage as a pruner sees it that judges this trial."""
        goal = None if self._objective.metrics is None else self._objective.deciding
        own, storage = self.judge(trial), self._records.storage
        return ReadOnlyStorage(storage, own, trials=self._visible, judged=self.judge, goal=goal)

    def _visible(self, hidden: Collection[int] = ()) -> list[FrozenTrial]:
        """Return the stored trials by number, as samplers and pruners see them.

        ``hidden`` trials are left out, as foreign ones are: they lack parameters of the space, which several samplers cannot
        handle.
        """
        trials = self._read()
        left_out = self._history.foreign.keys() | hidden
        return [trial for trial in trials if trial.number not in left_out] if left_out else list(trials)

    def _read(self) -> list[FrozenTrial]:
        """Return all stored trials by number, those that are not foreign as :meth:`judged`."""
        stored = self._history.read()
        self._changes, changed = self._history.changes(self._changes)
        self._judged += stored[len(self._judged) :]
        for number in changed:
            self._judged[number] = self.judge(stored[number])
        return self._judged

    def propose(
        self, own: FrozenTrial, fixed: Mapping[str, Any], state: TrialState, chosen: Next | None = None
    ) -> FrozenTrial | None:
        """Return a whole trial, ready to be stored; one with ``fixed`` values may repeat an earlier configuration.

        A ``chosen`` configuration comes before what the sampler proposes.
        """
        view, first = self.view(own), chosen.configuration if chosen else None
        decided = {f"{DECIDED}0": [["start", chosen.why]]} if chosen and chosen.why else {}
        repeats = bool(fixed) or (self._study.duplicates == "train" and not self._study.sampler.kind.enumerates)
        for configuration, point in chain([(first, None)] if first else [], self._draws(view, fixed)):
            if repeats or configuration.key not in self._history.tried:
                return whole(
                    state,
                    configuration,
                    self._proposer.distributions,
                    view.written,
                    name=configuration.name or None,
                    origin=None if fixed else "sampled",
                    point=point,
                    driver=self._driver,
                    **decided,
                )
        return None

    def _draws(self, view: ReadOnlyStorage, fixed: Mapping[str, Any]) -> Iterator[tuple[Configuration, int | None]]:
        """Yield allowed configurations with the sampler's position in its sequence.

        First the sampler's own, then random ones, then every combination, where the space can be enumerated.
        """
        study, own = self._records.study(view), view.own
        sampler = make_sampler(self._study, own.number, point=self._history.point, grid=self._combinations)
        if self._window is not None:
            window, newest = self._window, self._newest
            narrowed = view.through(lambda: window.of(self._read(), newest))
            sampler = Windowed(sampler, self._records.study(narrowed))
        if isinstance(sampler, Grid) and not fixed:
            while sampler.remaining:
                if configuration := self._proposer.sample(sampler, study, own, fixed):
                    yield configuration, sampler.point
            return
        chance = RandomSampler(seed=trial_seed(self._study.sampler.seed, own.number))
        redraws = 0 if isinstance(sampler, Grid) else self._study.sampler.kind.redraws
        for each in (*repeat(sampler, redraws), *repeat(chance, RANDOM_REDRAWS)):
            if configuration := self._proposer.sample(each, study, own, fixed):
                yield configuration, getattr(sampler, "point", None)
        everything = Grid(() if fixed else self._all_combinations(), point=0)
        while everything.remaining:
            if configuration := self._proposer.sample(everything, study, own, fixed):
                yield configuration, getattr(sampler, "point", None)

    def _all_combinations(self) -> Sequence[Mapping[str, Scalar]]:
        if self._combinations is None:
            try:
                self._combinations = combinations(self._study)
            except InputError:  # the space is continuous or too large
                self._combinations = []
        return self._combinations

    def draw(self, count: int, near: Sequence[Mapping[str, Any]] = ()) -> list[Configuration]:
        """Return at most so many new configurations: at random, or half of them near these (key → label).

        They are the same ones until another trial is stored.
        """
        self._records.create()
        own = blank(len(self._history.read()), -1)
        study = self._records.study(self.view(own))
        dice = Random(trial_seed(self._study.sampler.seed, own.number))
        sampler, found = Nearby(dice), dict[str, Configuration]()
        for turn in range(count + RANDOM_REDRAWS):
            sampler.centre = dice.choice(near) if near and turn % 2 else {}
            configuration = self._proposer.sample(sampler, study, own, {})
            if configuration and configuration.key not in self._history.tried:
                found[configuration.key] = configuration
            if len(found) == count:
                break
        return list(found.values())

    def judge(self, trial: FrozenTrial) -> FrozenTrial:
        """Return a trial as samplers and pruners see it: its intermediate values by the objective's rule.

        A paused trial is seen as pruned: else a sampler would learn nothing from it.
        """
        paused = trial.state == TrialState.RUNNING and ending_of(trial) is Ending.paused
        if not paused and (len(trial.intermediate_values) < 2 or self._objective.value == "last"):
            return trial
        seen = copy(trial)
        if paused:
            seen.state = TrialState.PRUNED
        seen.intermediate_values = self._objective.course(trial.intermediate_values)
        return seen


def _without_curve(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial as samplers see it where there are several goals: by one curve TPE cannot order pruned trials."""
    if trial.state == TrialState.PRUNED and trial.intermediate_values:
        trial = copy(trial)
        trial.intermediate_values = {}
    return trial
