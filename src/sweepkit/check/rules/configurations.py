"""Hand-picked configurations: the baseline and what is enqueued must lie in the space. Knows no storage.

Used by the check of a study and by ``sweep enqueue``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sweepkit.check.rules.spaces import Occurrence, occurrences
from sweepkit.study import messages as phrases
from sweepkit.study.errors import Problem, nearest
from sweepkit.study.formulas import derive, satisfied
from sweepkit.study.parameters import Choice, Expression, Float, Int, contains
from sweepkit.study.study import StudyData


def check_configuration(study: StudyData, values: Mapping[str, Any], path: str) -> list[Problem]:
    """Return what is wrong with hand-picked values for some of the searched names; what is left out is sampled."""
    places = occurrences(study)
    return [
        Problem(f"{path}.{name}", wrong)
        for name, value in values.items()
        if (wrong := _outside(name, value, places, values, study))
    ]


def _outside(name: str, value: Any, places: list[Occurrence], values: Mapping[str, Any], study: StudyData) -> str:
    mine = [place for place in places if place.name == name]
    searched = [place for place in mine if isinstance(place.parameter, (Float, Int, Choice))]
    if not mine:
        if name in study.training or (name.startswith("task.") and name.removeprefix("task.") in study.task.options):
            return "is fixed by the study and not searched; leave it out"
        return (
            f"is not searched{nearest(name, {place.name for place in places}) or '; add it to space or leave it out'}"
        )
    if any(isinstance(place.parameter, Expression) for place in mine):
        return "is derived by an expression and cannot be set by hand"
    if not searched:
        choice = mine[0].conditions[-1][0].removeprefix("space.")
        return f"is set by the branches of {choice}; name a branch of that instead"
    if not any(contains(place.parameter, value) for place in searched):
        return f"lies outside the space: {either_domain(searched)}, got {phrases.show(value)}"
    for place in searched:
        if all(_agrees(condition, values) for condition in place.conditions):
            return ""
    choice, branch = next(condition for condition in searched[0].conditions if not _agrees(condition, values))
    return f"exists only where {choice.removeprefix('space.')} is {branch}"


def _agrees(condition: tuple[str, str], values: Mapping[str, Any]) -> bool:
    path, branch = condition
    given = [value for name, value in values.items() if path == f"space.{name}" or path.endswith(f".{name}")]
    return not given or branch in given


def either_domain(places: list[Occurrence]) -> str:
    """Return the domains of one name in words."""
    return phrases.either(domain(place.parameter) for place in places)


def domain(parameter: Float | Int | Choice) -> str:
    """Return a domain in words."""
    if isinstance(parameter, Choice):
        return f"one of {', '.join(str(value) for value in parameter.choices)}"
    step = f" in steps of {parameter.step}" if parameter.step not in (None, 1) else ""
    return f"low={parameter.low} to high={parameter.high}{step}"


def check_baseline(study: StudyData, known: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with the baseline, which takes a consumer's own default for each name it leaves out.

    Such a default must lie in its range. One that is not among the choices (or cannot be read from here) is trained all
    the same: what one would do without tuning is seldom on the list of what is tried.
    """
    given = study.baseline
    if given is None:
        return []
    problems = check_configuration(study, given, "baseline")
    if problems:
        return problems
    values: dict[str, Any] = {}
    problems = list(_completed(study.space, given, known, values))
    if problems:
        return problems
    try:
        said = {**known, **given}
        everything = {**said, **derive(study.space, values, said)}
        broken = [text for text in study.constraints if not satisfied([text], everything)]
    except ValueError:
        return []  # a formula that cannot be computed is told of as such
    return [
        Problem("baseline", f"breaks the constraint {text!r}; the baseline is a trial like any other")
        for text in broken
    ]


def _completed(
    level: Mapping[str, Any],
    given: Mapping[str, Any],
    known: Mapping[str, Any],
    values: dict[str, Any],
) -> Iterator[Problem]:
    """Fill ``values`` with the baseline's configuration; yield the names whose default lies outside the space."""
    for name, parameter in level.items():
        if not isinstance(parameter, (Float, Int, Choice)):
            if not isinstance(parameter, Expression):
                values[name] = parameter
            continue
        value = given[name] if name in given else known.get(name)
        if name not in given and name not in known and isinstance(parameter, Choice):
            value = default_branch(parameter, known)
        if not contains(parameter, value):
            if not isinstance(parameter, Choice) and isinstance(value, (int, float)):
                message = f"{name} must be named: its default {value} lies outside {domain(parameter)}"
                yield Problem("baseline", message)
            continue
        values[name] = value
        if isinstance(parameter, Choice) and parameter.branches:
            yield from _completed(parameter.branches[str(value)], given, known, values)


def default_branch(parameter: Choice, known: Mapping[str, Any]) -> str | None:
    """Return the branch of a group whose constants are the members' defaults, None where there is none."""
    for branch, children in parameter.branches.items():
        constants = {
            name: value for name, value in children.items() if not isinstance(value, (Float, Int, Choice, Expression))
        }
        if constants and all(name in known and known[name] == value for name, value in constants.items()):
            return branch
    return None
