"""Arithmetic over hyperparameters: what a derived value is worth. Knows no sampler and no consumer."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from sweepkit.study.parameters import Expression
from sweepkit.study.space import visit


def expressions(space: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, str]:
    """Return name → expression text for the derived names that exist in this configuration.

    A value that is no branch (a baseline's default may lie outside the choices) brings none.
    """
    found = visit(space, lambda choice: str(values.get(choice.name)))
    return {each.name: each.parameter.expression for each in found if isinstance(each.parameter, Expression)}


def ingredients(space: Mapping[str, Any]) -> frozenset[str]:
    """Return the undotted names in the space's expressions.

    Such a name may be searched without a consumer: ``one_minus_beta2``, say, of which ``adam_beta2`` is made.
    """
    found: set[str] = set()
    for each in visit(space):
        if isinstance(each.parameter, Expression):
            try:
                tree = ast.parse(each.parameter.expression.strip(), mode="eval")
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                continue  # the check of expressions tells
            found |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return frozenset(found)


def evaluate(expression: str, values: Mapping[str, Any]) -> Any:
    """Return the expression's value; dotted names are looked up in ``values``.

    Raises ValueError when it is no expression, names something unknown, or cannot be computed.
    """
    from simpleeval import SimpleEval

    nested: dict[str, Any] = {}
    for name, value in values.items():
        *parents, leaf = name.split(".")
        level = nested
        for parent in parents:
            level = level.setdefault(parent, {})
        level[leaf] = value
    functions = {"min": min, "max": max, "round": round, "int": int, "float": float, "abs": abs}
    try:
        return SimpleEval(names=nested, functions=functions).eval(expression)
    except Exception as error:
        raise ValueError(f"{expression!r} cannot be computed: {error}") from error


def derive(space: Mapping[str, Any], values: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` with the derived names added; ``known`` are fixed values and defaults an expression may name.

    Expressions may use each other in any order. Raises ValueError for a circle or an unknown name.
    """
    result = dict(values)
    waiting = expressions(space, values)
    while waiting:
        error: ValueError | None = None
        before = len(waiting)
        for name, expression in list(waiting.items()):
            try:
                visible = {key: value for key, value in known.items() if key not in waiting}
                result[name] = evaluate(expression, {**visible, **result})
                del waiting[name]
            except ValueError as failure:
                error = failure
        if len(waiting) == before and error is not None:
            raise error
    return result


def satisfied(constraints: Sequence[str], values: Mapping[str, Any]) -> bool:
    """Whether every constraint holds for these values (searched, fixed and default ones together)."""
    return all(bool(evaluate(constraint, values)) for constraint in constraints)
