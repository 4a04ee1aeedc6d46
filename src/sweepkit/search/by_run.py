"""A define-by-run space: a function ``hp_space(trial)`` that calls the trial's ``suggest_*``, as with Optuna itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import optuna
from optuna.samplers import BaseSampler, BruteForceSampler, GridSampler
from optuna.trial import FrozenTrial

from sweepkit.search.private import suggest, trial_id
from sweepkit.search.proposer import Proposer
from sweepkit.search.read_only import ReadOnlyStorage
from sweepkit.search.records import is_own
from sweepkit.search.samplers import Grid, distribution, quiet_optuna
from sweepkit.study.configurations import Configuration
from sweepkit.study.errors import InputError
from sweepkit.study.parameters import Choice, Float, Int
from sweepkit.study.study import StudyData


class DefinedByRun(Proposer):
    """Proposes by calling ``space`` with a trial whose suggestions come from the sampler.

    ``before``, which may suggest too, is called first, as ``model_init`` is in the Trainer's own search. Values under names for
    which ``applies`` is False are not trained. ``name`` gets the trial and what ``space`` returned. Where one of them raises
    TrialPruned or sets a constraint above 0, the trial is not trained but drawn again.
    """

    def __init__(
        self,
        study: StudyData,
        space: Callable[[Suggesting], Mapping[str, Any]],
        *,
        applies: Callable[[str], bool],
        before: Callable[[Suggesting], Any] | None = None,
        name: Callable[[Suggesting, Mapping[str, Any]], str] | None = None,
    ) -> None:
        super().__init__(study, {})
        self._space = space
        self._applies = applies
        self._before = before
        self._after = False
        """Whether ``before`` needs what ``space`` suggests, and so comes after it."""
        self._name = name
        self.sampler: BaseSampler | None = None
        """Replaces the study's sampler; the same object for all trials."""
        self.left: set[str] = set()
        """Names that ``space`` returned and that were not trained."""

    def sample(
        self, sampler: BaseSampler, study: optuna.Study, trial: FrozenTrial, fixed: Mapping[str, Any]
    ) -> Configuration | None:
        """Return the configuration that ``space`` builds from the sampler's suggestions; None where it is to be drawn again."""
        if isinstance(sampler, Grid):  # which combinations there are is not known
            sampler.end()
            return None
        study.sampler = self.sampler or sampler
        if isinstance(study.sampler, GridSampler) and study.sampler.is_exhausted(study):
            return None
        with quiet_optuna():
            suggesting = Suggesting.of(study, trial)
            try:
                if self._before is not None and not self._after and not self._model(suggesting):
                    suggesting = Suggesting.of(study, trial)
                values = dict(self._space(suggesting))
                if self._after:
                    self._model(suggesting)
            except optuna.TrialPruned:
                suggesting.withdraw()
                return None
        if any(value > 0 for value in suggesting.constraints.values()) or _repeated(study, suggesting):
            suggesting.withdraw()
            return None
        self.distributions |= suggesting.distributions
        used = {name: value for name, value in values.items() if self._applies(name)}
        self.left |= values.keys() - used.keys()
        name = self._name(suggesting, values) if self._name else ""
        return Configuration(dict(suggesting.params), used, name, attributes=suggesting.user_attrs)

    def _model(self, suggesting: Suggesting) -> bool:
        """Call ``before``, a last time if it suggests nothing; return whether it could do without what ``space`` suggests."""
        known = len(suggesting.params)
        try:
            if self._before is not None:
                self._before(suggesting)
        except _Unsuggested:
            if self._after:
                raise
            self._after = True
            suggesting.withdraw()
            return False
        if len(suggesting.params) == known:
            self._before = None
        return True


class _Unsuggested(KeyError):
    """A value is asked for that was not suggested yet."""


class _Params(dict[str, Any]):
    def __missing__(self, name: str) -> NoReturn:
        raise _Unsuggested(name)


class Suggesting(optuna.Trial):
    """The trial that ``hp_space`` gets: Optuna's own, over a storage that keeps what is set until the trial is stored whole."""

    @classmethod
    def of(cls, study: optuna.Study, trial: FrozenTrial) -> Suggesting:
        """Return the trial as one of which nothing was suggested yet."""
        trial.params, trial.distributions, trial.user_attrs, trial.system_attrs = {}, {}, {}, {}
        return cls(study, trial_id(trial))

    @property
    def params(self) -> dict[str, Any]:
        """What was suggested so far."""
        return _Params(super().params)

    def suggest(self, name: str, parameter: Float | Int | Choice) -> Any:
        """Return a value of one of sweepkit's parameters; a Choice must have plain values."""
        if isinstance(parameter, Choice):
            return self.suggest_categorical(name, list(parameter.choices))
        return suggest(self, name, distribution(parameter))

    def withdraw(self) -> None:
        """Forget what was set on the trial, which is drawn again."""
        assert isinstance(self.storage, ReadOnlyStorage)
        self.storage.written.clear()

    def set_user_attr(self, key: str, value: Any) -> None:
        """Set an attribute, which the stored trial has too."""
        if is_own(key):
            raise InputError(f"hp_space: set_user_attr: {key} is a name of sweepkit's own; choose another one")
        super().set_user_attr(key, value)

    def report(self, value: float, step: int) -> NoReturn:
        """Raise InputError: a trial is not trained yet where its hyperparameters are suggested."""
        raise InputError("hp_space: trial.report: the Trainer's evaluations are reported by themselves; leave it out")

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"hp_space: trial.{name}: Optuna's trial has no such attribute (any more)")


def _repeated(study: optuna.Study, trial: optuna.Trial) -> bool:
    """Whether a sampler that tries every combination once, and would then stop Optuna's own loop, has none left."""
    if not isinstance(study.sampler, BruteForceSampler):
        return False
    others = (each for each in study.get_trials(deepcopy=False) if each.number != trial.number)
    return any(each.params == trial.params for each in others)
