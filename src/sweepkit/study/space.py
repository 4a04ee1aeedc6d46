"""The space of a study: its traversal, the dimensions that a sampler sees, and the configurations drawn from it.

A *name* is what a consumer calls a value (``learning_rate``, ``model.dropout``, ``peft.r``, ``task.max_length``). A
*dimension* is what a sampler sees. Its key is the name, prefixed by its conditions if two branches use the name with
different domains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from sweepkit.study.names import is_inside
from sweepkit.study.parameters import Choice, Domain, Expression, Parameter, Scalar, contains

Space: TypeAlias = dict[str, Parameter]


@dataclass(frozen=True)
class Condition:
    """A choice and the branch it must have."""

    path: str
    """Path of the choice, for example ``space.optim``."""
    name: str
    branch: str


@dataclass(frozen=True)
class Occurrence:
    """One place in the space where a name gets a value."""

    path: str
    """For example ``space.optim.adamw_torch.adam_beta2``."""
    name: str
    parameter: Any
    """A parameter, or a branch's constant."""
    conditions: tuple[Condition, ...] = ()
    """Conditions under which it exists, outermost first."""

    def excludes(self, other: Occurrence) -> bool:
        """Return whether no configuration has both."""
        mine = {condition.path: condition.branch for condition in self.conditions}
        return any(mine.get(condition.path, condition.branch) != condition.branch for condition in other.conditions)


@dataclass(frozen=True, kw_only=True)
class Dimension(Occurrence):
    """One dimension that a sampler sees."""

    key: str
    parameter: Domain


def visit(space: Mapping[str, Any], choose: Callable[[Occurrence], str | None] | None = None) -> Iterator[Occurrence]:
    """Yield every occurrence in the space, depth first, parents before children.

    With ``choose``, only one configuration is visited: ``choose`` returns the branch of each choice with branches, right
    after that choice was yielded. None, or an unknown branch, skips the choice's children.
    """

    def level(names: Mapping[str, Any], path: str, conditions: tuple[Condition, ...]) -> Iterator[Occurrence]:
        for name, parameter in names.items():
            here = Occurrence(f"{path}.{name}", name, parameter, conditions)
            yield here
            branches = parameter.branches if isinstance(parameter, Choice) else {}
            for branch in branches if choose is None or not branches else [choose(here)]:
                if branch is not None and branch in branches:
                    inner = (*conditions, Condition(here.path, name, branch))
                    yield from level(branches[branch], f"{here.path}.{branch}", inner)

    return level(space, "space", ())


def spread(space: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return hand-picked values by the space's names: a mapping with searched keys becomes one value for each key."""
    places, result = list(visit(space)), dict[str, Any]()
    for name, value in values.items():
        whole = any(each.name == name and contains(each.parameter, value) for each in places)
        if isinstance(value, Mapping) and not whole and any(is_inside(each.name, name) for each in places):
            result |= spread(space, {f"{name}.{key}": inner for key, inner in value.items()})
        else:
            result[name] = value
    return result


def axes(space: Mapping[str, Any]) -> dict[str, Dimension]:
    """Return path → dimension; occurrences of a name with equal domains share a key."""
    found = [occurrence for occurrence in visit(space) if isinstance(occurrence.parameter, Domain)]
    domains: dict[str, list[Domain]] = {}
    for each in found:
        domains.setdefault(each.name, []).append(each.parameter)
    result: dict[str, Dimension] = {}
    for each in found:
        differs = any(other != each.parameter for other in domains[each.name])
        parts = [f"{condition.name}={condition.branch}" for condition in each.conditions if differs]
        result[each.path] = Dimension(**vars(each), key="/".join([*parts, each.name]))
    return result


def dimensions(space: Mapping[str, Any]) -> dict[str, Dimension]:
    """Return key → dimension, parents before children."""
    result: dict[str, Dimension] = {}
    for dimension in axes(space).values():
        result.setdefault(dimension.key, dimension)
    return result


def draw(
    space: Mapping[str, Any],
    suggest: Callable[[Dimension], Scalar],
    dimension_at: Mapping[str, Dimension] | None = None,
) -> dict[str, Any]:
    """Return name → value for one configuration; ``suggest`` returns the label of each dimension that exists in it.

    ``dimension_at`` is what :func:`axes` returned, for who draws often.

    Includes branch constants and the branches of choices without a consumer, but no expressions (see
    :func:`sweepkit.study.formulas.derive`).
    """
    dimension_at = dimension_at or axes(space)
    values: dict[str, Any] = {}
    for each in visit(space, lambda choice: str(values[choice.name])):
        if isinstance(each.parameter, Domain):
            label = suggest(dimension_at[each.path])
            values[each.name] = each.parameter.value(label) if isinstance(each.parameter, Choice) else label
        elif not isinstance(each.parameter, Expression):
            values[each.name] = each.parameter
    return values


def labels(space: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return dimension key → label for the configuration with these values; the inverse of :func:`draw`.

    Leaves out dimensions without a value or with one outside their domain, and whatever depends on them.
    """
    dimension_at = axes(space)
    result: dict[str, Scalar] = {}
    for each in visit(space, lambda choice: branch_of(choice, values)):
        parameter = each.parameter
        if isinstance(parameter, Domain):
            branching = isinstance(parameter, Choice) and parameter.branches
            value = branch_of(each, values) if branching else values.get(each.name, _MISSING)
            if parameter.contains(value):
                result[dimension_at[each.path].key] = parameter.label(value)
    return result


def branch_of(choice: Occurrence, values: Mapping[str, Any]) -> str | None:
    """Return the branch of a choice that fits these values; None if none does.

    It is the choice's own value, if there is one. A group has no consumer and so no value: its branch is the first whose
    contents agree with the values, else the first whose constants do.
    """
    parameter: Choice = choice.parameter
    if choice.name in values:
        value = values[choice.name]
        return str(value) if parameter.contains(value) else None
    for agree in (_contents_agree, _constants_agree):
        for branch, children in parameter.branches.items():
            if agree(children, values):
                return branch
    return None


def _contents_agree(children: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    return all(
        contains(parameter, values[name])
        if name in values
        else isinstance(parameter, Choice) and bool(parameter.branches)  # a group inside the group
        for name, parameter in children.items()
        if not isinstance(parameter, Expression)
    )


def _constants_agree(children: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    constants = {name: child for name, child in children.items() if not isinstance(child, Domain | Expression)}
    return bool(constants) and all(name in values and values[name] == child for name, child in constants.items())


def trial_seed(seed: int, number: int) -> int:
    """Return the seed of one trial's sampler, from the study's seed and the trial's number."""
    import numpy

    return int(numpy.random.SeedSequence([seed, number]).generate_state(1)[0])


_MISSING = object()
