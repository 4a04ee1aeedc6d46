"""A trial's values sorted by who consumes them. Knows names, not what consumes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweepkit.study.study import StudyData


@dataclass(frozen=True)
class Values:
    """A trial's fixed and searched values, by who consumes them."""

    training: Mapping[str, Any]
    model: Mapping[str, Any]
    peft: Mapping[str, Any]
    task: Mapping[str, Any]

    @classmethod
    def of(cls, study: StudyData, hyperparameters: Mapping[str, Any]) -> Values:
        """Sort fixed and searched values by namespace."""
        parts: dict[str, dict[str, Any]] = {"": {}, "model": {}, "peft": {}, "task": {}}
        for name, value in {**study.training, **hyperparameters}.items():
            head, _, rest = name.partition(".")
            parts[head if rest else ""][rest or head] = value
        return cls(parts[""], parts["model"], parts["peft"], parts["task"])
