"""Names and domains: who consumes what is fixed or searched, groups, names with two values. Draws nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sweepkit.check.fields import Field
from sweepkit.check.rules.names import Consumers
from sweepkit.check.rules.values import mismatch, range_mismatch
from sweepkit.study import messages as phrases
from sweepkit.study.errors import Problem, nearest
from sweepkit.study.formulas import ingredients
from sweepkit.study.parameters import Choice, Expression, Float, Int
from sweepkit.study.space import Occurrence, visit
from sweepkit.study.study import StudyData

_SEEDS = frozenset({"seed", "data_seed"})
_SEARCHED = frozenset({"low", "high", "choices", "expression"})


def check_names(study: StudyData, consumers: Consumers) -> list[Problem]:
    """Return what is wrong with the names and values in ``training`` and ``space``."""
    problems = [*_training(study, consumers)]
    seen: list[Occurrence] = []
    for found in visit(study.space):
        problems += _one(found, study, consumers)
        twin = next((other for other in seen if other.name == found.name and not found.excludes(other)), None)
        if twin is not None:
            problems.append(
                Problem(found.path, f"has a value in {twin.path} already, in the same configuration; keep one")
            )
        seen.append(found)
    return problems


def _training(study: StudyData, consumers: Consumers) -> Iterator[Problem]:
    for name, value in study.training.items():
        path = f"training.{name}"
        if name.startswith("task."):
            yield Problem(path, f"fixed options of the task belong in task; write {name.removeprefix('task.')} there")
            continue
        field, complaint = consumers.resolve(name)
        if field is None:
            yield Problem(path, complaint)
        elif isinstance(value, dict) and "dict" not in field.kinds and _SEARCHED & set(value):
            yield Problem(path, "training holds fixed values; what is searched belongs in space")
        elif wrong := mismatch(name, field, value):
            yield Problem(path, wrong)


def _one(found: Occurrence, study: StudyData, consumers: Consumers) -> Iterator[Problem]:
    path, name, parameter = found.path, found.name, found.parameter
    if name in _SEEDS:
        advice = "write seed_per_trial: true to vary it, or confirm: to measure what it does"
        yield Problem(path, f"the seed is the same for every trial and is not searched; {advice}")
        return
    field, complaint = consumers.resolve(name)
    if field is None:
        if (
            isinstance(parameter, Choice)
            and parameter.branches
            and complaint.startswith("is no TrainingArguments field")
        ):
            yield from _group(found, parameter, consumers)
        elif name not in ingredients(study.space) or not consumers.is_free(name) or isinstance(parameter, Expression):
            yield Problem(path, complaint)
        return
    if name in study.training:
        yield Problem(path, f"is also fixed in training, to {phrases.show(study.training[name])}; keep one of the two")
    if name.startswith("task.") and (option := name.removeprefix("task.")) in study.task.options:
        yield Problem(
            path, f"is also fixed in task, to {phrases.show(study.task.options[option])}; keep one of the two"
        )
    yield from (Problem(path, wrong) for wrong in _domain(name, field, parameter))


def _domain(name: str, field: Field, parameter: Any) -> Iterator[str]:
    if isinstance(parameter, (Float, Int)):
        if wrong := range_mismatch(name, field, parameter):
            yield wrong
    elif isinstance(parameter, Choice) and parameter.branches and field.kinds and "str" not in field.kinds:
        yield (
            f"expected {phrases.kinds(field.kinds)}, but branches name texts; to link values to it, give the choice "
            f"a name of its own and set {name} in each branch"
        )
    elif isinstance(parameter, Choice):
        yield from filter(None, (mismatch(name, field, value) for value in parameter.choices))
    elif not isinstance(parameter, Expression) and (wrong := mismatch(name, field, parameter)):
        yield wrong


def _group(found: Occurrence, parameter: Choice, consumers: Consumers) -> Iterator[Problem]:
    """A choice with branches whose name nothing consumes links values, so each branch must set some."""
    meant = consumers.resembles(found.name)
    if meant is None:
        known = [name for name in consumers.names() if set(parameter.branches) <= set(_texts(consumers, name))]
        meant = known[0] if known else None
    if meant is not None:
        yield Problem(found.path, f"is no TrainingArguments field; did you mean {meant}?")
        return
    for branch, children in parameter.branches.items():
        if not children:
            yield Problem(
                f"{found.path}.{branch}",
                f"sets nothing; {found.name} is no hyperparameter but a group of linked values, "
                f"and each branch must set some{nearest(found.name, consumers.names())}",
            )


def _texts(consumers: Consumers, name: str) -> tuple[str, ...]:
    field, _ = consumers.resolve(name)
    return field.choices if field is not None else ()
