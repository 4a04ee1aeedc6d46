"""How one study's trials are recorded in an Optuna storage: read, added, annotated, closed.

User attributes of a trial: ``hyperparameters``, ``name``, ``origin``, ``retry_of``, ``confirm_of``, ``seed``, ``ending``,
``reason``, ``cause``, ``values``, ``metrics``, ``seconds``, ``start_seconds``, ``attempts``, ``evaluation:N``, ``decided:N``,
``schedule``, what ``hp_space`` notes; for the search alone ``fixed``, ``listed``, ``point``, ``partial``, ``driver``. Of the
study: ``meeting:N`` (a population's), ``start_from`` (what was taken from earlier studies).
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import compress, count
from operator import is_not
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweepkit.search.private import trial_id
from sweepkit.study.configurations import Configuration
from sweepkit.study.errors import StudyNotFound
from sweepkit.study.objective import Goal
from sweepkit.trial.trial import Decision, Ending, Reason, Trial, Turn

EVALUATION = "evaluation:"
"""Prefix of a trial's attribute for one evaluation; its number follows."""
DECIDED = "decided:"
"""Prefix of a trial's attribute for the decisions at one evaluation, oldest first; its number follows."""
MEETING = "meeting:"
"""Prefix of the study's attribute for one meeting; the number of the evaluation at which it was held follows."""
START_FROM = "start_from"
"""The study's attribute for what it took from earlier studies."""
FIXED = "fixed_params"
"""System attribute in which ``study.enqueue_trial`` of plain Optuna keeps its values."""
FITS = "fits"
"""Name of the constraint that infeasible and diverged trials violate."""
LOOK = 90
"""Trials of a journal that are gone through in the time that it takes to look at one by itself."""
_SETTLED = (
    "hyperparameters",
    "name",
    "origin",
    "retry_of",
    "confirm_of",
    "seed",
    "fixed",
    "listed",
    "point",
    "partial",
)
_NOTED = (
    "ending",
    "reason",
    "cause",
    "values",
    "metrics",
    "seconds",
    "start_seconds",
    "attempts",
    "schedule",
    "driver",
)
_ATTRIBUTES = frozenset((*_SETTLED, *_NOTED, "proved", "unproved"))
_BY_STATE = {
    TrialState.COMPLETE: Ending.complete,
    TrialState.PRUNED: Ending.pruned,
    TrialState.FAIL: Ending.failed,
    TrialState.RUNNING: Ending.running,
    TrialState.WAITING: Ending.waiting,
}


@dataclass(frozen=True)
class Earlier:
    """What a study took from earlier ones; decided at its first start."""

    asked: Sequence[str] = ()
    """``start_from`` as it was then."""
    first: Sequence[tuple[str, Mapping[str, Any]]] = ()
    """Configurations to try first: where each is from, such as ``spam, trial 7``, and its values by name."""
    ranked: Sequence[tuple[Mapping[str, Any], float]] = ()
    """Trials by the values of names that both search, with the normal scores of their ranks; higher is better."""


class Records:
    """The Optuna study ``name``, created when its first trial is added."""

    def __init__(self, name: str, storage: BaseStorage, goals: Sequence[Goal]) -> None:
        self.name = name
        self.storage = storage
        self._goals = goals
        self._study_id: int | None = None
        self._known: list[FrozenTrial] = []
        self._changes: list[int] = []
        self._open: set[int] = set()
        self._lock = threading.Lock()  # the driver's thread and the courier's both read

    def all(self) -> list[FrozenTrial]:
        """Return all trials by number, as stored now; not to be modified."""
        with self._lock:
            self._refresh()
            return list(self._known)

    def changed_since(self, read: int) -> tuple[list[FrozenTrial], int, list[int]]:
        """Return all trials as stored now, how many changes were read so far, and the trials changed after the first ``read``.

        So what is known of all trials can be kept up to date without going through them. A new trial is a change.
        """
        with self._lock:
            self._refresh()
            return list(self._known), len(self._changes), sorted(set(self._changes[read:]))

    def _refresh(self) -> None:
        study_id = self._id()
        if study_id is None:
            return
        few = isinstance(self.storage, JournalStorage) and len(self._open) * LOOK < len(self._known)
        changed = self._read_open(study_id) if few else self._read_all(study_id)
        self._changes += changed
        self._open.update(changed)
        self._open.difference_update(n for n in changed if self._known[n].state.is_finished())

    def _read_open(self, study_id: int) -> list[int]:
        """Read again the trials that had not ended, and those added since; return those that changed."""
        changed = []
        for number in self._open:
            before, self._known[number] = self._known[number], self.storage.get_trial(trial_id(self._known[number]))
            changed += [number] if self._known[number] is not before else []
        with suppress(KeyError):
            while True:
                number = len(self._known)
                added = self.storage.get_trial_id_from_study_id_trial_number(study_id, number)
                self._known.append(self.storage.get_trial(added))
                changed.append(number)
        return changed

    def _read_all(self, study_id: int) -> list[int]:
        """Read all trials again; return those that changed: a storage replaces a trial that changes."""
        before, self._known = self._known, self.storage.get_all_trials(study_id, deepcopy=False)
        changed = compress(count(), map(is_not, before, self._known))
        return [*changed, *range(len(before), len(self._known))]

    def get(self, number: int) -> FrozenTrial:
        """Return one trial. Raises StudyNotFound."""
        study_id = self._id()
        try:
            if study_id is None:
                raise KeyError
            if 0 <= number < len(self._known):
                return self.storage.get_trial(trial_id(self._known[number]))
            return self.storage.get_trial(self.storage.get_trial_id_from_study_id_trial_number(study_id, number))
        except KeyError:
            raise StudyNotFound(f"study {self.name} has no trial {number}") from None

    def study(self, storage: BaseStorage | None = None) -> optuna.Study:
        """Return Optuna's study, read through ``storage`` and without cached trials."""
        sampler, pruner = optuna.samplers.RandomSampler(), optuna.pruners.NopPruner()
        return optuna.Study(self.name, storage or self.storage, sampler=sampler, pruner=pruner)

    def create(self) -> int:
        """Create the study unless it exists; return its id."""
        study_id = self._id()
        if study_id is None:
            directions = [goal.direction for goal in self._goals]
            made = optuna.create_study(
                storage=self.storage, study_name=self.name, directions=directions, load_if_exists=True
            )
            with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
                made.set_metric_names([goal.metric for goal in self._goals])
            study_id = self.storage.get_study_id_from_name(self.name)
        return study_id

    def add(self, trial: FrozenTrial) -> FrozenTrial:
        """Store a new trial in one record and return it with its number."""
        return self.storage.get_trial(self.storage.create_new_trial(self.create(), trial))

    def note(self, trial: FrozenTrial, **attributes: Any) -> None:
        """Set user attributes that are not None and differ from what is stored."""
        for key, value in attributes.items():
            if value is not None and trial.user_attrs.get(key) != value:
                self.storage.set_trial_user_attr(trial_id(trial), key, value)

    def attach(self, trial: FrozenTrial, written: Mapping[str, Any]) -> None:
        """Set the system attributes that a sampler or pruner wrote."""
        for key, value in written.items():
            self.storage.set_trial_system_attr(trial_id(trial), key, value)

    def decide(self, trial: FrozenTrial, decision: Decision) -> None:
        """Add a decision to those at its evaluation."""
        key, told = f"{DECIDED}{decision.evaluation}", [decision.answer, decision.why]
        known = trial.user_attrs.get(key, [])
        if known[-1:] != [told]:
            self.note(trial, **{key: [*known, told]})

    def meetings(self) -> dict[int, dict[int, Turn]]:
        """Return evaluation → member → how it continued, earliest meeting first."""
        found = {
            int(key.removeprefix(MEETING)): {int(number): Turn(**turn) for number, turn in turns.items()}
            for key, turns in self._noted().items()
            if key.startswith(MEETING)
        }
        return dict(sorted(found.items()))

    def note_meeting(self, evaluation: int, turns: Mapping[int, Turn]) -> None:
        """Store a meeting's decisions in one record, so that a killed driver leaves them for all members or for none."""
        stored = {str(number): asdict(turn) for number, turn in turns.items()}
        self.storage.set_study_user_attr(self.create(), f"{MEETING}{evaluation}", stored)

    def earlier(self) -> Earlier | None:
        """Return what was taken from earlier studies; None before that was decided."""
        stored = self._noted().get(START_FROM)
        return None if stored is None else Earlier(**stored)

    def note_earlier(self, taken: Earlier) -> None:
        """Store what was taken from earlier studies, in one record."""
        self.storage.set_study_user_attr(self.create(), START_FROM, asdict(taken))

    def schedule(self, number: int) -> tuple[Turn, ...]:
        """Return a population member's turns, oldest first, after copying them to its trial."""
        turns = tuple(turns[number] for turns in self.meetings().values() if number in turns)
        if turns:
            self.note(self.get(number), schedule=[asdict(turn) for turn in turns])
        return turns

    def fill(self, trial: FrozenTrial, whole: FrozenTrial) -> None:
        """Give a waiting trial the parameters and attributes of ``whole``."""
        for key, value in whole.params.items():
            domain = whole.distributions[key]
            self.storage.set_trial_param(trial_id(trial), key, domain.to_internal_repr(value), domain)
        self.attach(trial, whole.system_attrs)
        self.note(trial, **whole.user_attrs)

    def start(self, trial: FrozenTrial) -> None:
        """Set a waiting trial running."""
        self.storage.set_trial_state_values(trial_id(trial), TrialState.RUNNING)

    def refuse(self, trial: FrozenTrial) -> None:
        """Mark a waiting trial from elsewhere as failed, so that it is not picked up again."""
        self.storage.set_trial_state_values(trial_id(trial), TrialState.FAIL)

    def close(
        self, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None, *, fits: bool = True
    ) -> None:
        """End a trial. ``fits=False`` tells samplers that its region of the space cannot be trained.

        Optuna's GP needs the same constraints on all completed trials, so feasible ones get it too.
        """
        study = self.study()
        if state != TrialState.FAIL and FITS not in trial.constraints:
            optuna.Trial(study, trial_id(trial)).set_constraint(FITS, -1.0 if fits else 1.0)
        study.tell(trial.number, list(values) if values is not None else None, state=state)

    def _noted(self) -> Mapping[str, Any]:
        study_id = self._id()
        return {} if study_id is None else self.storage.get_study_user_attrs(study_id)

    def _id(self) -> int | None:
        if self._study_id is None:
            with suppress(KeyError):
                self._study_id = self.storage.get_study_id_from_name(self.name)
        return self._study_id


def is_own(key: str) -> bool:
    """Whether sweepkit records something of a trial under this key."""
    return key in _ATTRIBUTES or key.startswith((EVALUATION, DECIDED))


def is_ours(trial: FrozenTrial) -> bool:
    """Whether sweepkit stored the trial; ``study.ask()`` and ``study.optimize()`` of plain Optuna leave others."""
    return not trial.user_attrs.keys().isdisjoint(("origin", "retry_of", "confirm_of", "hyperparameters", "fixed"))


def ending_of(trial: FrozenTrial) -> Ending:
    """Return how a stored trial ended: as recorded, else by Optuna's state."""
    return Ending(trial.user_attrs.get("ending", _BY_STATE[trial.state]))


def decisions_of(trial: FrozenTrial) -> tuple[Decision, ...]:
    """Return what was decided for a trial, by evaluation; the last one of an evaluation holds."""
    found = {int(key.removeprefix(DECIDED)): told for key, told in trial.user_attrs.items() if key.startswith(DECIDED)}
    return tuple(Decision(number, *each) for number, told in sorted(found.items()) for each in told)


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
        metrics=dict(facts.get("metrics", {})),
        intermediate=dict(sorted(trial.intermediate_values.items())),
        started=trial.datetime_start.astimezone().isoformat(timespec="seconds") if trial.datetime_start else None,
        seconds=facts.get("seconds"),
        attempts=facts.get("attempts", 0),
        name=facts.get("name", ""),
        seed=facts.get("seed"),
        schedule=tuple(Turn(**turn) for turn in facts.get("schedule", ())),
        decisions=decisions_of(trial),
        **_provenance(facts),
    )


def _provenance(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row's ``origin``, ``retry_of`` and ``confirm_of``.

    Earlier versions recorded only the text ``retry of N`` or ``confirm of N``, as the origin.
    """
    origin = facts.get("origin", "sampled")
    found: dict[str, Any] = {"retry_of": facts.get("retry_of"), "confirm_of": facts.get("confirm_of")}
    for key in found:
        verb = key.removesuffix("_of")
        head, _, number = origin.rpartition(" of ")
        if found[key] is None and head == verb and number.isdigit():
            found[key] = int(number)
        if found[key] is not None:
            origin = f"{verb} of {found[key]}"
    return {"origin": origin, **found}


def whole(
    state: TrialState,
    configuration: Configuration,
    domains: Mapping[str, BaseDistribution],
    written: Mapping[str, Any] | None = None,
    **attributes: Any,
) -> FrozenTrial:
    """Return a trial ready to be stored in one record; ``written`` are its system attributes."""
    if configuration.hyperparameters or attributes.get("fixed") is None:  # one picked by hand is drawn when it starts
        attributes["hyperparameters"] = dict(configuration.hyperparameters)
    if configuration.partial:
        attributes["partial"] = True
    return create_trial(
        state=state,
        params=dict(configuration.params),
        distributions={key: domains[key] for key in configuration.params},
        user_attrs={
            **configuration.attributes,
            **{key: value for key, value in attributes.items() if value is not None},
        },
        # Samplers leave each other half-made proposals; this one is complete.
        system_attrs={key: value for key, value in (written or {}).items() if "relative_params" not in key},
    )


def blank(number: int, trial_id: int) -> FrozenTrial:
    """Return a running trial without parameters."""
    return FrozenTrial(
        number=number,
        trial_id=trial_id,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=create_trial(state=TrialState.RUNNING).datetime_start,
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )
