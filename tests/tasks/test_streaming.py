"""Streamed training rows are trained as a plain Trainer trains them, without being stored, also across a resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import toys
from making import Kept, spec, toy_study
from sweepkit.study.errors import InputError
from sweepkit.study.study import StudyData, TaskSpec
from sweepkit.tasks.load import load_task, task_class
from sweepkit.trial.events import Checkpointed, Evaluated
from sweepkit.trial.inspect import inspect
from sweepkit.trial.objective import run_trial
from trained import RATE, last, ran, refused, study_file, written

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


STEPS = {"max_steps": 8, "eval_strategy": "steps", "eval_steps": 4}
DATA = {"train": "train.jsonl", "validation": "validation.jsonl", "streaming": True}


def by_trainer(kind: str, folder: Path, model: Path, rows: Any) -> float:
    """The last loss of the library's own script on the same rows as a stream."""
    from datasets import Dataset

    train, validation = (Dataset.from_list(list(rows[split])) for split in ("train", "validation"))
    arguments = {"eval_strategy": "no", "save_strategy": "no", "report_to": "none", "use_cpu": True, "seed": 3}
    arguments |= {**STEPS, "per_device_train_batch_size": 8, "learning_rate": RATE, "output_dir": str(folder / "plain")}
    parts: dict[str, Any] = {"train_dataset": train.to_iterable_dataset(), "eval_dataset": validation}
    trainer: Any
    if kind == "sft":
        from trl import SFTConfig, SFTTrainer

        trainer = SFTTrainer(model=str(model), args=SFTConfig(**arguments, max_length=64), **parts)
    else:
        from sentence_transformers import (
            SentenceTransformer,
            SentenceTransformerTrainer,
            SentenceTransformerTrainingArguments,
        )
        from sentence_transformers.sentence_transformer.losses import CoSENTLoss

        made = SentenceTransformer(str(model))
        given = SentenceTransformerTrainingArguments(**arguments)
        trainer = SentenceTransformerTrainer(model=made, args=given, loss=CoSENTLoss(made), **parts)
    trainer.train()
    return float([entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry][-1])


@pytest.mark.parametrize("kind", ["sft", "sentence-similarity"])
def test_a_kinds_stream_is_trained_as_its_library_trains_it(kind: str, project: Path, tiny_bert: Path) -> None:
    texts = {"train": toys.messages(80), "validation": toys.messages(12, seed=1)}
    model = tiny_bert if kind == "sentence-similarity" else toys.tiny_gpt2(project / "gpt2")
    rows = {
        split: [
            {"prompt": text, "completion": f" {label}"}
            if kind == "sft"
            else {"sentence1": text, "sentence2": label, "score": number % 5 / 4}
            for number, (text, label) in enumerate(part)
        ]
        for split, part in texts.items()
    }
    written(project, rows)
    training = {**STEPS, "num_train_epochs": 1, **({"max_length": 64} if kind == "sft" else {})}
    study, _, log = ran(study_file(project, kind, model, task={"data": DATA}, training=training))
    assert last(log)["eval_loss"] == pytest.approx(by_trainer(kind, project, model, rows), abs=1e-6)
    [about] = [json.loads(file.read_text()) for file in study.place.root.rglob("about.json")]
    assert (about["rows"], about["streamed"]) == ({"validation": 12}, ["train"])


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        ("sft", {}, "training.max_steps needed where task.data is streamed"),
        ("sft", {"validation": None}, "task.data: streaming needs validation, as no rows of a stream can be set aside"),
        ("causal-lm", {}, "streaming: true is for kinds whose Trainer reads the rows as they are (sft, dpo, …)"),
    ],
)
def test_a_stream_that_cannot_be_trained_is_refused(
    kind: str, data: dict[str, Any], message: str, project: Path, tiny_bert: Path
) -> None:
    assert message.split(": ", 1)[-1] in refused(
        project, kind, tiny_bert, [{"text": "a"}] * 2, task={"data": {**DATA, **data}}
    )


def test_a_row_of_a_stream_that_will_not_do_ends_the_trial_with_its_number(project: Path, tiny_bert: Path) -> None:
    rows = [{"text": f"free prize {n}"} for n in range(300)]
    rows[200]["text"] = " "
    written(project, {"train": rows, "validation": rows[:8]})
    task = load_task(TaskSpec.model_validate({"type": "sft", "model": str(tiny_bert), "data": DATA}), project)
    with pytest.raises(InputError, match=r"task\.data: row 201 of train: text is empty"):
        list(task.data()["train"])


OWN = """
from sweepkit.tasks.sft import SFT


class Talks(SFT):
    source: None = None

    def data(self):
        from datasets import Dataset

        rows = [{"prompt": f"say {n}", "completion": f" {n}"} for n in range(40)]
        return {"train": Dataset.from_list(rows[8:]).to_iterable_dataset(), "validation": Dataset.from_list(rows[:8])}
"""


def test_a_task_that_builds_on_a_kind_brings_rows_of_its_own(project: Path) -> None:
    (project / "own.py").write_text(OWN)
    toys.tiny_gpt2(project / "gpt2")
    study = json.loads(study_file(project, "sft", project / "gpt2", training={**STEPS, "max_length": 64}).read_text())
    study["task"] = {"path": "own.py:Talks", "model": "gpt2"}
    (project / "study.yaml").write_text(json.dumps(study))
    _, row, log = ran(project / "study.yaml")
    assert row.ending == "complete" and {"eval_loss", "eval_perplexity"} <= last(log).keys()
