"""What was tried, what to try next, and how good it was: a study's trials in an Optuna storage.

Three guarantees. A trial is stored whole, in one record, before it starts. A proposal follows from the stored trials, the
study's seed and the trial's number alone, so a study killed at any moment resumes with the same sequence. And asking costs
the same at trial 5,000 as at trial 5, as ended trials are read only once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from itertools import repeat
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from sweepkit.search.drivers import drivers_of
from sweepkit.search.history import Evaluations, History
from sweepkit.search.private import trial_id
from sweepkit.search.proposer import Proposer
from sweepkit.search.read_only import ReadOnlyStorage
from sweepkit.search.records import EVALUATION, FIXED, Records, blank, ending_of, is_ours, row_of, whole
from sweepkit.search.samplers import Grid, combinations, make_sampler, quiet_optuna
from sweepkit.search.storage import ensure_whole, together
from sweepkit.study.configurations import Configuration, key_of
from sweepkit.study.errors import InputError
from sweepkit.study.files import first_line
from sweepkit.study.parameters import Scalar
from sweepkit.study.paths import Place
from sweepkit.study.samplers import make_pruner
from sweepkit.study.space import dimensions, trial_seed
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Finished
from sweepkit.trial.trial import Ending, Reason, Trial

RANDOM_REDRAWS = 1000
"""Random proposals, once the sampler's own are used up, before all combinations are enumerated (where that is possible)."""


class Search:
    """The trials of one study, in an Optuna study named like it plus ``suffix``.

    With a suffix nothing is proposed and no budget applies: only what was added is run (confirmation runs). ``pruner``
    replaces the study's own. Raises InputError for sampler or pruner options that Optuna refuses.
    """

    def __init__(
        self,
        study: StudyData,
        storage: BaseStorage,
        proposer: Proposer,
        *,
        suffix: str = "",
        pruner: BasePruner | None = None,
    ) -> None:
        name = study.name + suffix
        self._study = study
        self._objective = study.objective
        self._proposer = proposer
        self._pruner = pruner
        self.place: Place = replace(study.place, name=name)
        """Where its trials lie; those of a search with a suffix lie beside the study's own."""
        self.proposes = not suffix
        """Whether it proposes new configurations; False for confirmation runs."""
        self.exhausted = False
        """Whether an ask found that every configuration was tried."""
        self.records = Records(name, storage, study.objective.goals)
        self._history = History(self.records)
        self._drivers = drivers_of(study, name)
        self._evaluations: dict[int, Evaluations] = {}
        self._judged_trials: dict[int, FrozenTrial] = {}
        self._mine: set[int] = set()
        self._announced: set[int] = set()
        self._added = not self.proposes  # whether the study file's own configurations were added
        self._combinations = combinations(study) if study.sampler.kind.enumerates else None
        ensure_whole(study, self.place, self.place.logged(), len(self.records.all()))
        make_sampler(study, 0, grid=self._combinations)
        make_pruner(study.pruner.type, study.pruner.options)

    def trials(self) -> list[Trial]:
        """Return all trials by number."""
        return self._history.trials()

    def row(self, number: int) -> Trial:
        """Return one trial. Raises StudyNotFound."""
        return row_of(self.records.get(number))

    def unfinished(self) -> list[Trial]:
        """Take over the trials that dead drivers left running, and return them, oldest first."""
        left = []
        with self._drivers.turn():
            for trial in self._history.read():
                if trial.state != TrialState.RUNNING or trial.number in self._mine | self._history.foreign.keys():
                    continue
                if self._drivers.alive(trial.user_attrs.get("driver")):
                    continue
                if ending_of(trial).counts:  # its driver died between recording the ending and closing the trial
                    self._close(trial, ending_of(trial), trial.user_attrs["values"])
                    continue
                self.records.note(trial, driver=self._drivers.me)
                self._mine.add(trial.number)
                left.append(row_of(trial))
        return left

    def ask(self) -> Trial | None:
        """Return the next trial, stored as running; None when ``budget.trials`` is spent or the space is exhausted."""
        with self._drivers.turn():
            self._history.read()
            self._add_from_file()
            trials = self._history.read()
            budget = self._study.budget.trials if self.proposes else None
            if budget is not None and self._history.spent >= budget:
                return None
            self._adopt_enqueued(trials)
            if self._history.waiting:
                trial: FrozenTrial | None = self._start(self.records.get(min(self._history.waiting)))
            elif not self.proposes or self.exhausted:
                return None
            else:
                trial = self._create(len(trials))
        if trial is None:
            return None
        self._mine.add(trial.number)
        return row_of(trial)

    def news(self) -> list[str]:
        """Return a sentence on each trial, found since the last call, that plain Optuna added and that is left out."""
        new = {number: why for number, why in self._history.foreign.items() if number not in self._announced}
        self._announced |= new.keys()
        return [f"trial {number} is left out: {why}" for number, why in new.items()]

    def report(self, event: Evaluated) -> bool:
        """Store an evaluation; return whether to prune the trial. The same evaluation may be reported again.

        The baseline is never pruned, as its value is what others are compared with, nor a trial at its final evaluation.
        The pruner is asked about them all the same, as it compares other trials with them.
        """
        trial = self.records.get(event.trial)
        evaluations = self._evaluated(trial)
        evaluations.add(event)
        stored = {"values": list(event.values), "metrics": dict(event.metrics)}
        value = event.values[self._objective.deciding]
        with together(self.records.storage):
            self.records.note(trial, **{f"{EVALUATION}{event.number}": stored})
            self.records.storage.set_trial_intermediate_value(trial_id(trial), event.number, value)
        prunes = self._pruner is not None or self._study.pruner.stops
        if not prunes or (self._objective.metrics is not None and self._objective.prune_on is None):
            return False
        # A pruner that stores its decision (asha) must decide only once: asked again, it would read that as a pass.
        spared = event.final or event.trial in self._history.baselines
        if event.number >= trial.user_attrs.get("pruned_at", math.inf):
            return not spared
        trial = self._judged(self.records.get(event.trial))
        storage, hidden = self.records.storage, self._history.foreign.keys()
        view = ReadOnlyStorage(storage, trial, judged=self._judged, hidden=hidden, goal=self._objective.deciding)
        with quiet_optuna():
            pruner = self._pruner or make_pruner(self._study.pruner.type, self._study.pruner.options)
            prune = pruner.prune(self.records.study(view), trial) and not spared
        self.records.note(trial, pruned_at=event.number if prune else None)
        self.records.attach(trial, view.written)
        return prune

    def value_so_far(self, event: Evaluated) -> tuple[float, ...]:
        """Return the trial's values by the objective's rule, up to and including this evaluation."""
        return self._objective.values_of(self._evaluated(self.records.get(event.trial)).values(up_to=event.number))

    def tell(self, event: Finished, *, attempts: int = 1, facts: Mapping[str, Any] | None = None) -> None:
        """Store how a trial ended, with further ``facts``; a stopped trial stays running, to be resumed."""
        trial, ending = self.records.get(event.trial), Ending(event.ending)
        reason, cause = event.reason, event.cause
        evaluations = self._evaluated(trial)
        values = tuple(event.values) or self._objective.values_of(evaluations.values())
        if ending is Ending.complete and not (values and all(map(math.isfinite, values))):
            ending, reason = Ending.diverged, Reason.not_finite
            cause = f"the objective is {list(values) or 'missing'}"
        # The ending comes last: a trial that has one has everything, and another driver can close it.
        with together(self.records.storage):
            self.records.note(
                trial,
                reason=None if reason is None else str(reason),
                cause=cause or None,
                seconds=event.seconds,
                attempts=attempts,
                metrics=evaluations.metrics(self._objective),
                **(facts or {}),
                values=list(values),
                ending=str(ending),
            )
        if ending.counts:
            self._close(trial, ending, values)

    def enqueue(self, params: Mapping[str, Any]) -> int:
        """Add a hand-picked configuration, by hyperparameters' names; return its trial's number. Names left out are sampled.

        Works while another process runs the study. Raises InputError for values that the space does not contain.
        """
        self._proposer.configurations.ensure_possible(params)
        return self._add(Configuration({}, {}), origin="enqueued", fixed=dict(params))

    def retry(self, numbers: Iterable[int]) -> list[int]:
        """Add a new trial for each of these failed ones, which then no longer count; return the new numbers.

        Raises InputError for a trial that did not fail or was retried already.
        """
        self._history.read()
        chosen = list(numbers)
        for number in chosen:
            ending = ending_of(self.records.get(number))
            if ending is not Ending.failed:
                raise InputError(f"trial {number} is {ending}; only failed trials can be retried")
            if number in self._history.replaced:
                raise InputError(f"trial {number} was already retried")
        return [self._add(self._configuration(number), retry_of=number) for number in chosen]

    def confirm(self, number: int, searched: Search, *, seed: int) -> int:
        """Add a confirmation run of trial ``number`` of another search, with a seed of its own; return its number."""
        return self._add(searched._configuration(number), confirm_of=number, seed=seed)

    def _configuration(self, number: int) -> Configuration:
        trial = self.records.get(number)
        return Configuration(trial.params, trial.user_attrs["hyperparameters"])

    def _judged(self, trial: FrozenTrial) -> FrozenTrial:
        """Return a trial as samplers and pruners see it: its intermediate values by the objective's rule."""
        if (known := self._judged_trials.get(trial.number)) is not None:
            return known
        if len(trial.intermediate_values) < 2 or self._objective.value == "last":
            return trial
        seen = copy(trial)
        seen.intermediate_values = self._objective.course(trial.intermediate_values)
        if trial.state.is_finished():
            self._judged_trials[trial.number] = seen
        return seen

    def _evaluated(self, trial: FrozenTrial) -> Evaluations:
        return self._evaluations.setdefault(trial.number, Evaluations(trial.user_attrs))

    def _close(self, trial: FrozenTrial, ending: Ending, values: Sequence[float]) -> None:
        self._evaluations.pop(trial.number, None)
        if ending is Ending.failed:
            self.records.close(trial, TrialState.FAIL, None)
        elif ending is Ending.pruned:
            self.records.close(trial, TrialState.PRUNED, None)
        elif ending is Ending.complete:
            self.records.close(trial, TrialState.COMPLETE, values)
        else:
            self._history.read()
            worst = self._history.worst(self._objective.goals)
            self.records.close(trial, TrialState.COMPLETE, worst, fits=False)

    def _add_from_file(self) -> None:
        """Add the baseline and the enqueued configurations of the study file, unless an earlier run did."""
        if self._added:
            return
        if self._study.baseline is not None and not self._history.baselines:
            self._add(self._proposer.configurations.baseline(self._study.baseline), origin="baseline")
        present = list(self._history.listed)
        for entry in self._study.enqueue:
            if key_of(entry) in present:
                present.remove(key_of(entry))
            else:
                self._proposer.configurations.ensure_possible(entry)
                self._add(Configuration({}, {}), origin="enqueued", fixed=entry, listed=key_of(entry))
        self._added = True

    def _adopt_enqueued(self, trials: Sequence[FrozenTrial]) -> None:
        """Take over what ``study.enqueue_trial`` of plain Optuna added, or refuse it."""
        names = {key: dimension.name for key, dimension in dimensions(self._study.space).items()}
        for trial in [trials[number] for number in sorted(self._history.waiting)]:
            if is_ours(trial):
                continue
            fixed = {names.get(key, key): value for key, value in trial.system_attrs[FIXED].items()}
            try:
                self._proposer.configurations.ensure_possible(fixed)
            except InputError as error:
                self.records.refuse(trial)
                self._history.refuse(trial.number, f"plain Optuna enqueued it with {fixed}: {first_line(error)}")
            else:
                self.records.note(trial, origin="enqueued", fixed=fixed)

    def _add(self, configuration: Configuration, **attributes: Any) -> int:
        """Store a waiting trial; return its number."""
        domains = self._proposer.distributions
        return self.records.add(whole(TrialState.WAITING, configuration, domains, **attributes)).number

    def _create(self, number: int) -> FrozenTrial | None:
        """Return a new running trial; None when there is nothing new to try."""
        self.records.create()
        proposed = self._propose(blank(number, -1), {}, TrialState.RUNNING)
        self.exhausted = proposed is None
        return None if proposed is None else self.records.add(proposed)

    def _start(self, trial: FrozenTrial) -> FrozenTrial:
        """Set a waiting trial running, after sampling what it leaves open."""
        if "hyperparameters" not in trial.user_attrs:
            fixed = trial.user_attrs.get("fixed", {})
            proposed = self._propose(blank(trial.number, trial_id(trial)), fixed, TrialState.WAITING)
            if proposed is None:
                raise InputError(f"trial {trial.number}: no configuration of the space has {fixed}")
            self.records.fill(trial, proposed)
        self.records.note(trial, driver=self._drivers.me)
        return self.records.start(trial)

    def _propose(self, own: FrozenTrial, fixed: Mapping[str, Any], state: TrialState) -> FrozenTrial | None:
        """Return a whole trial, ready to be stored; one with ``fixed`` values may repeat an earlier configuration."""
        hidden = self._history.partial | self._history.foreign.keys()
        view = ReadOnlyStorage(self.records.storage, own, judged=self._judged, hidden=hidden)
        repeats = bool(fixed) or (self._study.duplicates == "train" and not self._study.sampler.kind.enumerates)
        for configuration, point in self._draws(view, fixed):
            if repeats or configuration.key not in self._history.tried:
                return whole(
                    state,
                    configuration,
                    self._proposer.distributions,
                    view.written,
                    name=configuration.name or None,
                    origin=None if fixed else "sampled",
                    point=point,
                    driver=self._drivers.me,
                )
        return None

    def _draws(self, view: ReadOnlyStorage, fixed: Mapping[str, Any]) -> Iterator[tuple[Configuration, int | None]]:
        """Yield allowed configurations with the sampler's position in its sequence.

        First the sampler's own, then random ones, then every combination, where the space can be enumerated.
        """
        study, own = self.records.study(view), view.own
        sampler = make_sampler(self._study, own.number, point=self._history.point, grid=self._combinations)
        if isinstance(sampler, Grid) and not fixed:
            while sampler.remaining:
                if configuration := self._proposer.sample(sampler, study, own, fixed):
                    yield configuration, sampler.point
            return
        chance = optuna.samplers.RandomSampler(seed=trial_seed(self._study.sampler.seed, own.number))
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
