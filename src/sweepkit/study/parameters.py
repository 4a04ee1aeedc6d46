"""The kinds of hyperparameter: a float, an integer, a choice, or an expression over others.

A *label* is a value as a sampler sees it: numbers and other scalars as they are, anything else as JSON text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Tag, field_validator, model_validator

from sweepkit.study.names import keys_of

Scalar: TypeAlias = bool | int | float | str | None
Role: TypeAlias = Literal["scientific", "nuisance"]


class Section(BaseModel):
    """A section of a study file: frozen, strictly typed, without further keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, strict=True)


class _Numeric(Section):
    if TYPE_CHECKING:  # Float and Int document their own
        low: float
        high: float
        step: float | None
        log: bool

        @property
        def values(self) -> Sequence[float] | None: ...

    _type: ClassVar[type] = float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, high, step = self.low, self.high, self.step
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"low and high must be finite, got low={low} and high={high}")
        if low >= high:
            raise ValueError(f"low must be below high, got low={low} and high={high}")
        if self.log and low <= 0:
            raise ValueError(f"log needs low above 0, got low={low}")
        if self.log and step not in (None, 1):
            raise ValueError(f"log and step exclude each other, got step={step}")
        if step is not None and not 0 < step <= (high - low) * (1 + 1e-9):
            raise ValueError(f"step must be above 0 and at most high - low, got step={step}")
        return self

    def contains(self, value: Any) -> bool:
        """Return whether the value is a number in the range, on one of its steps."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            return False
        if self._type is int and value != int(value):
            return False
        if self.log or self.step is None:
            return True
        steps = (value - self.low) / self.step
        return math.isclose(steps, round(steps), abs_tol=1e-8)

    def share(self, value: float) -> float:
        """Return the value's position in the range (0: low, 1: high), in the logarithm with ``log``; the inverse of ``at``."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def at(self, share: float) -> float:
        """Return the value at a position in the range (0: low, 1: the highest), in the logarithm with ``log``.

        >>> Float(low=1e-4, high=1e-2, log=True).at(0.5), Float(low=0, high=1, step=0.4).at(1.0)
        (0.001, 0.8)
        >>> Int(low=1, high=9).at(1.0), Int(low=1, high=9, step=3).at(0.6)
        (9, 7)
        >>> Float(low=0, high=0.3, step=0.1).at(1.0)  # three steps add up to 0.30000000000000004
        0.3
        """
        value = self.real_at(share) if share > 0 else self.low
        if share > 0 and self.step and not self.log:
            value = self.low + math.floor((value - self.low) / self.step + 0.5) * self.step
            value = value if value <= self.high + 1e-9 * self.step else value - self.step
        return self._made(float(f"{value:.12g}") if share > 0 else value)

    def random(self, dice: Random) -> float:
        """Return a value drawn uniformly (in the logarithm with ``log``)."""
        if self.log or self.step is None:
            return self._made(self.real_at(dice.random()))
        low, high, step = (Decimal(repr(number)) for number in (self.low, self.high, self.step))
        value = low + step * dice.randrange(int((high - low) // step) + 1)
        return int(value) if self._type is int else float(value)

    def label(self, value: Any) -> float:
        """Return the value as a plain number of the range's type."""
        return int(value) if self._type is int else float(value)

    def real_at(self, share: float) -> float:
        """Return the real number at a position in the range, in the logarithm with ``log``, whether it is a value or not."""
        return self.low * (self.high / self.low) ** share if self.log else self.low + share * (self.high - self.low)

    def _made(self, value: float) -> float:
        """Return the value within the range and of its type."""
        value = min(max(value, self.low), self.high)
        return round(value) if self._type is int else float(value)


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

    @property
    def values(self) -> Sequence[float] | None:
        """All values, in order; None without a step."""
        if self.step is None or self.log:
            return None
        low, high, step = (Decimal(repr(number)) for number in (self.low, self.high, self.step))
        return [float(low + step * n) for n in range(int((high - low) // step) + 1)]


class Int(_Numeric):
    """A whole number between ``low`` and ``high``, both included."""

    _type: ClassVar[type] = int
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

    @property
    def values(self) -> Sequence[int]:
        """All values, in order."""
        return range(self.low, self.high + 1, self.step)


class Choice(Section):
    """One of a list of values, or one of several named branches, each with parameters and constants of its own."""

    choices: list[Any] | dict[str, dict[str, Parameter]]
    """A list of values; or branch → {name: parameter or constant}, which exist only in that branch."""
    role: Role = "scientific"
    """``scientific``: what the study asks about. ``nuisance``: tuned only so that the comparison is fair."""

    @field_validator("choices", mode="before")
    @classmethod
    def _flat(cls, choices: Any) -> Any:
        return flatten({"": {"choices": choices}})[""]["choices"]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if not self.choices:
            raise ValueError("choices is empty; give at least one value")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"choices has duplicate values, got {list(self.choices)}")
        return self

    @property
    def branches(self) -> Mapping[str, Mapping[str, Any]]:
        """Branch → its parameters and constants; empty for a plain list."""
        return self.choices if isinstance(self.choices, dict) else {}

    @property
    def labels(self) -> list[Scalar]:
        """All labels, in order."""
        plain = (bool, int, float, str, type(None))
        return [
            value if isinstance(value, plain) else json.dumps(value, sort_keys=True, default=str)
            for value in self.choices
        ]

    @property
    def values(self) -> Sequence[Scalar]:
        """All labels, in order."""
        return self.labels

    def contains(self, value: Any) -> bool:
        """Return whether the value is one of the choices."""
        return value in list(self.choices)

    def at(self, share: float) -> Scalar:
        """Return the label at a position in the list (0: first, 1: last).

        >>> Choice(choices=[8, 16]).at(0.9)
        16
        """
        labels = self.labels
        return labels[min(int(share * len(labels)), len(labels) - 1)]

    def share(self, label: Scalar) -> float:
        """Return a label's position in the list (0: first, 1: last)."""
        labels = self.labels
        return labels.index(label) / max(1, len(labels) - 1)

    def random(self, dice: Random) -> Scalar:
        """Return a label drawn uniformly."""
        return dice.choice(self.labels)

    def label(self, value: Any) -> Scalar:
        """Return the label of a value."""
        return self.labels[list(self.choices).index(value)]

    def value(self, label: Scalar) -> Any:
        """Return the value that a label stands for."""
        return list(self.choices)[self.labels.index(label)]


class Expression(Section):
    """A value computed from other hyperparameters; not searched."""

    expression: str
    """For example ``2 * peft.r``: numbers, names, + - * / // % **, comparisons, min, max, abs, round, int, float."""


Domain: TypeAlias = Float | Int | Choice
"""What a sampler can draw from."""


def contains(parameter: Any, value: Any) -> bool:
    """Return whether a value lies in a parameter's domain; for a constant, whether it equals it."""
    return parameter.contains(value) if isinstance(parameter, Domain) else bool(parameter == value)


def flatten(level: Mapping[str, Any], inside: str = "") -> dict[str, Any]:
    """Return a level of a space with the parameters inside mappings under dotted names; branches likewise.

    ``inside`` is the name of the mapping that the level stands in. Raises ValueError for a key that no name can hold, and for
    a name that is given twice.

    >>> flatten(
    ...     {"lr_scheduler_kwargs": {"min_lr_rate": {"low": 0.0, "high": 0.3}, "num_cycles": 2}, "optim_args": {"a": 1}}
    ... )
    {'lr_scheduler_kwargs.min_lr_rate': {'low': 0.0, 'high': 0.3}, 'lr_scheduler_kwargs.num_cycles': 2, 'optim_args': {'a': 1}}
    """
    result: dict[str, Any] = {}
    for key, entry in level.items():
        name = f"{inside}.{key}" if inside else key
        if inside and keys_of(name) != [*keys_of(inside), key]:
            raise ValueError(f"{inside}: a parameter inside a mapping needs a key of text without a dot, got {key!r}")
        choices = entry.get("choices") if isinstance(entry, Mapping) else None
        if isinstance(choices, Mapping):
            inner = {branch: flatten(each) if isinstance(each, Mapping) else each for branch, each in choices.items()}
            found = {name: {**entry, "choices": inner}}
        else:
            found = flatten(entry, name) if not is_parameter(entry) and _holds_parameter(entry) else {name: entry}
        if twice := found.keys() & result.keys():
            raise ValueError(f"{', '.join(sorted(twice))}: is given twice; keep one")
        result |= found
    return result


def _holds_parameter(value: Any) -> bool:
    inside = value.values() if isinstance(value, Mapping) else ()
    return any(is_parameter(each) or _holds_parameter(each) for each in inside)


def is_parameter(value: Any) -> bool:
    """Whether an entry of a space, as written or as an object, is a parameter and no constant."""
    return _kind(value) != "constant"


def _kind(value: Any) -> str:
    if isinstance(value, Float | Int | Choice | Expression):
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
"""An entry of a space: a parameter or, in a branch, a constant."""

Choice.model_rebuild()
