"""Whether a value, a range or a list of choices suits the field that will consume it; and the fit of number types.

Knows fields, not studies' files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sweepkit.check.fields import Field
from sweepkit.check.fields.arguments import RATIOS
from sweepkit.check.rules.names import Consumers, consumers_of
from sweepkit.study import messages as phrases
from sweepkit.study.parameters import Choice, Float, Int
from sweepkit.study.study import StudyData


def is_ratio_field(name: str, field: Field) -> bool:
    """Whether a number below 1 means a ratio of all steps here, and one from 1 on a number of steps."""
    return name in RATIOS and "float" in field.kinds


def mismatch(name: str, field: Field, value: Any) -> str:
    """Return what is wrong with a value for a field, or nothing."""
    accepted = field.kinds
    if not accepted:
        return ""
    kind = phrases.kind_of(value)
    if kind == "float" and not math.isfinite(value):
        return f"expected a finite number, got {value}"
    if kind in ("int", "float") and is_ratio_field(name, field):
        return _ratio(value)
    if kind == "str" and "str" in accepted and field.choices and value not in field.choices:
        return f"expected {phrases.one_of(field.choices, value)}, got {value}{phrases.near(value, field.choices)}"
    if kind in accepted or (kind == "int" and "float" in accepted):
        return ""
    words = phrases.kinds(accepted)
    hint = phrases.unquoted(value) if isinstance(value, str) else ""
    if field.choices and "str" in accepted:
        others = phrases.kinds(accepted - {"str"}) if accepted - {"str"} else ""
        words = phrases.either([phrases.one_of(field.choices, str(value)), *([others] if others else [])])
    return f"expected {words}, got {phrases.show(value)}{hint}"


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
        return f"expected {phrases.kinds(accepted)}, {got}; search it with {instead}"
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


def typed(study: StudyData, consumers: Consumers | None = None) -> StudyData:
    """Return the study with its numbers as their fields take them: whole numbers for a float field become floats.

    ``num_train_epochs: {low: 1, high: 5}`` becomes a Float; ``warmup_steps`` from 1 on stays a whole number of steps.
    """
    if consumers is None:
        consumers, _ = consumers_of(study)
    fitted = {
        "space": {name: _fit(name, parameter, consumers) for name, parameter in study.space.items()},
        "training": _fit_values(study.training, consumers),
        "baseline": None if study.baseline is None else _fit_values(study.baseline, consumers),
        "enqueue": [_fit_values(values, consumers) for values in study.enqueue],
    }
    return study.model_copy(update=fitted)


def _fit_values(values: Mapping[str, Any], consumers: Consumers) -> dict[str, Any]:
    return {name: _fit(name, value, consumers) for name, value in values.items()}


def _fit(name: str, value: Any, consumers: Consumers) -> Any:
    field, _ = consumers.resolve(name)
    floats = field is not None and "float" in field.kinds and not is_ratio_field(name, field)
    if field is not None and "int" in field.kinds:
        # ``float | int``, as model configurations write it: the default's type says which of the two is meant.
        floats = floats and isinstance(field.default, float)
    if isinstance(value, Int) and floats:
        step = float(value.step) if "step" in value.model_fields_set and not value.log else None
        return Float(low=float(value.low), high=float(value.high), step=step, log=value.log, role=value.role)
    if isinstance(value, Choice):
        choices: Any = (
            {branch: _fit_values(children, consumers) for branch, children in value.branches.items()}
            if value.branches
            else [_fit(name, each, consumers) for each in value.choices]
        )
        return value.model_copy(update={"choices": choices})
    if isinstance(value, int) and not isinstance(value, bool) and floats:
        return float(value)
    return value
