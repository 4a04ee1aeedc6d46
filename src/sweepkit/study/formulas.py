"""Arithmetic over hyperparameters: expressions (derived values) and constraints."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

from sweepkit.study.names import nest
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
            try:
                tree = ast.parse(each.parameter.expression.strip(), mode="eval")
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                continue  # check reports it
            found |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return frozenset(found)


def evaluate(formula: str, values: Mapping[str, Any]) -> Any:
    """Return the formula's value; ``values`` may have dotted names. Raises FormulaError."""
    from simpleeval import DEFAULT_OPERATORS, AttributeDoesNotExist, NameNotDefined, SimpleEval

    try:
        operators = {**DEFAULT_OPERATORS, ast.Mod: _remainder, ast.Pow: _power}
        evaluator = SimpleEval(operators, dict(FUNCTIONS), nest(values))
        evaluator.nodes.pop(ast.JoinedStr)
        return evaluator.eval(formula)
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
    result = dict(values)
    waiting = expressions(space, values)
    while waiting:
        failure: FormulaError | None = None
        before = len(waiting)
        for name, expression in list(waiting.items()):
            try:
                visible = {key: value for key, value in known.items() if key not in waiting}
                result[name] = evaluate(expression, {**visible, **result})
                del waiting[name]
            except FormulaError as error:
                failure = error
        if len(waiting) == before and failure is not None:
            raise failure
    return result


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
