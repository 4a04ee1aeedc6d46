"""One study's records in an Optuna storage: read, added, noted, closed. Knows no sampler and no rule of the search.

User attributes of a trial: ``hyperparameters``, ``origin``, ``ending``, ``reason``, ``cause``, ``values``, ``metrics``,
``seconds``, ``attempts``, ``evaluation:N``, ``schedule``, and what the search notes for itself (``point``, ``partial``,
``driver``, ``pruned_at``). Of the study: ``meeting:N`` (a population's).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweepkit.study.configurations import Configuration
from sweepkit.study.errors import StudyNotFound
from sweepkit.study.objective import Direction

FITS = "fits"
"""Name of the constraint that infeasible and diverged trials violate."""


class Records:
    """The Optuna study ``name``, made when its first trial is added."""

    def __init__(self, name: str, storage: BaseStorage, directions: Sequence[Direction]) -> None:
        self.name = name
        self.storage = storage
        self._directions = directions

    def all(self) -> list[FrozenTrial]:
        """Return all trials by number, as they are stored now; not to be changed."""
        study_id = self._id()
        return [] if study_id is None else self.storage.get_all_trials(study_id, deepcopy=False)

    def get(self, number: int) -> FrozenTrial:
        """Return one trial; Raises StudyNotFound."""
        study_id = self._id()
        try:
            if study_id is None:
                raise KeyError
            return self.storage.get_trial(self.storage.get_trial_id_from_study_id_trial_number(study_id, number))
        except KeyError:
            raise StudyNotFound(f"study {self.name} has no trial {number}") from None

    def look(self, storage: BaseStorage | None = None) -> optuna.Study:
        """Return Optuna's study, seen through a storage, without a memory of earlier looks."""
        sampler, pruner = optuna.samplers.RandomSampler(), optuna.pruners.NopPruner()
        return optuna.Study(self.name, storage or self.storage, sampler=sampler, pruner=pruner)

    def make(self) -> None:
        """Make the study if it does not exist."""
        if self._id() is None:
            optuna.create_study(
                storage=self.storage, study_name=self.name, directions=self._directions, load_if_exists=True
            )

    def add(self, trial: FrozenTrial) -> FrozenTrial:
        """Store a new trial in one record and return it with its number."""
        self.make()
        study_id = self._id()
        assert study_id is not None
        return self.storage.get_trial(self.storage.create_new_trial(study_id, trial))

    def note(self, trial: FrozenTrial, **attributes: Any) -> None:
        """Set user attributes that are not None and differ from what is stored."""
        for key, value in attributes.items():
            if value is not None and trial.user_attrs.get(key) != value:
                self.storage.set_trial_user_attr(trial._trial_id, key, value)

    def attach(self, trial: FrozenTrial, written: Mapping[str, Any]) -> None:
        """Set what a sampler or pruner noted about the trial."""
        for key, value in written.items():
            self.storage.set_trial_system_attr(trial._trial_id, key, value)

    def remember(self, **attributes: Any) -> None:
        """Set user attributes of the study itself, each in one record."""
        study_id = self._id()
        assert study_id is not None
        for key, value in attributes.items():
            self.storage.set_study_user_attr(study_id, key, value)

    def remembered(self) -> Mapping[str, Any]:
        """Return the study's own user attributes."""
        study_id = self._id()
        return {} if study_id is None else self.storage.get_study_user_attrs(study_id)

    def fill(self, trial: FrozenTrial, whole: FrozenTrial) -> None:
        """Give a waiting trial the parameters and attributes of ``whole``."""
        for key, value in whole.params.items():
            domain = whole.distributions[key]
            self.storage.set_trial_param(trial._trial_id, key, domain.to_internal_repr(value), domain)
        self.attach(trial, whole.system_attrs)
        self.note(trial, **whole.user_attrs)

    def start(self, trial: FrozenTrial) -> FrozenTrial:
        """Set a waiting trial running."""
        self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        return self.storage.get_trial(trial._trial_id)

    def close(
        self, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None, *, fits: bool = True
    ) -> None:
        """End a trial. ``fits`` False tells samplers that its region cannot be trained.

        Optuna's GP wants the same constraints on all completed trials, so that feasible ones say that they are.
        """
        study = self.look()
        if state != TrialState.FAIL and FITS not in trial.constraints:
            optuna.Trial(study, trial._trial_id).set_constraint(FITS, -1.0 if fits else 1.0)
        study.tell(trial.number, list(values) if values is not None else None, state=state)

    def _id(self) -> int | None:
        try:
            return self.storage.get_study_id_from_name(self.name)
        except KeyError:
            return None


def whole(
    state: TrialState,
    configuration: Configuration,
    domains: Mapping[str, BaseDistribution],
    written: Mapping[str, Any] | None = None,
    **attributes: Any,
) -> FrozenTrial:
    """Return a trial ready to be stored in one record."""
    if configuration.hyperparameters or attributes.get("fixed") is None:  # one picked by hand is drawn when it starts
        attributes["hyperparameters"] = dict(configuration.hyperparameters)
    if configuration.partial:
        attributes["partial"] = True
    return create_trial(
        state=state,
        params=dict(configuration.params),
        distributions={key: domains[key] for key in configuration.params},
        user_attrs={key: value for key, value in attributes.items() if value is not None},
        # Samplers note their half-made proposals for each other; this one is whole.
        system_attrs={key: value for key, value in (written or {}).items() if "relative_params" not in key},
    )


def blank(number: int, trial_id: int) -> FrozenTrial:
    """Return a running trial of which nothing is known yet."""
    now = create_trial(state=TrialState.RUNNING).datetime_start
    return FrozenTrial(
        number=number,
        trial_id=trial_id,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=now,
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )
