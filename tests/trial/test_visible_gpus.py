"""A trial trains on the GPUs it was given, or says that they are not there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from making import spec
from sweepkit.study.errors import InputError
from sweepkit.study.study import Values
from sweepkit.tasks.task import Task
from sweepkit.trial import measure, objective


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


class Watched:
    """Stands for the watch of a GPU."""

    def __init__(self, gpu: str) -> None:
        self.gpu = gpu
        WATCHES.append(self)

    def share(self) -> float:
        return 0.4


WATCHES: list[Watched] = []


@pytest.mark.parametrize(
    ("device", "longest", "steps", "busy"),
    [("cuda", 100, 5, 0.4), ("cuda", 2, 2, 0.4), ("cuda", 1, 1, None), ("cpu", 100, 2, None)],
)
def test_the_largest_batches_are_trained_on_while_it_is_watched_how_busy_the_gpu_is(
    monkeypatch: pytest.MonkeyPatch, device: str, longest: int, steps: int, busy: float | None
) -> None:
    WATCHES.clear()
    monkeypatch.setattr(measure, "Busy", Watched)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid="aaaa"))
    monkeypatch.setattr(measure.time, "monotonic", iter(range(100)).__next__)  # a step takes a second
    args: Any = TrainingArguments("out", use_cpu=True, eval_strategy="epoch")
    args = SimpleNamespace(**{**vars(args), "device": torch.device(device)})
    course, state, control = (
        measure._Course(worst=True, adaptive=True),
        TrainerState(max_steps=longest),
        TrainerControl(),
    )
    state.num_train_epochs = 1
    course._times["begin"] = -1.0
    course.on_train_begin(args, state, control)
    while not control.should_evaluate:
        state.global_step += 1
        course.poll()
        course.on_step_end(args, state, control)
    assert (state.global_step, course._busy, [each.gpu for each in WATCHES]) == (
        steps,
        busy,
        ["GPU-aaaa"] * (busy is not None),
    )
