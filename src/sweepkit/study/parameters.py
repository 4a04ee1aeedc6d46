"""What one hyperparameter may be: a float, an integer, a choice, or a value derived from others.

A *label* is a value as a sampler sees it: numbers and other scalars as they are, anything else as JSON text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from random import Random
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Tag, model_validator

Scalar: TypeAlias = bool | int | float | str | None
Role: TypeAlias = Literal["scientific", "nuisance"]


class _Parameter(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, strict=True)


class _Numeric(_Parameter):
    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, high, step, log = (getattr(self, name) for name in ("low", "high", "step", "log"))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"low and high must be finite, got low={low} and high={high}")
        if low >= high:
            raise ValueError(f"low must be below high, got low={low} and high={high}")
        if log and low <= 0:
            raise ValueError(f"log needs low above 0, got low={low}")
        if log and step not in (None, 1):
            raise ValueError(f"log and step exclude each other, got step={step}")
        if step is not None and not 0 < step <= (high - low) * (1 + 1e-9):
            raise ValueError(f"step must be above 0 and at most high - low, got step={step}")
        return self


class Float(_Numeric):
    """A real number between ``low`` and ``high``, both included."""

    low: float
    """Smallest value, included."""
    high: float
    """Largest value, included (with ``step``: the largest that a whole number of steps reaches)."""
    step: float | None = None
    """Distance between neighbouring values; excludes ``log``."""
    log: bool = False
    """Draw uniformly in the logarithm; needs ``low`` above 0."""
    role: Role = "scientific"
    """``scientific``: what the study asks about. ``nuisance``: tuned only so that the comparison is fair."""

    def contains(self, value: Any) -> bool:
        """Whether the value is a number in the range, on a step where there are steps."""
        return _in_range(self, value)

    def at(self, share: float) -> float:
        """Return the value at a share of the range (0: low, 1: high), of its logarithm with ``log``.

        >>> Float(low=1e-4, high=1e-2, log=True).at(0.5), Float(low=0, high=1, step=0.4).at(1.0)
        (0.001, 0.8)
        """
        return float(_value_at(self, share))

    def share(self, value: float) -> float:
        """Return where in the range a value lies, the inverse of :meth:`at`."""
        return _share_of(self, value)

    def random(self, dice: Random) -> float:
        """Return a value drawn uniformly (in the logarithm with ``log``)."""
        values = self.values
        return dice.choice(values) if values else float(_clamped(self, _scaled(self, dice.random())))

    @property
    def values(self) -> Sequence[float] | None:
        """Every value there is, where a step says so, else None."""
        if self.step is None or self.log:
            return None
        low, high, step = (Decimal(repr(number)) for number in (self.low, self.high, self.step))
        return [float(low + step * n) for n in range(int((high - low) // step) + 1)]

    def label(self, value: Any) -> float:
        """Return the value as a plain float."""
        return float(value)


class Int(_Numeric):
    """A whole number between ``low`` and ``high``, both included."""

    low: int
    """Smallest value, included."""
    high: int
    """Largest value, included."""
    step: int = 1
    """Distance between neighbouring values."""
    log: bool = False
    """Draw uniformly in the logarithm; needs ``low`` above 0."""
    role: Role = "scientific"
    """``scientific``: what the study asks about. ``nuisance``: tuned only so that the comparison is fair."""

    def contains(self, value: Any) -> bool:
        """Whether the value is a whole number in the range, on a step."""
        return _in_range(self, value) and value == int(value)

    def at(self, share: float) -> int:
        """Return the value at a share of the range (0: low, 1: the highest), of its logarithm with ``log``.

        >>> Int(low=1, high=9).at(1.0), Int(low=1, high=9, step=3).at(0.6)
        (9, 7)
        """
        return round(_value_at(self, share))

    def share(self, value: float) -> float:
        """Return where in the range a value lies, the inverse of :meth:`at`."""
        return _share_of(self, value)

    def random(self, dice: Random) -> int:
        """Return a value drawn uniformly (in the logarithm with ``log``)."""
        return round(_clamped(self, _scaled(self, dice.random()))) if self.log else dice.choice(self.values)

    @property
    def values(self) -> Sequence[int]:
        """Every value there is."""
        return range(self.low, self.high + 1, self.step)

    def label(self, value: Any) -> int:
        """Return the value as a plain integer."""
        return int(value)


class Choice(_Parameter):
    """One of a list of values, or one of several named branches that bring parameters and values of their own."""

    choices: list[Any] | dict[str, dict[str, Parameter]]
    """A list of values; or branch → {name: parameter or constant}: those exist only while this branch is chosen."""
    role: Role = "scientific"
    """``scientific``: what the study asks about. ``nuisance``: tuned only so that the comparison is fair."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if not self.choices:
            raise ValueError("choices is empty; name at least one value")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"choices holds a value twice, got {list(self.choices)}")
        return self

    @property
    def branches(self) -> Mapping[str, Mapping[str, Any]]:
        """Branch → its parameters and constants; empty for a plain list."""
        return self.choices if isinstance(self.choices, dict) else {}

    @property
    def labels(self) -> list[Scalar]:
        """The labels of all values, in order."""
        return [
            value if value is None or isinstance(value, (bool, int, float, str)) else json.dumps(value, sort_keys=True)
            for value in self.choices
        ]

    @property
    def values(self) -> Sequence[Scalar]:
        """Every label there is."""
        return self.labels

    def contains(self, value: Any) -> bool:
        """Whether the value is one of the choices."""
        return value in list(self.choices)

    def at(self, share: float) -> Scalar:
        """Return the label at a share of the list (0: the first, 1: the last).

        >>> Choice(choices=[8, 16]).at(0.9)
        16
        """
        labels = self.labels
        return labels[min(int(share * len(labels)), len(labels) - 1)]

    def share(self, label: Scalar) -> float:
        """Return where in the list a label stands, the inverse of :meth:`at`."""
        labels = self.labels
        return labels.index(label) / max(1, len(labels) - 1)

    def random(self, dice: Random) -> Scalar:
        """Return one of the labels."""
        return dice.choice(self.labels)

    def label(self, value: Any) -> Scalar:
        """Return the label of a value."""
        return self.labels[list(self.choices).index(value)]

    def value(self, label: Scalar) -> Any:
        """Return the value behind a label."""
        return list(self.choices)[self.labels.index(label)]


class Expression(_Parameter):
    """A value derived from other hyperparameters by arithmetic; not searched."""

    expression: str
    """For example ``2 * peft.r``: numbers, names, + - * / // % **, comparisons, min, max, abs, round, int, float."""


Domain: TypeAlias = Float | Int | Choice
"""What a sampler can draw from."""


def contains(parameter: Any, value: Any) -> bool:
    """Whether a value lies in a parameter's domain; for a constant: equals it."""
    return parameter.contains(value) if isinstance(parameter, Domain) else bool(parameter == value)


def _in_range(domain: Float | Int, value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not domain.low <= value <= domain.high:
        return False
    if domain.log or domain.step is None:
        return True
    steps = (value - domain.low) / domain.step
    return math.isclose(steps, round(steps), abs_tol=1e-8)


def _scaled(domain: Float | Int, share: float) -> float:
    low, high = domain.low, domain.high
    return low * (high / low) ** share if domain.log else low + share * (high - low)


def _clamped(domain: Float | Int, value: float) -> float:
    return min(max(value, domain.low), domain.high)


def _value_at(domain: Float | Int, share: float) -> float:
    if share <= 0:
        return domain.low
    value = _scaled(domain, share)
    if domain.step and not domain.log:
        value = domain.low + math.floor((value - domain.low) / domain.step + 0.5) * domain.step
        value = value if value <= domain.high else value - domain.step
    return _clamped(domain, float(f"{value:.12g}"))


def _share_of(domain: Float | Int, value: float) -> float:
    if domain.log:
        return math.log(value / domain.low) / math.log(domain.high / domain.low)
    return (value - domain.low) / (domain.high - domain.low)


def _kind(value: Any) -> str:
    if isinstance(value, _Parameter):
        return {Float: "float", Int: "int", Choice: "choice", Expression: "expression"}[type(value)]
    if isinstance(value, Mapping):
        if "expression" in value:
            return "expression"
        if "choices" in value:
            return "choice"
        if "low" in value or "high" in value:
            numbers = [value.get(key) for key in ("low", "high", "step") if value.get(key) is not None]
            return "int" if all(isinstance(n, int) for n in numbers) else "float"
    return "constant"


Parameter: TypeAlias = Annotated[
    Annotated[Float, Tag("float")]
    | Annotated[Int, Tag("int")]
    | Annotated[Choice, Tag("choice")]
    | Annotated[Expression, Tag("expression")]
    | Annotated[Any, Tag("constant")],
    Discriminator(_kind),
]
"""What may stand in a space: a parameter or, inside a branch, a constant that the branch sets."""

Choice.model_rebuild()
