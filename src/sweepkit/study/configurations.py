"""Configurations: completed from a sampler's labels, from hand-picked values or for the baseline; and their problems."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from sweepkit.study.errors import InputError, Problem, nearest
from sweepkit.study.formulas import derive, holds, ingredients
from sweepkit.study.messages import either, show
from sweepkit.study.names import UNSET, find
from sweepkit.study.parameters import Choice, Domain, Expression, Scalar, contains
from sweepkit.study.space import Condition, Dimension, Occurrence, axes, branch_of, draw, labels, visit
from sweepkit.study.study import StudyData

TRIES = 1000
"""Random configurations drawn to find one that has the hand-picked values and meets the constraints."""


@dataclass(frozen=True)
class Configuration:
    """One configuration, as a sampler sees it and as it is trained."""

    params: Mapping[str, Scalar]
    """Dimension key → label."""
    hyperparameters: Mapping[str, Any]
    """Consumer's name → value, linked and derived ones included."""
    name: str = ""
    """Name given by the user, if any."""
    partial: bool = False
    """Whether a value lies outside its domain: ``params`` lacks it, and samplers must not see the trial."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """What a person's code noted on the trial that proposed it."""

    @property
    def key(self) -> str:
        """Equal for configurations with equal hyperparameters."""
        return key_of(self.hyperparameters)


def key_of(hyperparameters: Mapping[str, Any]) -> str:
    """Return a text that is equal for equal hyperparameters.

    >>> key_of({"a": 1, "b": 2.5}) == key_of({"b": 2.5, "a": 1})
    True
    """
    return json.dumps(hyperparameters, sort_keys=True, default=str)


class Configurations:
    """Makes and judges one study's configurations; ``known`` has fixed values and consumers' defaults by name."""

    def __init__(self, study: StudyData, known: Mapping[str, Any]) -> None:
        self._study = study
        self._known = known
        self._axes = axes(study.space)
        made_of = ingredients(study.space)
        self._untrained = {
            each.name
            for each in visit(study.space)
            if isinstance(each.parameter, Domain)
            and find(known, each.name) is UNSET
            and (each.name in made_of or (_branches(each) and "." not in each.name))
        }
        """Names that are drawn but have no consumer: groups, and ingredients of expressions."""

    def assemble(
        self, suggest: Callable[[Dimension], Scalar], fixed: Mapping[str, Any] | None = None
    ) -> Configuration | None:
        """Return the configuration with these labels; None if it breaks a constraint or cannot be computed.

        ``fixed`` values, by name, are used where the dimension's domain contains them, with the branches they need.
        """
        chosen = self._with_branches(fixed or {})
        params: dict[str, Scalar] = {}

        def answer(dimension: Dimension) -> Scalar:
            if dimension.key not in params:
                by_hand = dimension.name in chosen and dimension.parameter.contains(chosen[dimension.name])
                params[dimension.key] = (
                    dimension.parameter.label(chosen[dimension.name]) if by_hand else suggest(dimension)
                )
            return params[dimension.key]

        try:
            values = derive(self._study.space, draw(self._study.space, answer, self._axes), self._known)
        except ValueError:
            return None
        visible = {**self._known, **values}
        if not all(holds(constraint, visible) for constraint in self._study.constraints):
            return None
        return Configuration(params, self.with_consumer(values))

    def baseline(self, named: Mapping[str, Any]) -> Configuration:
        """Return the baseline: the named values, and the consumers' defaults for the rest of the space.

        A default outside its domain is used nevertheless, but missing from ``params``, as is whatever depends on it.
        """
        values, params, missing = self._completed(named)
        try:
            values = {**derive(self._study.space, values, {**self._known, **values}), **named}
        except ValueError:
            pass  # an expression over a missing value; its consumer's default applies
        return Configuration(params, self.with_consumer(values), partial=bool(missing))

    def baseline_problems(self) -> list[Problem]:
        """Return the problems of the study's baseline.

        A numeric default must lie in its range. One that is not among the choices is allowed: the setting that one would
        use without tuning need not be worth searching.
        """
        named = self._study.baseline
        if named is None:
            return []
        if problems := self.problems(named, "baseline"):
            return problems
        values, _, missing = self._completed(named)
        outside = [
            Problem(
                "baseline", f"{each.name} must be named: its default {value} lies outside {_domain(each.parameter)}"
            )
            for each in missing
            if not isinstance(each.parameter, Choice) and isinstance(value := values.get(each.name), (int, float))
        ]
        try:
            visible = {**self._known, **derive(self._study.space, values, {**self._known, **named})}
            broken = [text for text in self._study.constraints if not holds(text, visible)]
        except ValueError:
            return outside  # check reports expressions that cannot be computed
        return outside or [
            Problem("baseline", f"breaks the constraint {text!r}; the baseline is a trial like any other")
            for text in broken
        ]

    def baseline_notes(self) -> Iterator[str]:
        """Yield which values of the study's baseline lie outside of their choices, and what follows from it."""
        if self._study.baseline is None:
            return
        values, _, missing = self._completed(self._study.baseline)
        for each in missing:
            if isinstance(each.parameter, Choice):
                choices, given = ", ".join(map(str, each.parameter.choices)), values.get(each.name, "none of them")
                yield (
                    f"{each.name} is {given}, and its choices are {choices}; the baseline is trained as it is, but "
                    f"samplers do not learn from it, and figures of {each.name} leave it out"
                )

    def problems(self, values: Mapping[str, Any], path: str) -> list[Problem]:
        """Return the problems of hand-picked values for some of the searched names; the others are sampled."""
        found = ((name, self._problem(name, value, values)) for name, value in values.items())
        return [Problem(f"{path}.{name}", message) for name, message in found if message]

    def ensure_possible(self, values: Mapping[str, Any]) -> None:
        """Raise InputError if no configuration has these hand-picked values."""
        if problems := self.problems(values, ""):
            raise InputError("\n".join(f"{problem.path.removeprefix('.')}: {problem.message}" for problem in problems))
        dice = Random(0)
        draws = (self.assemble(lambda d: d.parameter.random(dice), values) for _ in range(TRIES))
        found = next((configuration for configuration in draws if configuration is not None), None)
        if found is None:
            raise InputError(f"no configuration with {dict(values)} meets the study's constraints")
        for name, value in values.items():
            if name not in self._untrained and found.hyperparameters.get(name) != value:
                raise InputError(f"{name}: {value!r} excludes other values of {dict(values)}")

    def _completed(self, named: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Scalar], list[Occurrence]]:
        """Return the baseline's values before expressions, its labels, and the occurrences without a label."""
        known = {**self._known, **named}
        values: dict[str, Any] = dict(named)
        missing: list[Occurrence] = []
        for each in visit(self._study.space, lambda choice: _linked(choice, known)):
            if isinstance(each.parameter, Expression):
                continue
            if not isinstance(each.parameter, Domain):
                values.setdefault(each.name, each.parameter)
                continue
            if (value := find(known, each.name)) is not UNSET:
                values[each.name] = value
            elif (branch := _linked(each, known)) is not None:
                values[each.name] = branch
            if each.name not in values or not each.parameter.contains(values[each.name]):
                missing.append(each)
        return values, labels(self._study.space, values), missing

    def _with_branches(self, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``fixed`` with the branches in which its conditional and linked names exist."""
        result = dict(fixed)
        for each in visit(self._study.space) if fixed else ():
            inside = {branch: list(visit(level)) for branch, level in _branches(each).items()}
            wanted = {inner.name for level in inside.values() for inner in level} & fixed.keys()
            if each.name in result or not wanted:
                continue
            for branch, level in inside.items():
                if all(any(i.name == name and contains(i.parameter, fixed[name]) for i in level) for name in wanted):
                    result[each.name] = branch
                    break
        return result

    def with_consumer(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that have a consumer."""
        return {name: value for name, value in values.items() if name not in self._untrained}

    def _problem(self, name: str, value: Any, values: Mapping[str, Any]) -> str:
        everywhere = list(visit(self._study.space))
        mine = [each for each in everywhere if each.name == name]
        searched = [each for each in mine if isinstance(each.parameter, Domain)]
        if not mine:
            if find(self._study.fixed, name) is not UNSET:
                return "is fixed by the study and not searched; leave it out"
            hint = nearest(name, {each.name for each in everywhere}) or "; add it to space or leave it out"
            return f"is not searched{hint}"
        if any(isinstance(each.parameter, Expression) for each in mine):
            return "is derived by an expression and cannot be set by hand"
        if not searched:
            return f"is set by the branches of {mine[0].conditions[-1].name}; name a branch of that instead"
        if not any(contains(each.parameter, value) for each in searched):
            return f"lies outside the space: {either(_domain(each.parameter) for each in searched)}, got {show(value)}"
        return _condition_problem(searched, values)


def _linked(choice: Occurrence, known: Mapping[str, Any]) -> str | None:
    """Return the branch of a choice that fits the known values; None if unknown."""
    if (value := find(known, choice.name)) is not UNSET:
        return branch_of(choice, {**known, choice.name: value})
    return branch_of(choice, known) if "." not in choice.name and _branches(choice) else None


def _condition_problem(searched: Iterable[Occurrence], values: Mapping[str, Any]) -> str:
    broken = [list(_broken_conditions(each.conditions, values)) for each in searched]
    if not all(broken):
        return ""
    return f"exists only where {broken[0][0].name} is {broken[0][0].branch}"


def _broken_conditions(conditions: Iterable[Condition], values: Mapping[str, Any]) -> Iterator[Condition]:
    for condition in conditions:
        if values.get(condition.name, condition.branch) != condition.branch:
            yield condition


def _branches(each: Occurrence) -> Mapping[str, Mapping[str, Any]]:
    return each.parameter.branches if isinstance(each.parameter, Choice) else {}


def _domain(domain: Domain) -> str:
    if isinstance(domain, Choice):
        return f"one of {', '.join(str(value) for value in domain.choices)}"
    step = f" in steps of {domain.step}" if domain.step not in (None, 1) else ""
    return f"low={domain.low} to high={domain.high}{step}"
