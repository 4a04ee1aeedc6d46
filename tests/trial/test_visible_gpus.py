"""A trial trains on the GPUs it was given, or says that they are not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from making import spec
from sweepkit.study.errors import InputError
from sweepkit.study.study import Values
from sweepkit.tasks.task import Task
from sweepkit.trial import objective


@pytest.mark.parametrize(
    ("visible", "found", "fixed", "refused"),
    [
        ("0", 0, {}, True),
        ("5,7", 1, {}, True),
        ("5,7", 2, {}, False),
        ("MIG-1", 1, {}, False),
        ("", 0, {}, False),
        ("NoDevFiles", 0, {}, False),
        (None, 0, {}, False),
        ("0", 0, {"use_cpu": True}, False),
    ],
)
def test_a_trial_given_a_gpu_that_is_not_there_is_not_trained_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, found: int, fixed: dict[str, Any], refused: bool
) -> None:
    class Made(Exception):
        pass

    def made(kind: str) -> None:
        raise Made

    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    monkeypatch.setattr(objective, "arguments_class", made)
    message = rf"CUDA_VISIBLE_DEVICES is {visible} here, and torch .* finds {found} GPU\(s\); name GPUs that are there, or set "
    with pytest.raises(InputError, match=message) if refused else pytest.raises(Made):
        objective.training_arguments(Task(), spec(Path(), 0), Values(fixed, {}, {}, {}))
