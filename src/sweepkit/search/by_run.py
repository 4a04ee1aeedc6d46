"""A define-by-run space: a function ``hp_space(trial)`` that calls the trial's ``suggest_*``, as with Optuna itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from sweepkit.search.proposer import Proposer
from sweepkit.search.samplers import distribution, quiet_optuna
from sweepkit.study.configurations import Configuration
from sweepkit.study.parameters import Choice, Float, Int
from sweepkit.study.study import StudyData


class DefinedByRun(Proposer):
    """Proposes by calling ``space`` with a trial whose suggestions come from the sampler.

    Values under names for which ``applies`` is False are not trained. ``name`` gets the trial and what ``space`` returned.
    """

    def __init__(
        self,
        study: StudyData,
        space: Callable[[Suggesting], Mapping[str, Any]],
        *,
        applies: Callable[[str], bool],
        name: Callable[[Suggesting, Mapping[str, Any]], str] | None = None,
        sampler: BaseSampler | None = None,
    ) -> None:
        super().__init__(study, {})
        self._space = space
        self._applies = applies
        self._name = name
        self._own = sampler
        self.left: set[str] = set()
        """Names that ``space`` returned and that were not trained."""

    def sample(
        self, sampler: BaseSampler, study: optuna.Study, trial: FrozenTrial, fixed: Mapping[str, Any]
    ) -> Configuration | None:
        """Return the configuration that ``space`` builds from the sampler's suggestions."""
        suggesting = Suggesting(self._own or sampler, study, trial, self.distributions)
        with quiet_optuna():
            values = dict(self._space(suggesting))
        used = {name: value for name, value in values.items() if self._applies(name)}
        self.left |= values.keys() - used.keys()
        return Configuration(dict(suggesting.params), used, self._name(suggesting, values) if self._name else "")


class Suggesting:
    """The trial that ``hp_space`` gets: Optuna's ``suggest_*`` methods, backed by the study's sampler."""

    def __init__(
        self, sampler: BaseSampler, study: optuna.Study, trial: FrozenTrial, distributions: dict[str, BaseDistribution]
    ) -> None:
        self._sampler = sampler
        self._study = study
        self._trial = trial
        self._distributions = distributions
        self.number = trial.number
        self.params: dict[str, Any] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return a number between low and high, both included."""
        return float(self._suggest(name, FloatDistribution(low, high, log=log, step=step)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Return a whole number between low and high, both included."""
        return int(self._suggest(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of the choices."""
        return self._suggest(name, CategoricalDistribution(choices))

    def suggest(self, name: str, parameter: Float | Int | Choice) -> Any:
        """Return a value of one of sweepkit's parameters; a Choice must have plain values."""
        if isinstance(parameter, Choice):
            return self.suggest_categorical(name, list(parameter.choices))
        return self._suggest(name, distribution(parameter))

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if name not in self.params:
            self._distributions[name] = distribution
            drawn = self._sampler.sample_independent(self._study, self._trial, name, distribution)
            self.params[name] = drawn.item() if hasattr(drawn, "item") else drawn
        return self.params[name]
