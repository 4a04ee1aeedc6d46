"""What a trial's process is given, as data."""

from __future__ import annotations

from typing import Any

import pytest

from sweepkit.trial.trial import TrialSpec


def spec(divisor: int = 1) -> TrialSpec:
    return TrialSpec(number=0, hyperparameters={}, directory="", micro_batch_divisor=divisor, devices=("0", "1"))


def test_a_spec_is_read_back_as_it_was_written() -> None:
    assert TrialSpec.from_json(spec(2).to_json()) == spec(2)


@pytest.mark.parametrize(
    ("divisor", "arguments", "split"),
    [
        (1, {"per_device_train_batch_size": 16}, {}),
        (2, {}, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}),
        (
            4,
            {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 3},
            {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 12},
        ),
    ],
)
def test_a_divided_micro_batch_keeps_the_effective_batch(
    divisor: int, arguments: dict[str, Any], split: dict[str, int]
) -> None:
    assert spec(divisor).batch(arguments) == split


def test_a_batch_that_cannot_be_divided_is_out_of_memory_for_good() -> None:
    with pytest.raises(MemoryError, match="a batch of 6 cannot be split into 4"):
        spec(4).batch({"per_device_train_batch_size": 6})
