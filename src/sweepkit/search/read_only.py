"""The storage that a sampler or pruner sees: read-only, so that a trial is stored whole or not at all.

What is set on its own trial stays in memory, system attributes in ``written``; a proposal that was killed halfway leaves no
trace in the real storage.
"""

from __future__ import annotations

import copy
from bisect import bisect_left
from collections.abc import Callable, Container
from typing import Any, NoReturn

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweepkit.search.private import trial_id as id_of


def _refuse(self: BaseStorage, *arguments: Any, **options: Any) -> NoReturn:
    """Raise NotImplementedError."""
    raise NotImplementedError("samplers, pruners and hp_space may only read, and set attributes of their own trial")


class ReadOnlyStorage(BaseStorage):
    """A storage as seen by the sampler or pruner of the trial ``own``.

    ``trials`` returns all stored trials that are seen, by number, with the values that count, as ``judged`` does for one.
    ``goal`` shows only one goal of several, as pruners support only one.
    """

    def __init__(
        self,
        storage: BaseStorage,
        own: FrozenTrial,
        *,
        trials: Callable[[], list[FrozenTrial]],
        judged: Callable[[FrozenTrial], FrozenTrial],
        goal: int | None = None,
    ) -> None:
        self._storage = storage
        self.own = own
        """The trial that is being proposed or judged."""
        self._goal = goal
        self._trials = trials
        self._judged = judged
        self.written: dict[str, Any] = {}
        """System attributes set on the own trial."""

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return one trial."""
        return self._seen(self.own if trial_id == id_of(self.own) else self._judged(self._storage.get_trial(trial_id)))

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the visible trials, among them the own one (as in Optuna's own loop), stored or not."""
        trials = self._trials()
        place = bisect_left(trials, self.own.number, key=lambda trial: trial.number)
        trials[place:] = [trial for trial in trials[place : place + 1] if trial.number != self.own.number] + trials[
            place + 1 :
        ]
        if self._goal is not None:
            trials = [self._seen(trial) for trial in trials]
        trials.insert(place, self._seen(self.own))
        found = trials if states is None else [trial for trial in trials if trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def through(self, trials: Callable[[], list[FrozenTrial]]) -> ReadOnlyStorage:
        """Return the same view of these trials alone."""
        narrowed = copy.copy(self)
        narrowed._trials = trials
        return narrowed

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Collect an attribute of the own trial; refuse any other trial's."""
        if trial_id != id_of(self.own):
            _refuse(self)
        self.written[key] = value

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set an attribute of the own trial, in memory."""
        if trial_id != id_of(self.own):
            _refuse(self)
        self.own.user_attrs[key] = value

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Set a parameter of the own trial, in memory."""
        if trial_id != id_of(self.own):
            _refuse(self)
        self.own.params[param_name] = distribution.to_external_repr(param_value_internal)
        self.own.distributions[param_name] = distribution

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Write through: samplers store there only what follows from finished trials."""
        self._storage.set_study_system_attr(study_id, key, value)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Return all directions, or only that of ``goal``."""
        directions = self._storage.get_study_directions(study_id)
        return directions if self._goal is None else [directions[self._goal]]

    def get_study_id_from_name(self, study_name: str) -> int:
        """Return the study's id."""
        return self._storage.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        """Return the study's name."""
        return self._storage.get_study_name_from_id(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the study's user attributes."""
        return self._storage.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the study's system attributes."""
        return self._storage.get_study_system_attrs(study_id)

    get_all_studies = _refuse
    create_new_study = _refuse
    delete_study = _refuse
    set_study_user_attr = _refuse
    create_new_trial = _refuse
    set_trial_state_values = _refuse
    set_trial_intermediate_value = _refuse

    def _seen(self, trial: FrozenTrial) -> FrozenTrial:
        own = trial.number == self.own.number
        if not (own and self.written) and (self._goal is None or not trial.values):
            return trial
        seen = copy.copy(trial)
        if own:
            seen.system_attrs = {**trial.system_attrs, **self.written}
        if self._goal is not None and trial.values:
            seen.values = [trial.values[self._goal]] if len(trial.values) > 1 else trial.values
        return seen
