"""Streamed training rows are trained as a plain Trainer trains them, without being stored, also across a resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from making import Kept, spec, toy_study
from sweepkit.study.study import StudyData, TaskSpec
from sweepkit.tasks.load import task_class
from sweepkit.trial.events import Checkpointed, Evaluated
from sweepkit.trial.inspect import inspect
from sweepkit.trial.objective import run_trial

pytestmark = pytest.mark.real

TASK = """
import torch
from torch import nn
from sweepkit import Task


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 2))

    def forward(self, inputs, labels=None):
        logits = self.body(inputs)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def rows(seed, count=None):
    dice, number = torch.Generator().manual_seed(seed), 0
    while count is None or number < count:
        inputs, number = torch.randn(4, generator=dice), number + 1
        yield {"inputs": inputs.tolist(), "labels": int(inputs[0] > 0)}


class Stream(Task):
    metrics: list = ["accuracy"]
    stream_all: bool = False

    def data(self):
        from datasets import Dataset, IterableDataset, IterableDatasetDict

        train = IterableDataset.from_generator(rows, gen_kwargs={"seed": 0})
        validation = IterableDataset.from_generator(rows, gen_kwargs={"seed": 1, "count": 24})
        if self.stream_all:
            return IterableDatasetDict(train=train, validation=validation)
        return {"train": train, "validation": Dataset.from_list(list(validation))}

    def model_init(self):
        return Net()
"""
TRAINING = {
    "max_steps": 12,
    "eval_strategy": "steps",
    "eval_steps": 6,
    "per_device_train_batch_size": 4,
    "use_cpu": True,
}


def study(project: Path, **keys: Any) -> StudyData:
    (project / "stream.py").write_text(TASK)
    task = {"path": "stream.py:Stream", **keys.pop("task", {})}
    return toy_study(
        project, task=task, training=TRAINING, objective={"metric": "eval_loss", "direction": "minimize"}, **keys
    )


def by_hand(project: Path) -> float:
    """The loss of a plain Trainer with ``model_init`` on the same stream."""
    from transformers import Trainer, TrainingArguments

    task = task_class(TaskSpec(path="stream.py:Stream"), project)()
    splits = task.data()
    trainer = Trainer(
        model_init=task.model_init,
        args=TrainingArguments(
            str(project / "plain"), learning_rate=1e-2, save_strategy="no", report_to="none", **TRAINING
        ),
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
    )
    trainer.train()
    return float([entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry][-1])


@pytest.mark.parametrize("stream_all", [False, True])
def test_a_stream_is_trained_and_resumed_as_a_plain_trainer_trains_it(project: Path, stream_all: bool) -> None:
    made, values = study(project, task={"stream_all": stream_all}), {"learning_rate": 1e-2}
    whole = Kept()
    assert run_trial(made, spec(project, 0, values), whole).ending == "complete"
    wanted = pytest.approx(by_hand(project), abs=1e-6)
    assert whole.of(Evaluated)[-1].metrics["eval_loss"] == wanted
    [about] = [json.loads(file.read_text()) for file in project.rglob("about.json")]
    assert (about["rows"], about["streamed"]) == ({"validation": 24}, ["train"])
    half = Kept("stop")
    assert run_trial(made, spec(project, 1, values), half).ending == "stopped"
    last = next(event.path for event in half.of(Checkpointed) if event.role == "last")
    rest = Kept()
    assert run_trial(made, spec(project, 1, values, resume_from=last), rest).ending == "complete"
    assert rest.of(Evaluated)[-1].metrics["eval_loss"] == wanted


def test_a_stream_needs_a_length_in_steps(project: Path) -> None:
    endless = study(project)
    endless = endless.model_copy(update={"training": {"use_cpu": True}}).at(project)
    [problem] = inspect(endless, spec(project, 0)).problems
    assert problem == (
        "training.max_steps",
        "needed, for data() streams the training rows: the length of a trial in steps",
    )
