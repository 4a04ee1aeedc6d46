"""The one reading of an evaluation: which of the values that ``Trainer.evaluate`` returns are numbers, and which are not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sweepkit.study.errors import nearest
from sweepkit.study.files import printable

NOT_METRICS = frozenset({"epoch"})
"""What the Trainer adds to an evaluation that is not a metric."""


@dataclass(frozen=True)
class Reading:
    """What an evaluation reports."""

    numbers: Mapping[str, float]
    """Metric → value; only goals may be NaN or infinite."""
    others: Mapping[str, str]
    """Name → what stands there instead of a finite number."""

    def missing(self, goal: str) -> str:
        """Return why a goal has no value, or nothing where it has one."""
        if goal in self.numbers:
            return ""
        if goal in self.others:
            return f"{goal} is {self.others[goal]}, not a number{nearest(goal, self.numbers)}"
        return f"the evaluation reports no {goal}{nearest(goal, self.numbers)} It reports {', '.join(sorted(self.numbers))}"


def read(metrics: Mapping[str, Any], goals: Iterable[str], costs: Mapping[str, Any] | None = None) -> Reading:
    """Return the numbers of an evaluation; values that are none, or not finite and no goal, are described instead.

    Of the ``costs`` of the training until then, those that are goals are added.

    >>> found = read({"eval_f1": 0.5, "eval_PER": {"f1": 0.4}, "eval_mse": float("nan"), "epoch": 1.0}, ["eval_f1"])
    >>> dict(found.numbers), dict(found.others)
    ({'eval_f1': 0.5}, {'eval_PER': 'a mapping (f1)', 'eval_mse': 'nan'})
    """
    wanted = set(goals)
    numbers: dict[str, float] = {}
    others: dict[str, str] = {}
    weighed = {name: value for name, value in (costs or {}).items() if name in wanted}
    for given, value in {**metrics, **weighed}.items():
        if (name := printable(given)) in NOT_METRICS:
            continue
        number = as_number(value)
        if number is None:
            others[name] = _described(value)
        elif math.isfinite(number) or name in wanted:
            numbers[name] = number
        else:
            others[name] = str(number)
    return Reading(numbers, others)


def as_number(value: Any) -> float | None:
    """Return the value as a float where it is one number: Python's, NumPy's, or an array or tensor without axes."""
    if isinstance(value, (int, float)):
        return float(value)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        inside = value.item()
        return float(inside) if isinstance(inside, (int, float)) else None
    return None


def _described(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a mapping ({', '.join(map(str, value))})"
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"an array of shape {tuple(shape)}"
    return f"a list of {len(value)}" if isinstance(value, (list, tuple)) else repr(value)[:60]


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it; arrays become lists.

    The Trainer writes what it logs into every checkpoint, as JSON.
    """
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
