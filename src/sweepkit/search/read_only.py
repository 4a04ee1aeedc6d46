"""What a sampler or a pruner gets to see of a study: a storage to read from. Knows neither sampler nor pruner.

What it writes about its own trial is kept aside (``written``), so that a trial is stored whole or not at all and a drawing
that was killed half-way leaves no trace that the next one could see. Trials that lack parameters of the space are left out,
for several samplers cannot digest them. ``goal`` shows one goal of several, for pruners know only one.
"""

from __future__ import annotations

import copy
from bisect import insort
from collections.abc import Collection, Container, Sequence
from typing import Any, NoReturn

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState


class View(BaseStorage):
    """A storage as the sampler or pruner of the trial ``own`` sees it."""

    def __init__(
        self, storage: BaseStorage, own: FrozenTrial, *, hidden: Collection[int] = (), goal: int | None = None
    ) -> None:
        self._storage = storage
        self.own = own
        """The trial it is all about."""
        self._hidden = frozenset(hidden)
        self._goal = goal
        self.written: dict[str, Any] = {}
        """System attributes that were set on the own trial."""

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

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return the trial as it may be seen."""
        own = trial_id == self.own._trial_id
        return self._seen(self.own if own else self._storage.get_trial(trial_id))

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the trials that may be seen, the own one among them as in Optuna's loop, stored or not."""
        left_out = self._hidden | {self.own.number}
        trials = [t for t in self._storage.get_all_trials(study_id, deepcopy, states) if t.number not in left_out]
        if states is None or self.own.state in states:
            insort(trials, self.own, key=lambda trial: trial.number)
        return [self._seen(trial) for trial in trials] if self._goal is not None or self.written else trials

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Keep aside what is written about the own trial; no other may be written."""
        if trial_id != self.own._trial_id:
            self._refuse()
        self.written[key] = value

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Write through: what is kept there follows from finished trials."""
        self._storage.set_study_system_attr(study_id, key, value)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Return the directions, or the one of ``goal``."""
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

    def get_all_studies(self) -> NoReturn:
        """Refuse: a sampler has no business with other studies."""
        self._refuse()

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> NoReturn:
        """Refuse."""
        self._refuse()

    def delete_study(self, study_id: int) -> NoReturn:
        """Refuse."""
        self._refuse()

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> NoReturn:
        """Refuse."""
        self._refuse()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> NoReturn:
        """Refuse."""
        self._refuse()

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> NoReturn:
        """Refuse."""
        self._refuse()

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> NoReturn:
        """Refuse."""
        self._refuse()

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> NoReturn:
        """Refuse."""
        self._refuse()

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> NoReturn:
        """Refuse."""
        self._refuse()

    @staticmethod
    def _refuse() -> NoReturn:
        raise NotImplementedError("samplers and pruners may only read, and note something about their own trial")
