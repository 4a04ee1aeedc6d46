"""What may vary: parameters, conditional and linked choices, derived values, constraints. Knows no sampler, no
consumer.

A *name* is what a consumer calls the value (``learning_rate``, ``model.dropout``, ``peft.r``, ``task.max_length``). A
*dimension* is what a sampler sees; it bears the name, prefixed by its condition where two branches use the same name
with different domains.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Tag, model_validator

Scalar: TypeAlias = bool | int | float | str | None
Role: TypeAlias = Literal["scientific", "nuisance"]


class _Parameter(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, strict=True)


class _Numeric(_Parameter):
    @model_validator(mode="after")
    def _ordered(self) -> _Numeric:
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


class Choice(_Parameter):
    """One of a list of values, or one of several named branches that bring parameters and values of their own."""

    choices: list[Any] | dict[str, dict[str, Domain]]
    """A list of values; or branch → {name: parameter or constant}: those exist only while this branch is chosen."""
    role: Role = "scientific"
    """``scientific``: what the study asks about. ``nuisance``: tuned only so that the comparison is fair."""

    @model_validator(mode="after")
    def _some(self) -> Choice:
        if not self.choices:
            raise ValueError("choices is empty; name at least one value")
        labels = self.labels
        if len(set(labels)) != len(labels):
            raise ValueError(f"choices holds a value twice, got {list(self.choices)}")
        return self

    @property
    def branches(self) -> Mapping[str, Mapping[str, Any]]:
        """Branch → its parameters; empty for a plain list."""
        return self.choices if isinstance(self.choices, dict) else {}

    @property
    def labels(self) -> list[Scalar]:
        """The values as a sampler sees them: scalars as they are, anything else as JSON text."""
        return [
            value if value is None or isinstance(value, (bool, int, float, str)) else json.dumps(value, sort_keys=True)
            for value in self.choices
        ]

    def value_of(self, label: Scalar) -> Any:
        """Return the value behind a label."""
        return list(self.choices)[self.labels.index(label)]


class Expression(_Parameter):
    """A value derived from other hyperparameters by arithmetic; not searched."""

    expression: str
    """For example ``2 * peft.r``: numbers, names, + - * / // % **, comparisons, min, max, abs, round, int, float."""


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
Domain: TypeAlias = Parameter
"""What may stand inside a branch: a parameter, or a constant that the branch sets."""

Choice.model_rebuild()

Space: TypeAlias = dict[str, Parameter]


@dataclass(frozen=True)
class Dimension:
    """One axis that a sampler sees; ``path`` is where it stands: ``space.optim.adamw_torch.adam_beta2``."""

    key: str
    name: str
    parameter: Float | Int | Choice
    path: str
    conditions: tuple[tuple[str, str], ...] = ()
    """(dimension key, branch) pairs that must hold for it to exist."""


def walk(space: Mapping[str, Any], path: str = "space") -> Iterator[tuple[str, str, Any]]:
    """Yield (path, name, parameter or constant) for everything in the space, branches included, depth first."""
    for name, parameter in space.items():
        yield f"{path}.{name}", name, parameter
        if isinstance(parameter, Choice):
            for branch, children in parameter.branches.items():
                yield from walk(children, f"{path}.{name}.{branch}")


def axes(space: Mapping[str, Any]) -> dict[str, Dimension]:
    """Return the dimension behind each path of the space; equal parameters of one name share one dimension."""
    found: dict[str, tuple[str, Float | Int | Choice, tuple[tuple[str, str], ...]]] = {}

    def visit(level: Mapping[str, Any], path: str, conditions: tuple[tuple[str, str], ...]) -> None:
        for name, parameter in level.items():
            if isinstance(parameter, (Float, Int, Choice)):
                found[f"{path}.{name}"] = (name, parameter, conditions)
            if isinstance(parameter, Choice):
                for branch, children in parameter.branches.items():
                    visit(children, f"{path}.{name}.{branch}", (*conditions, (name, branch)))

    visit(space, "space", ())
    domains: dict[str, list[Any]] = {}
    for name, parameter, _ in found.values():
        domains.setdefault(name, []).append(parameter)
    result: dict[str, Dimension] = {}
    for path, (name, parameter, conditions) in found.items():
        differs = any(other != parameter for other in domains[name])
        key = "/".join([*(f"{parent}={branch}" for parent, branch in conditions), name]) if differs else name
        result[path] = Dimension(key, name, parameter, path, conditions)
    return result


def dimensions(space: Mapping[str, Any]) -> dict[str, Dimension]:
    """Return every axis a sampler may see, by its key, parents before children."""
    result: dict[str, Dimension] = {}
    for dimension in axes(space).values():
        result.setdefault(dimension.key, dimension)
    return result


def draw(space: Mapping[str, Any], suggest: Callable[[Dimension], Scalar]) -> dict[str, Any]:
    """Return name → value for one configuration, asking ``suggest`` for each dimension that exists in it.

    ``suggest`` answers with a number or a choice's label. Branch constants are included; expressions are not (see
    :func:`derive`). A choice whose name is not a consumer's is included too: whoever applies the values drops it.
    """
    dimension_at = axes(space)
    values: dict[str, Any] = {}

    def visit(level: Mapping[str, Any], path: str) -> None:
        for name, parameter in level.items():
            if isinstance(parameter, (Float, Int, Choice)):
                answer = suggest(dimension_at[f"{path}.{name}"])
                if isinstance(parameter, Choice):
                    values[name] = parameter.value_of(answer)
                    if parameter.branches:
                        visit(parameter.branches[str(answer)], f"{path}.{name}.{answer}")
                else:
                    values[name] = answer
            elif not isinstance(parameter, Expression):
                values[name] = parameter

    visit(space, "space")
    return values


def contains(parameter: Any, value: Any) -> bool:
    """Whether a value lies in a parameter's domain (steps included); for a constant: equals it."""
    if isinstance(parameter, Choice):
        return value in list(parameter.choices)
    if isinstance(parameter, (Float, Int)):
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not parameter.low <= value <= parameter.high
        ):
            return False
        if isinstance(parameter, Int) and value != int(value):
            return False
        step = parameter.step
        if parameter.log or step is None:
            return True
        steps = (value - parameter.low) / step
        return math.isclose(steps, round(steps), abs_tol=1e-8)
    return bool(parameter == value)


def trial_seed(seed: int, number: int) -> int:
    """Return the seed of one trial's sampler."""
    import numpy

    return int(numpy.random.SeedSequence([seed, number]).generate_state(1)[0])
