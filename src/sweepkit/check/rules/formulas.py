"""Expressions and constraints: that they parse, name what exists, give what their field takes, and can be met at all.

Draws configurations at random for that; knows no sampler.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from random import Random
from typing import Any

from sweepkit.check.rules.names import Consumers
from sweepkit.check.rules.values import mismatch
from sweepkit.study.errors import Problem, nearest
from sweepkit.study.formulas import FUNCTIONS, FormulaError, derive, evaluate
from sweepkit.study.parameters import Expression
from sweepkit.study.space import Occurrence, draw, visit
from sweepkit.study.study import StudyData

DRAWS = 200
"""Configurations drawn at random to see what a study's trials may look like."""
MORE_DRAWS = 2000
"""Drawn when not one of the first meets a constraint."""


@dataclass(frozen=True)
class Formula:
    """An expression or a constraint, with the names in it; ``problem`` where it cannot be read."""

    path: str
    text: str
    names: frozenset[str] = frozenset()
    problem: str = ""


def read(path: str, text: str, known: Mapping[str, Any] | set[str]) -> Formula:
    """Return the formula behind a text, names and functions checked."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Formula(path, text, problem=f"is no arithmetic expression, got {text!r}")
    called = {node.func for node in ast.walk(tree) if isinstance(node, ast.Call)}
    names = frozenset(_names(tree.body, called))
    for function in sorted(ast.unparse(each) for each in called):
        if function not in FUNCTIONS:
            return Formula(path, text, problem=f"there is no function {function}; there are {', '.join(FUNCTIONS)}")
    for name in sorted(names):
        if name not in known:
            return Formula(
                path, text, problem=f"nothing gives {name} a value{nearest(name, known) or '; name it in space'}"
            )
    return Formula(path, text, names)


def _names(node: ast.AST, called: set[ast.expr]) -> Iterator[str]:
    if isinstance(node, (ast.Name, ast.Attribute)):
        if node not in called:
            yield ast.unparse(node)
        return
    for child in ast.iter_child_nodes(node):
        yield from _names(child, called)


def draws(study: StudyData, known: Mapping[str, Any], count: int = DRAWS) -> list[dict[str, Any]]:
    """Return configurations drawn at random, over ``known`` values, derived ones included; the same ones each time.

    Raises FormulaError where an expression cannot be computed.
    """
    dice = Random(0)
    return [
        {**known, **derive(study.space, draw(study.space, lambda d: d.parameter.random(dice)), known)}
        for _ in range(count)
    ]


def check_formulas(study: StudyData, consumers: Consumers, known: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with the study's expressions and constraints."""
    places = list(visit(study.space))
    names = {*known, *(place.name for place in places)}
    derived = [
        (place, read(place.path, place.parameter.expression, names))
        for place in places
        if isinstance(place.parameter, Expression)
    ]
    constraints = [read(f"constraints[{index}]", text, names) for index, text in enumerate(study.constraints)]
    formulas = [*(formula for _, formula in derived), *constraints]
    problems = [Problem(formula.path, formula.problem) for formula in formulas if formula.problem]
    if problems or not formulas:
        return problems
    if circle := _circle(derived):
        return [circle]
    relevant = {name: known[name] for formula in formulas for name in formula.names if name in known}
    try:
        values = draws(study, relevant)
    except FormulaError as error:
        return [_incomputable(derived, relevant, error)]
    problems += _results(derived, consumers, values)
    return problems or list(_unmet(study, constraints, relevant, values))


def _circle(derived: list[tuple[Occurrence, Formula]]) -> Problem | None:
    graph: dict[str, set[str]] = {}
    for place, formula in derived:
        graph.setdefault(place.name, set()).update(formula.names)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = error.args[1]
        path = next(place.path for place, _ in derived if place.name in circle)
        return Problem(path, f"goes in a circle: {' needs '.join(reversed(circle))}")
    return None


def _incomputable(derived: list[tuple[Occurrence, Formula]], known: Mapping[str, Any], error: FormulaError) -> Problem:
    for place, formula in derived:
        if formula.text == error.formula:
            empty = [name for name in sorted(formula.names) if known.get(name, 0) is None]
            return Problem(place.path, _without_value(formula.text, empty) if empty else str(error))
    return Problem("space", str(error))


def _without_value(text: str, names: list[str]) -> str:
    return f"{text!r} cannot be computed: {names[0]} has no value unless the study gives it one"


def _results(
    derived: list[tuple[Occurrence, Formula]], consumers: Consumers, values: list[dict[str, Any]]
) -> Iterator[Problem]:
    for place, formula in derived:
        field, _ = consumers.resolve(place.name)
        for drawn in values:
            if field is None or place.name not in drawn:
                break
            if wrong := mismatch(place.name, field, drawn[place.name]):
                where = ", ".join(f"{name}={drawn[name]}" for name in sorted(formula.names))
                yield Problem(place.path, f"{wrong} from {formula.text!r}{f' with {where}' if where else ''}")
                break


def _unmet(
    study: StudyData, constraints: list[Formula], known: Mapping[str, Any], values: list[dict[str, Any]]
) -> Iterator[Problem]:
    try:
        met = _met(constraints, values)
        if met and not met[-1]:
            met = _met(constraints, draws(study, known, MORE_DRAWS))
    except _Incomputable as error:
        yield Problem(error.path, str(error))
        return
    never = [formula for formula, count in zip(constraints, met, strict=False) if not count]
    for formula in never:
        yield Problem(
            formula.path, f"not one of {MORE_DRAWS} configurations drawn from the space meets {formula.text!r}"
        )
    if met and not met[-1] and not never:
        yield Problem(
            "constraints", f"not one of {MORE_DRAWS} configurations drawn from the space meets all of them at once"
        )


class _Incomputable(ValueError):
    def __init__(self, path: str, message: str) -> None:
        self.path = path
        super().__init__(message)


def _met(constraints: list[Formula], values: list[dict[str, Any]]) -> list[int]:
    """How many configurations meet each constraint and, last, all of them; empty without constraints."""
    counts = [0] * (len(constraints) + 1) if constraints else []
    for drawn in values if constraints else ():
        everything = True
        for index, formula in enumerate(constraints):
            try:
                holds = bool(evaluate(formula.text, {name: drawn[name] for name in formula.names if name in drawn}))
            except ValueError as error:
                empty = [name for name in sorted(formula.names) if drawn.get(name, 0) is None]
                message = _without_value(formula.text, empty) if empty else str(error)
                raise _Incomputable(formula.path, message) from error
            counts[index] += holds
            everything = everything and holds
        counts[-1] += everything
    return counts
