"""What was tried, what to try next, and how good it was: Optuna's storage in our words. Knows no process and no tracker.

Three promises. A trial is stored whole, in one record, before it starts. What is proposed follows from the stored trials,
the study's seed and the trial's number alone, so that a study killed at any moment goes on as if nothing had happened. And
asking costs the same at the five-thousandth trial: what has ended is looked at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from sweepkit.search.drivers import drivers_of
from sweepkit.search.ledger import EVALUATION, Evaluations, Ledger, ending_of
from sweepkit.search.meetings import Meetings
from sweepkit.search.proposer import Proposer
from sweepkit.search.read_only import View
from sweepkit.search.records import Records, blank, whole
from sweepkit.search.samplers import Grid, combinations, knowingly, make_sampler
from sweepkit.search.standings import Standings
from sweepkit.search.storage import together
from sweepkit.study.configurations import Configuration, key_of
from sweepkit.study.errors import InputError
from sweepkit.study.parameters import Scalar
from sweepkit.study.paths import Place
from sweepkit.study.samplers import make_pruner
from sweepkit.study.space import trial_seed
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Finished
from sweepkit.trial.trial import Ending, Reason

RANDOM_REDRAWS = 1000
"""How often chance then draws, before all combinations are gone through (where they can be counted)."""


@dataclass(frozen=True)
class Asked:
    """A trial to be run."""

    number: int
    params: Mapping[str, Any]
    """Sampler's dimension → number or label."""
    hyperparameters: Mapping[str, Any]
    """Consumer's name → value, linked and derived ones included."""
    origin: str = "sampled"
    seed: int | None = None
    """The trial's own seed, where it has one (confirmation runs)."""


class Search(Standings):
    """One study's trials, in an Optuna study named like it (plus ``suffix``).

    ``known`` are fixed values and consumers' defaults by name. With a suffix nothing is proposed and no budget counts: only
    what is enqueued is run (confirmation runs). ``proposer`` and ``pruner`` replace the study's own.
    """

    def __init__(
        self,
        study: StudyData,
        storage: BaseStorage,
        *,
        known: Mapping[str, Any],
        suffix: str = "",
        proposer: Proposer | None = None,
        pruner: BasePruner | None = None,
    ) -> None:
        self._study = study
        self._pruner = pruner
        self._suffix = suffix
        self._objective = study.objective
        self._proposer = proposer or Proposer(study, known)
        name = study.name + suffix
        self._records = Records(name, storage, [goal.direction for goal in study.objective.goals])
        self.meetings = Meetings(self._records)
        self._drivers = drivers_of(study, name)
        self._ledger = Ledger()
        self._evaluations: dict[int, Evaluations] = {}
        self._mine: set[int] = set()
        self._listed = bool(suffix)
        self._exhausted = False
        self._combinations: Sequence[Mapping[str, Scalar]] | None = None
        if study.sampler.kind.enumerates:
            self._combinations = combinations(study)
        make_sampler(study, 0, grid=self._combinations)
        make_pruner(study.pruner.type, study.pruner.options)

    @property
    def place(self) -> Place:
        """Where its trials lie; those of a search with a suffix beside the study's own."""
        return replace(self._study.place, name=self._study.name + self._suffix)

    @property
    def proposes(self) -> bool:
        """Whether it looks for new configurations; False for confirmation runs."""
        return not self._suffix

    @property
    def exhausted(self) -> bool:
        """Whether an ask found that every configuration was tried."""
        return self._exhausted

    def unfinished(self) -> list[Asked]:
        """Return the trials that dead drivers left running, oldest first; they are this driver's from now on."""
        left = []
        with self._drivers.turn():
            for trial in self._read():
                if trial.state != TrialState.RUNNING or trial.number in self._mine:
                    continue
                if self._drivers.alive(trial.user_attrs.get("driver")):
                    continue
                if ending_of(trial).counts:  # its driver died between noting the ending and closing the trial
                    self._close(trial, ending_of(trial), trial.user_attrs["values"])
                    continue
                self._records.note(trial, driver=self._drivers.me)
                self._mine.add(trial.number)
                left.append(_asked(trial))
        return left

    def ask(self) -> Asked | None:
        """Return the next trial, stored as running; None when ``budget.trials`` is spent or the space is exhausted."""
        with self._drivers.turn():
            self._read()
            self._list()
            trials = self._read()
            budget = None if self._suffix else self._study.budget.trials
            if budget is not None and self._ledger.spent >= budget:
                return None
            if self._ledger.waiting:
                trial: FrozenTrial | None = self._start(trials[min(self._ledger.waiting)])
            elif self._suffix or self._exhausted:
                return None
            else:
                trial = self._create(len(trials))
        if trial is None:
            return None
        self._mine.add(trial.number)
        return _asked(trial)

    def report(self, event: Evaluated) -> bool:
        """Store an evaluation; return whether the trial is to be pruned. The same evaluation may be reported again."""
        trial = self._records.get(event.trial)
        evaluations = self._evaluated(trial)
        evaluations.add(event)
        stored = {"values": list(event.values), "metrics": dict(event.metrics)}
        value = self._objective.values_of(evaluations.values())[self._objective.deciding]
        with together(self._records.storage):
            self._records.note(trial, **{f"{EVALUATION}{event.number}": stored})
            self._records.storage.set_trial_intermediate_value(trial._trial_id, event.number, value)
        objective = self._study.objective
        prunes = self._pruner is not None or self._study.pruner.type != "none"
        if not prunes or (objective.metrics is not None and objective.prune_on is None):
            return False
        # A pruner that notes what it decided (asha) decides once; asked again, it would take the note for a pass.
        if event.number >= trial.user_attrs.get("pruned_at", math.inf):
            return True
        trial = self._records.get(event.trial)
        view = View(self._records.storage, trial, goal=self._objective.deciding)
        with knowingly():
            prune = self._pruner_now().prune(self._records.look(view), trial)
        self._records.note(trial, pruned_at=event.number if prune else None)
        self._records.attach(trial, view.written)
        return prune

    def value_so_far(self, event: Evaluated) -> tuple[float, ...]:
        """Return the trial's values by the objective's rule, up to this evaluation."""
        return self._objective.values_of(self._evaluated(self._records.get(event.trial)).values(up_to=event.number))

    def tell(self, event: Finished, *, attempts: int = 1, facts: Mapping[str, Any] | None = None) -> None:
        """Store how a trial ended; ``facts`` are further things to know about it. A stopped one stays running."""
        trial, ending = self._records.get(event.trial), Ending(event.ending)
        reason, cause = event.reason, event.cause
        evaluations = self._evaluated(trial)
        values = tuple(event.values) or self._objective.values_of(evaluations.values())
        if ending is Ending.complete and not (values and all(map(math.isfinite, values))):
            ending, reason = Ending.diverged, Reason.not_finite
            cause = f"the objective is {list(values) or 'missing'}"
        # The ending last: a trial that has one has everything, and can be closed by another driver.
        with together(self._records.storage):
            self._records.note(
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

    def enqueue(self, params: Mapping[str, Any], *, origin: str = "enqueued") -> int:
        """Add a hand-picked configuration, by hyperparameters' names; return its trial's number. Names left out are sampled.

        Works while another process runs the study. Raises InputError for what the space does not have.
        """
        self._proposer.configurations.ensure_possible(params)
        return self._wait(Configuration({}, {}), origin=origin, fixed=dict(params))

    def repeat(self, number: int, *, origin: str, of: Search | None = None, **attributes: Any) -> int:
        """Add a trial with the same configuration as trial ``number`` (``of`` another search); return its number."""
        trial = (of or self)._records.get(number)
        configuration = Configuration(trial.params, trial.user_attrs["hyperparameters"])
        return self._wait(configuration, origin=origin, **attributes)

    def retry(self, numbers: Iterable[int]) -> list[int]:
        """Add a new trial for each of these failed ones, which then no longer count; return the new numbers."""
        self._read()
        chosen = list(numbers)
        for number in chosen:
            ending = ending_of(self._records.get(number))
            if ending is not Ending.failed:
                raise InputError(f"trial {number} is {ending}; only failed trials are run again")
            if number in self._ledger.replaced:
                raise InputError(f"trial {number} was run again already")
        return [self.repeat(number, origin=f"retry of {number}") for number in chosen]

    def _evaluated(self, trial: FrozenTrial) -> Evaluations:
        return self._evaluations.setdefault(trial.number, Evaluations(trial.user_attrs))

    def _pruner_now(self) -> BasePruner:
        return self._pruner or make_pruner(self._study.pruner.type, self._study.pruner.options)

    def _close(self, trial: FrozenTrial, ending: Ending, values: Sequence[float]) -> None:
        self._evaluations.pop(trial.number, None)
        if ending is Ending.failed:
            self._records.close(trial, TrialState.FAIL, None)
        elif ending is Ending.pruned:
            self._records.close(trial, TrialState.PRUNED, None)
        elif ending is Ending.complete:
            self._records.close(trial, TrialState.COMPLETE, values)
        else:
            self._read()
            worst = self._ledger.worst(self._study.objective.goals)
            self._records.close(trial, TrialState.COMPLETE, worst, fits=False)

    def _list(self) -> None:
        """Add the study file's baseline and enqueued configurations, those that are not there yet."""
        if self._listed:
            return
        if self._study.baseline is not None and not self._ledger.has_baseline:
            self._wait(self._proposer.configurations.baseline(self._study.baseline), origin="baseline")
        there = list(self._ledger.listed)
        for entry in self._study.enqueue:
            if key_of(entry) in there:
                there.remove(key_of(entry))
            else:
                self._proposer.configurations.ensure_possible(entry)
                self._wait(Configuration({}, {}), origin="enqueued", fixed=entry, listed=key_of(entry))
        self._listed = True

    def _wait(self, configuration: Configuration, **attributes: Any) -> int:
        domains = self._proposer.distributions
        return self._records.add(whole(TrialState.WAITING, configuration, domains, **attributes)).number

    def _create(self, number: int) -> FrozenTrial | None:
        """Return a new running trial; None when there is nothing new to try."""
        self._records.make()
        made = self._propose(number, -1, {}, TrialState.RUNNING)
        self._exhausted = made is None
        return None if made is None else self._records.add(made)

    def _start(self, trial: FrozenTrial) -> FrozenTrial:
        """Set a waiting trial running, after drawing what it leaves open."""
        if "hyperparameters" not in trial.user_attrs:
            fixed = trial.user_attrs.get("fixed", {})
            made = self._propose(trial.number, trial._trial_id, fixed, TrialState.WAITING)
            if made is None:
                raise InputError(f"trial {trial.number}: {fixed} fits nowhere in the space")
            self._records.fill(trial, made)
        self._records.note(trial, driver=self._drivers.me)
        return self._records.start(trial)

    def _propose(self, number: int, trial_id: int, fixed: Mapping[str, Any], state: TrialState) -> FrozenTrial | None:
        """Return the trial whole as it is to be stored; ``fixed`` values may have been tried before."""
        view = View(self._records.storage, blank(number, trial_id), hidden=self._ledger.partial)
        repeats = bool(fixed) or (self._study.duplicates == "train" and not self._study.sampler.kind.enumerates)
        for configuration, point in self._drawn(view, fixed):
            if repeats or configuration.key not in self._ledger.tried:
                origin = None if fixed else "sampled"
                name = configuration.name or None
                noted = {"name": name, "origin": origin, "point": point, "driver": self._drivers.me}
                return whole(state, configuration, self._proposer.distributions, view.written, **noted)
        return None

    def _drawn(self, view: View, fixed: Mapping[str, Any]) -> Iterator[tuple[Configuration, int | None]]:
        """Yield allowed configurations, with the point of the sampler's sequence reached: its own, random, then all."""
        look, own = self._records.look(view), view.own
        sampler = make_sampler(self._study, own.number, point=self._ledger.point, grid=self._combinations)
        chance = optuna.samplers.RandomSampler(seed=trial_seed(self._study.sampler.seed, own.number))
        if isinstance(sampler, Grid) and not fixed:
            while sampler.point < len(self._combinations or ()):
                if configuration := self._proposer.sample(sampler, look, own, fixed):
                    yield configuration, sampler.point
            return
        if not isinstance(sampler, Grid):
            for _ in range(self._study.sampler.kind.redraws):
                if configuration := self._proposer.sample(sampler, look, own, fixed):
                    yield configuration, getattr(sampler, "point", None)
        for _ in range(RANDOM_REDRAWS):
            if configuration := self._proposer.sample(chance, look, own, fixed):
                yield configuration, getattr(sampler, "point", None)
        if self._combinations is None:
            try:
                self._combinations = combinations(self._study)
            except InputError:  # not to be counted
                self._combinations = ()
        everything = Grid(self._combinations, point=0)
        while not fixed and everything.point < len(self._combinations):
            if configuration := self._proposer.sample(everything, look, own, fixed):
                yield configuration, getattr(sampler, "point", None)


def _asked(trial: FrozenTrial) -> Asked:
    facts = trial.user_attrs
    origin, seed = facts.get("origin", "sampled"), facts.get("seed")
    return Asked(trial.number, dict(trial.params), facts["hyperparameters"], origin, seed)
