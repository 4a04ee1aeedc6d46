"""Arithmetic over hyperparameters: expressions (derived values) and constraints."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from typing import Any

from sweepkit.study.names import UNSET, find, nest
from sweepkit.study.parameters import Expression
from sweepkit.study.space import visit

FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": abs,
    "float": float,
    "int": int,
    "max": max,
    "min": min,
    "round": round,
}
"""The functions an expression or a constraint may call."""


class FormulaError(ValueError):
    """A formula that cannot be computed."""

    def __init__(self, formula: str, cause: Exception, *, missing: bool) -> None:
        super().__init__(f"{formula!r} cannot be computed: {cause}")
        self.formula = formula
        self.missing = missing
        """Whether it uses a name that has no value."""


def expressions(space: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, str]:
    """Return name → expression for the derived names that exist in the configuration with these values."""
    found = visit(space, lambda choice: str(values.get(choice.name)))
    return {each.name: each.parameter.expression for each in found if isinstance(each.parameter, Expression)}


def ingredients(space: Mapping[str, Any]) -> frozenset[str]:
    """Return the undotted names in the space's expressions.

    Such a name may be searched without a consumer: ``one_minus_beta2``, for example, from which ``adam_beta2`` is derived.
    """
    found: set[str] = set()
    for each in visit(space):
        if isinstance(each.parameter, Expression):
            found |= {name.partition(".")[0] for name in names_in(each.parameter.expression)}
    return frozenset(found)


UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
"""What :func:`parse` raises for text that is not a formula."""


@lru_cache(maxsize=10_000)
def parse(formula: str) -> tuple[ast.expr, frozenset[str]]:
    """Return a formula's tree, and the names in it without the functions it calls."""
    body = ast.parse(formula.strip(), mode="eval").body
    called = {node.func for node in ast.walk(body) if isinstance(node, ast.Call)}
    return body, frozenset(_names(body, called))


def names_in(formula: str) -> frozenset[str]:
    """Return the names in a formula; none where it cannot be read, which check reports."""
    try:
        return parse(formula)[1]
    except UNREADABLE:
        return frozenset()


def _names(node: ast.AST, called: set[ast.expr]) -> Iterator[str]:
    if isinstance(node, (ast.Name, ast.Attribute)):
        if node not in called:
            yield ast.unparse(node)
        return
    if isinstance(node, ast.JoinedStr):
        raise ValueError("text is not computed")
    for child in ast.iter_child_nodes(node):
        yield from _names(child, called)


def evaluate(formula: str, values: Mapping[str, Any]) -> Any:
    """Return the formula's value; ``values`` may have dotted names. Raises FormulaError."""
    from simpleeval import DEFAULT_OPERATORS, AttributeDoesNotExist, NameNotDefined, SimpleEval

    try:
        body, names = parse(formula)
        used = {name: value for name in names if (value := find(values, name)) is not UNSET}
        operators = {**DEFAULT_OPERATORS, ast.Mod: _remainder, ast.Pow: _power}
        return SimpleEval(operators, dict(FUNCTIONS), nest(used)).eval(formula, body)
    except Exception as error:
        missing = isinstance(error, (NameNotDefined, AttributeDoesNotExist, KeyError))
        raise FormulaError(formula, error, missing=missing) from error


def _remainder(a: Any, b: Any) -> Any:
    if isinstance(a, str):  # Python would format it, to any length
        raise TypeError("text has no remainder")
    return a % b


def _power(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int) and abs(b) * a.bit_length() > _BITS:
        raise OverflowError(f"{a} ** {b} is too large")
    return a**b


_BITS = 4096
"""Size of the largest whole number that a power may have."""


def derive(space: Mapping[str, Any], values: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` with the derived names added; ``known`` has the fixed values and defaults.

    Expressions may use each other in any order. Raises FormulaError for a circle or an unknown name.
    """
    derived = expressions(space, values)
    visible = {**{name: value for name, value in known.items() if name not in derived}, **values}
    for name in _ordered(tuple(derived.items())):
        visible[name] = evaluate(derived[name], visible)
    return {**values, **{name: visible[name] for name in derived}}


@lru_cache(maxsize=1000)
def _ordered(derived: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """Return the derived names, each after those that its expression uses; as they are where these go in a circle."""
    needs = {name: names_in(expression) for name, expression in derived}
    try:
        return tuple(name for name in TopologicalSorter(needs).static_order() if name in needs)
    except CycleError:
        return tuple(needs)


def holds(constraint: str, values: Mapping[str, Any]) -> bool:
    """Return whether a constraint holds; one that uses a parameter missing from this configuration does.

    Raises FormulaError if it cannot be computed for another reason.
    """
    try:
        return bool(evaluate(constraint, values))
    except FormulaError as error:
        if error.missing:
            return True
        raise
