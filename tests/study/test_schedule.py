"""How many evaluations a trial makes: the ends of delays, shares of steps and partial epochs."""

from __future__ import annotations

from typing import Any

import pytest

from sweepkit.study.schedule import evaluations

STEPS = {"eval_strategy": "steps", "eval_steps": 10}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"eval_strategy": "no"}, 0),
        ({"eval_strategy": "no", "eval_on_start": True}, 0),
        ({"eval_strategy": "epoch", "num_train_epochs": 3}, 3),
        ({"eval_strategy": "epoch", "num_train_epochs": 3, "eval_delay": 2}, 2),
        ({"eval_strategy": "epoch", "num_train_epochs": 2.5, "eval_delay": 2.5}, 1),
        ({"eval_strategy": "epoch", "max_steps": 30}, None),
        ({**STEPS, "max_steps": 30}, 3),
        ({**STEPS, "max_steps": 35}, 4),
        ({**STEPS, "max_steps": 30, "eval_delay": 20}, 2),
        ({**STEPS, "max_steps": 30, "eval_delay": 21}, 1),
        ({**STEPS, "max_steps": 30, "eval_on_start": True}, 3),
        ({**STEPS, "num_train_epochs": 3}, None),
        ({"eval_strategy": "steps", "eval_steps": 0.3, "max_steps": 10}, 4),
        ({"eval_strategy": "steps", "logging_steps": 5, "max_steps": 10}, 2),
    ],
    ids=str,
)
def test_evaluations_are_counted_as_the_trainer_makes_them(values: dict[str, Any], expected: int | None) -> None:
    assert evaluations(values) == expected
