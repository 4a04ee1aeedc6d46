"""Whole configurations: drawn by a sampler, picked by hand, or the baseline. Knows no storage and no budget.

A sampler is asked with the study's own space, not with what Optuna infers from earlier trials, and branch by branch where
parameters are conditional; so a space may become wider between two runs, and one odd trial does not blind a sampler.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial
from simpleeval import AttributeDoesNotExist, NameNotDefined

from sweepkit.search.samplers import Grid, distribution, knowingly
from sweepkit.study.errors import InputError, nearest
from sweepkit.study.formulas import derive, evaluate, ingredients
from sweepkit.study.samplers import Together
from sweepkit.study.parameters import Choice, Expression, Int, Scalar, contains
from sweepkit.study.space import Dimension, axes, draw, walk
from sweepkit.study.study import StudyData


@dataclass(frozen=True)
class Configuration:
    """One configuration; ``params`` are a sampler's words, ``hyperparameters`` what is trained."""

    params: Mapping[str, Scalar]
    hyperparameters: Mapping[str, Any]
    name: str = ""
    """What a person calls it, where somebody named it."""
    partial: bool = False
    """Whether some value lies outside its domain, so that ``params`` lacks it and samplers must not see the trial."""

    @property
    def key(self) -> str:
        """The same for configurations that train the same."""
        return key_of(self.hyperparameters)


def key_of(hyperparameters: Mapping[str, Any]) -> str:
    """Return a text that is equal for equal hyperparameters."""
    return json.dumps(hyperparameters, sort_keys=True)


@dataclass
class Draw:
    """What one drawing asks a sampler, and what it has got so far."""

    sampler: BaseSampler
    study: optuna.Study
    trial: FrozenTrial
    drawn: dict[str, Any] = field(default_factory=dict)


class Proposer:
    """Makes configurations of one study; ``known`` are fixed values and consumers' defaults by name."""

    def __init__(self, study: StudyData, known: Mapping[str, Any]) -> None:
        self._study = study
        self._known = known
        self._axes = axes(study.space)
        self.distributions: dict[str, BaseDistribution] = {
            dimension.key: distribution(dimension.parameter) for dimension in self._axes.values()
        }
        self._groups = {
            name
            for _, name, parameter in walk(study.space)
            if isinstance(parameter, Choice) and parameter.branches and "." not in name and name not in known
        }
        made_of = ingredients(study.space)
        self._untrained = self._groups | {
            name
            for _, name, parameter in walk(study.space)
            if name in made_of and name not in known and not isinstance(parameter, Expression)
        }

    def sample(
        self, sampler: BaseSampler, study: optuna.Study, trial: FrozenTrial, fixed: Mapping[str, Any]
    ) -> Configuration | None:
        """Return a configuration as the sampler wants it; None when it has no more, or this one breaks a constraint."""
        draw_now = Draw(sampler, study, trial)
        trial.params, trial.distributions = {}, {}
        with knowingly():
            if isinstance(sampler, Grid):
                draw_now.drawn = sampler.sample_relative(study, trial, {})
                if not draw_now.drawn:
                    return None
            return self.configure(lambda dimension: self._ask(draw_now, dimension), self._implied(fixed))

    def baseline(self, named: Mapping[str, Any]) -> Configuration:
        """Return the baseline: what is named, and the consumers' defaults for the rest of the space.

        A default that lies outside its domain is trained all the same and left out of ``params``; a branch whose choice is
        left out leaves out its parameters, too.
        """
        said = {**self._known, **named}
        params: dict[str, Scalar] = {}
        values = dict(named)
        partial = False

        def visit(level: Mapping[str, Any], path: str) -> None:
            nonlocal partial
            for name, parameter in level.items():
                dimension = self._axes.get(f"{path}.{name}")
                if dimension is None:
                    if not isinstance(parameter, Expression):
                        values.setdefault(name, parameter)
                    continue
                if name in self._groups and name not in named and (branch := self._linked(parameter, said)):
                    values[name] = branch
                elif name in said:
                    values[name] = said[name]
                if name not in values or not contains(parameter, values[name]):
                    partial = True
                    continue
                value = values[name]
                params[dimension.key] = _label(dimension, value)
                if isinstance(parameter, Choice) and parameter.branches:
                    visit(parameter.branches[str(value)], f"{path}.{name}.{value}")

        visit(self._study.space, "space")
        try:
            values = {**derive(self._study.space, values, {**self._known, **values}), **named}
        except ValueError:
            pass  # an expression over something this baseline does not have; its consumer's default stands
        return Configuration(params, self._trained(values), partial=partial)

    def check(self, fixed: Mapping[str, Any]) -> None:
        """Raise InputError when a hand-picked configuration names or asks for something the space does not have."""
        names = {name for _, name, parameter in walk(self._study.space) if not isinstance(parameter, Expression)}
        for name, value in fixed.items():
            if name not in names:
                raise InputError(f"{name} is not searched by study {self._study.name}{nearest(name, names)}")
            domains = [p for _, other, p in walk(self._study.space) if other == name]
            if not any(contains(parameter, value) for parameter in domains):
                raise InputError(f"{name}: {value!r} lies outside the space")
        sampler = optuna.samplers.RandomSampler(seed=0)
        scratch = optuna.create_study(study_name="scratch", sampler=sampler)
        trial = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING)
        drawn = (self.sample(sampler, scratch, trial, fixed) for _ in range(1000))
        found = next((configuration for configuration in drawn if configuration is not None), None)
        if found is None:
            raise InputError(f"no configuration with {dict(fixed)} keeps the study's constraints")
        for name, value in fixed.items():
            if name not in self._untrained and found.hyperparameters.get(name) != value:
                raise InputError(f"{name}: {value!r} cannot be together with the other values of {dict(fixed)}")

    def configure(self, suggest: Callable[[Dimension], Scalar], fixed: Mapping[str, Any]) -> Configuration | None:
        """Return the configuration of these answers; None where it breaks a constraint."""
        params: dict[str, Scalar] = {}

        def answer(dimension: Dimension) -> Scalar:
            if dimension.key not in params:
                by_hand = dimension.name in fixed and contains(dimension.parameter, fixed[dimension.name])
                params[dimension.key] = _label(dimension, fixed[dimension.name]) if by_hand else suggest(dimension)
            return params[dimension.key]

        try:
            values = derive(self._study.space, draw(self._study.space, answer), self._known)
        except ValueError:
            return None
        visible = {**self._known, **values}
        if not all(_holds(constraint, visible) for constraint in self._study.constraints):
            return None
        return Configuration(params, self._trained(values))

    def _trained(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name not in self._untrained}

    def _ask(self, now: Draw, dimension: Dimension) -> Scalar:
        domain = self.distributions[dimension.key]
        if domain.single():
            return _only(dimension)
        if dimension.key not in now.drawn:
            together = {other.key: self.distributions[other.key] for other in self._together(dimension)}
            wanted = {key: d for key, d in together.items() if key not in now.drawn and not d.single()}
            if dimension.key in wanted:
                now.drawn |= now.sampler.sample_relative(now.study, now.trial, wanted)
        if dimension.key not in now.drawn:
            now.drawn[dimension.key] = now.sampler.sample_independent(now.study, now.trial, dimension.key, domain)
        answer = _plain(dimension, now.drawn[dimension.key])
        # As with Optuna's own suggestions: what is drawn next may depend on what was drawn before.
        now.trial.params[dimension.key], now.trial.distributions[dimension.key] = answer, domain
        return answer

    def _together(self, dimension: Dimension) -> Iterator[Dimension]:
        """Yield the dimensions that the study's sampler draws together with this one."""
        together = self._study.sampler.kind.draws_together(self._study.sampler.options)
        for other in self._axes.values():
            free = not (other.conditions or dimension.conditions)
            if (
                together is Together.everything
                or (together is Together.branch and other.conditions == dimension.conditions)
                or (together is Together.unconditional and free)
                or (together is Together.numbers and free and not isinstance(other.parameter, Choice))
            ):
                yield other

    def _implied(self, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``fixed`` with the branches in which its conditional and linked names exist."""
        result = dict(fixed)
        for dimension in self._axes.values():
            parameter = dimension.parameter
            if not isinstance(parameter, Choice) or dimension.name in result:
                continue
            inside = {branch: {n: p for _, n, p in walk(level)} for branch, level in parameter.branches.items()}
            wanted = {n for names in inside.values() for n in names if n in fixed and n not in self._study.space}
            for branch, names in inside.items():
                if wanted and all(n in names and contains(names[n], fixed[n]) for n in wanted):
                    result[dimension.name] = branch
                    break
        return result

    def _linked(self, group: Any, said: Mapping[str, Any]) -> str | None:
        """Return the branch of a group whose values are all as said."""
        for branch, children in group.branches.items():
            if all(name in said and contains(parameter, said[name]) for name, parameter in children.items()):
                return str(branch)
        return None


def _holds(constraint: str, values: Mapping[str, Any]) -> bool:
    """Whether a constraint holds; one over a parameter that this configuration does not have says nothing about it."""
    try:
        return bool(evaluate(constraint, values))
    except ValueError as error:
        return isinstance(error.__cause__, (NameNotDefined, AttributeDoesNotExist, KeyError))


def _label(dimension: Dimension, value: Any) -> Scalar:
    parameter = dimension.parameter
    if isinstance(parameter, Choice):
        return parameter.labels[list(parameter.choices).index(value)]
    return _plain(dimension, value)


def _only(dimension: Dimension) -> Scalar:
    parameter = dimension.parameter
    return parameter.labels[0] if isinstance(parameter, Choice) else parameter.low


def _plain(dimension: Dimension, value: Any) -> Scalar:
    """Return a sampler's answer as a plain Python value of the parameter's type."""
    parameter = dimension.parameter
    if isinstance(parameter, Choice):
        return parameter.labels[parameter.labels.index(value)]
    return int(value) if isinstance(parameter, Int) else float(value)
