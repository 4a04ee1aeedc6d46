"""Whether a value or a range suits the field that consumes it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from sweepkit.check.fields import Field
from sweepkit.check.fields.arguments import RATIOS, UNTYPED
from sweepkit.study import messages
from sweepkit.study.errors import Problem
from sweepkit.study.parameters import Choice, Expression, Float, Int
from sweepkit.study.space import visit
from sweepkit.study.study import StudyData

PARAMETER_KEYS = frozenset({"low", "high", "step", "log", "choices", "expression", "role"})


def is_ratio_field(name: str, field: Field) -> bool:
    """Whether a number below 1 means a ratio of all steps here, and one from 1 on a number of steps."""
    return name in RATIOS and "float" in field.kinds


def mismatch(name: str, field: Field, value: Any) -> str:
    """Return what is wrong with a value for a field, or nothing."""
    if not field.kinds:
        return ""
    accepted = field.kinds | UNTYPED.get(name, frozenset())
    kind = messages.kind_of(value)
    if kind == "float" and not math.isfinite(value):
        return f"expected a finite number, got {value}"
    if kind in ("int", "float") and is_ratio_field(name, field):
        return _ratio(value)
    if kind == "str" and "str" in accepted and field.choices and value not in field.choices:
        return f"expected {messages.one_of(field.choices, value)}, got {value}{messages.near(value, field.choices)}"
    if kind in accepted or (kind == "int" and "float" in accepted):
        return ""
    words = messages.kinds(accepted)
    hint = messages.quote_hint(value) if isinstance(value, str) else ""
    if field.choices and "str" in accepted:
        others = messages.kinds(accepted - {"str"}) if accepted - {"str"} else ""
        words = messages.either([messages.one_of(field.choices, str(value)), *([others] if others else [])])
    return f"expected {words}, got {messages.show(value)}{hint}"


def _ratio(value: float) -> str:
    if value < 0:
        return f"expected a ratio from 0 to below 1, or a whole number of steps, got {value}"
    if value >= 1 and not isinstance(value, int):
        return f"expected a ratio below 1, or a whole number of steps without a decimal point, got {value}"
    return ""


def range_mismatch(name: str, field: Field, parameter: Float | Int) -> str:
    """Return what is wrong with searching a field between low and high, or nothing."""
    accepted = field.kinds
    got = f"got low={parameter.low} and high={parameter.high}"
    if not accepted:
        return ""
    if not accepted & {"int", "float"}:
        instead = f"choices: [{', '.join(field.choices[:3])}, …]" if field.choices else "choices"
        instead = "choices: [true, false]" if "bool" in accepted else instead
        return f"expected {messages.kinds(accepted)}, {got}; search it with {instead}"
    if is_ratio_field(name, field):
        return _ratio_range(parameter, got)
    if "float" not in accepted and isinstance(parameter, Float):
        return f"takes whole numbers only, {got}; write them without a decimal point"
    return ""


def _ratio_range(parameter: Float | Int, got: str) -> str:
    low, high = parameter.low, parameter.high
    if low < 0:
        return f"low must not be below 0, {got}"
    if isinstance(parameter, Int):
        if high == 1:
            return f"from 1 on it is a whole number of steps, {got}; for a ratio write high: 0.99"
        return ""
    if high < 1:
        return ""
    if low >= 1:
        return f"from 1 on it is a whole number of steps, {got}; write them without a decimal point"
    return f"below 1 it is a ratio of all steps, from 1 on a number of steps, {got}; stay on one side"


def check_misplaced(study: StudyData) -> list[Problem]:
    """Return a problem for each range, choice or expression where it would be passed on as the value it is."""
    built_in = study.task.options if study.task.type is not None else {}
    places: list[tuple[str, Any, str]] = [
        ("training", study.training, "training holds fixed values; what is searched belongs in space"),
        ("task", built_in, "task holds fixed values; what is searched belongs in space, as task.NAME"),
        ("baseline", study.baseline, "expected one value of the space"),
        ("enqueue", study.enqueue, "expected one value of the space"),
    ]
    inside = "cannot be searched inside a value; search it by its dotted name, or whole values with choices: [{…}, {…}]"
    for each in visit(study.space):
        if isinstance(each.parameter, Choice) and not each.parameter.branches:
            places.append((f"{each.path}.choices", each.parameter.choices, inside))
        elif not isinstance(each.parameter, (Float, Int, Choice, Expression)):
            places.append((each.path, each.parameter, inside))
    return [Problem(found, message) for path, value, message in places for found in _ranges(path, value)]


def _ranges(path: str, value: Any) -> Iterator[str]:
    if isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _ranges(f"{path}[{index}]", inner)
    elif isinstance(value, Mapping):
        if value.keys() <= PARAMETER_KEYS and (
            {"low", "high"} <= value.keys() or value.keys() & {"choices", "expression"}
        ):
            yield path
            return
        for name, inner in value.items():
            yield from _ranges(f"{path}.{name}", inner)
