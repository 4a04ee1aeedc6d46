"""Rules of expressions and constraints: they parse, name what exists, suit their field, and can be met.

Configurations are drawn at random to see the latter.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from random import Random
from typing import Any

from sweepkit.check.rules.names import Consumers
from sweepkit.check.rules.values import mismatch
from sweepkit.study.errors import Problem, nearest
from sweepkit.study.formulas import FUNCTIONS, UNREADABLE, FormulaError, derive, evaluate, parse
from sweepkit.study.names import UNSET, find, inner_names
from sweepkit.study.parameters import Expression
from sweepkit.study.space import Occurrence, draw, visit
from sweepkit.study.study import StudyData

DRAWS = 200
"""Configurations drawn at random to see what trials may look like."""
_LENGTH = 1000
"""Characters of the longest formula."""
WORK = 20_000
"""Formulas that are computed at most, over all configurations; drawing ten values takes as long as one of them."""
MORE_DRAWS = 2000
"""Drawn where none of the first meets all constraints."""


@dataclass(frozen=True)
class Formula:
    """An expression or a constraint, with the names in it; ``problem`` where it cannot be read."""

    path: str
    text: str
    names: frozenset[str] = frozenset()
    problem: str = ""


def read(path: str, text: str, known: set[str] | None) -> Formula:
    """Return the formula in a text, its functions checked, and its names against the known ones unless None."""
    hint = "; write == to compare" if re.search(r"[^<>=!]=[^=]", text) else ""
    if len(text) > _LENGTH:
        return Formula(path, text, problem=f"is longer than {_LENGTH} characters")
    try:
        tree, names = parse(text)
        functions = sorted(ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))
    except UNREADABLE:
        return Formula(path, text, problem=f"is not an arithmetic expression, got {text[:80]!r}{hint}")
    for function in functions:
        if function not in FUNCTIONS:
            return Formula(path, text, problem=f"there is no function {function}; there are {', '.join(FUNCTIONS)}")
    for name in sorted(names) if known is not None else ():
        if known is not None and name not in known:
            return Formula(
                path, text, problem=f"nothing gives {name} a value{nearest(name, known) or '; name it in space'}"
            )
    return Formula(path, text, names)


def draws(study: StudyData, known: Mapping[str, Any], most: int = DRAWS) -> list[dict[str, Any]]:
    """Return configurations drawn at random, over ``known`` values, derived ones included; the same ones each time.

    There are fewer than ``most`` in a study of hundreds of names. Raises FormulaError where an expression cannot be computed.
    """
    dice = Random(0)
    names = [each.parameter for each in visit(study.space)]
    formulas = len(study.constraints) + sum(isinstance(each, Expression) for each in names)
    count = min(most, max(10, WORK // (1 + formulas + len(names) // 10)))
    return [
        {**known, **derive(study.space, draw(study.space, lambda d: d.parameter.random(dice)), known)}
        for _ in range(count)
    ]


def check_formulas(study: StudyData, consumers: Consumers, known: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with the study's expressions and constraints."""
    places = list(visit(study.space))
    names = None if consumers.open else {*known, *inner_names(known), *(place.name for place in places)}
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
    found = {name: find(known, name) for formula in formulas for name in formula.names}
    relevant = {name: value for name, value in found.items() if value is not UNSET}
    try:
        values = draws(study, relevant)
        return [*_results(derived, consumers, values)] or list(_unmet(study, constraints, relevant, values))
    except FormulaError as error:
        if error.missing and consumers.open:
            return []  # it may be one of the arguments that cannot be imported
        return [_incomputable(formulas, relevant, error)]


def _circle(derived: list[tuple[Occurrence, Formula]]) -> Problem | None:
    graph: dict[str, set[str]] = {}
    for place, formula in derived:
        graph.setdefault(place.name, set()).update(formula.names)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = error.args[1]
        path = next(place.path for place, _ in derived if place.name in circle)
        return Problem(path, f"refers to itself: {' needs '.join(reversed(circle))}")
    return None


def _incomputable(formulas: list[Formula], known: Mapping[str, Any], error: FormulaError) -> Problem:
    formula = next(each for each in formulas if each.text == error.formula)
    empty = [name for name in sorted(formula.names) if known.get(name, 0) is None]
    cause = (
        f"{formula.text!r} cannot be computed: {empty[0]} has no value unless the study gives it one" if empty else ""
    )
    return Problem(formula.path, cause or str(error))


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
    """Yield the constraints that no configuration drawn at random meets, or that none meets all of them."""
    met = [_met(constraints, drawn) for drawn in values]
    if any(map(all, met)):
        return
    met = [_met(constraints, drawn) for drawn in draws(study, known, MORE_DRAWS)]
    never = [formula for formula, held in zip(constraints, zip(*met, strict=True), strict=True) if not any(held)]
    unmet = f"not one of {len(met)} configurations drawn from the space meets"
    for formula in never:
        yield Problem(formula.path, f"{unmet} {formula.text!r}")
    if not never and not any(map(all, met)):
        yield Problem("constraints", f"{unmet} all of them at once")


def _met(constraints: list[Formula], values: Mapping[str, Any]) -> list[bool]:
    return [bool(evaluate(formula.text, values)) for formula in constraints]
