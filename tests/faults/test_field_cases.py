"""What people report about tools of this kind, from a study file in an empty folder to the record of its trials.

At every commit all trials run in this process; the long tests run each study by the commands, from an empty folder.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from making import spec, sweep
from sweepkit.check.study_file import load_study
from sweepkit.driver.run import Replacements, run_checked
from sweepkit.report.rows import read
from sweepkit.study.errors import StudyFileError
from sweepkit.study.study import StudyData
from sweepkit.tasks.load import task_class
from sweepkit.trial.events import Checkpointed
from sweepkit.trial.inspect import inspect
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Trial

pytestmark = pytest.mark.real

STUDY = """name: case
task: {task}
training: {{num_train_epochs: 2, per_device_train_batch_size: 16, use_cpu: true{training}}}
objective: {{metric: {metric}, direction: {direction}}}
space:
  learning_rate: {{low: {rate}, high: {rate}1, log: true}}{space}
sampler: {{type: random, seed: 0}}
budget: {{trials: 1}}
tracking: {{uri: none}}
"""
TASK = """
import numpy as np
import torch
from torch import nn
from transformers import Trainer
from sweepkit import Task


class Net(nn.Module):
    def __init__(self, outputs, dropout=0.0):
        super().__init__()
        self.body, self.dropout, self.head = nn.Linear(4, 4), nn.Dropout(dropout), nn.Linear(4, outputs)

    def forward(self, inputs, labels=None):
        logits = self.head(self.dropout(self.body(inputs)))
        loss = nn.functional.binary_cross_entropy_with_logits if logits.shape == labels.shape else nn.functional.cross_entropy
        return {"loss": loss(logits, labels), "logits": logits}


class Mine(Task):
    metrics: list = ["accuracy"]

    def labels(self, inputs):
        return (inputs[:, 0] > 0).long()

    def data(self):
        from datasets import Dataset, DatasetDict

        def split(rows):
            inputs = torch.randn(rows, 4, generator=torch.Generator().manual_seed(rows))
            return Dataset.from_dict({"inputs": inputs.tolist(), "labels": self.labels(inputs).tolist()})

        return DatasetDict(train=split(64), validation=split(24), hard=split(12))

    def model_init(self, **config):
        return Net(2, **config)
"""


def written(
    project: Path,
    metric: str,
    task: str = "",
    *,
    training: str = "",
    space: str = "",
    rate: float = 0.01,
    code: str = "",
) -> Path:
    """Write a study, and its task unless it names one; return the study file."""
    if not task:
        (project / "task.py").write_text(f"{TASK}\n{code}")
    file = project / "study.yaml"
    task = task or "{path: task.py:Mine}"
    direction = "minimize" if metric == "eval_loss" else "maximize"
    values = {
        "task": task,
        "metric": metric,
        "direction": direction,
        "training": training,
        "space": space,
        "rate": rate,
    }
    file.write_text(STUDY.format(**values))
    return file


Run = Callable[[Path], tuple[StudyData, Trial, TrialLog]]
Refuse = Callable[[Path], Sequence[tuple[str, str]]]


@pytest.fixture(params=["here", pytest.param("commands", marks=pytest.mark.slow)])
def commands(request: pytest.FixtureRequest, project: Path) -> bool:
    """Whether a study is run by the commands, in a folder that is no project's."""
    if request.param == "commands":
        (project / "pyproject.toml").unlink()
    return bool(request.param == "commands")


@pytest.fixture
def ran(commands: bool) -> Run:
    """Check and run a study of one trial; the function returns it, the trial and its log."""

    def run(file: Path) -> tuple[StudyData, Trial, TrialLog]:
        if commands:
            assert command("check", file)[0] == 0
            code, output = command("run", file)
            assert code == 0, output
            study = load_study(file).study
            [row] = read(study)
        else:
            checked = load_study(file)
            study = checked.study
            [row] = run_checked(checked, instead=Replacements(task=task_class(study.task, study.home))).rows
        return study, row, TrialLog(study.place.trial(0))

    return run


@pytest.fixture
def problems(commands: bool) -> Refuse:
    """What the look before the first trial finds; by the commands, the run has to end with it and without a trial."""

    def look(file: Path) -> Sequence[tuple[str, str]]:
        study = load_study(file).study
        found = inspect(study, spec(study.home, 0)).problems
        if commands and found:
            code, output = command("run", file)
            causes = [message.removeprefix("a trial cannot be built: ") for _, message in found]  # or its data prepared
            assert code == 2 and all(cause in " ".join(output.split()) for cause in causes), output
            assert not study.place.trials.exists()
        return found

    return look


def command(name: str, file: Path) -> tuple[int, str]:
    """Run one command on a study file; return its exit code and what it wrote."""
    process = sweep(name, file.name, cwd=file.parent)
    output, _ = process.communicate(timeout=600)
    return process.returncode, output


def of_rows(project: Path, model: Path, rows: Sequence[tuple[str, Any]], name: str = "rows.csv") -> str:
    """Write (text, label) rows and return the built-in task that reads them."""
    if name.endswith(".csv"):
        (project / name).write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    else:
        (project / name).write_text("".join(json.dumps({"text": t, "label": each}) + "\n" for t, each in rows))
    return f"{{type: text-classification, model: {model}, data: {{path: {name}}}, metrics: [accuracy]}}"


SETS = """
    def trainer(self, **kwargs):
        kwargs["eval_dataset"] = {"easy": self.splits["validation"], "hard": self.splits["hard"]}
        return Trainer(**kwargs)
"""


def test_several_evaluation_sets_are_one_evaluation(project: Path, ran: Run) -> None:
    _, row, log = ran(written(project, "eval_hard_accuracy", code=SETS))
    assert row.ending == "complete"
    assert [(event.number, event.step) for event in log.evaluations] == [(1, 4), (2, 8)]
    assert row.value == max(event.metrics["eval_hard_accuracy"] for event in log.evaluations)


@pytest.mark.parametrize(
    ("texts", "classes"),
    [(("01", "1", "007"), {"01", "1", "007"}), (("-1", "0", "1", "na"), {"-1", "0", "1", "na"})],
    ids=["leading zeros", "numbers and words"],
)
def test_each_row_is_trained_as_the_class_its_text_says(
    texts: Sequence[str], classes: set[str], project: Path, tiny_bert: Path, ran: Run
) -> None:
    rows = [(f"free prize {n}", texts[n % len(texts)]) for n in range(48)]
    study, row, _ = ran(written(project, "eval_accuracy", of_rows(project, tiny_bert, rows)))
    assert row.ending == "complete"
    model = json.loads((study.place.trial(0) / "best" / "config.json").read_text())
    assert set(model["id2label"].values()) == classes


def test_several_labels_per_text_are_decided_by_a_threshold(project: Path, ran: Run) -> None:
    code = """
    def labels(self, inputs):
        return (inputs[:, :3] > 0).float()

    def model_init(self, **config):
        return Net(3, **config)

    metrics: list = ["f1", "right"]

    def compute_metrics(self, prediction):
        from sklearn.metrics import f1_score

        found = self._score(["f1"], prediction)
        return {**found, "right": f1_score(prediction.label_ids, prediction.predictions > 0, average="macro")}
"""
    _, row, log = ran(written(project, "eval_f1", code=code))
    assert row.ending == "complete"
    assert [event.metrics["eval_f1"] for event in log.evaluations] == [e.metrics["eval_right"] for e in log.evaluations]


def test_an_evaluation_before_training_is_no_candidate(project: Path, ran: Run) -> None:
    _, row, log = ran(written(project, "eval_loss", training=", eval_on_start: true", rate=50.0))
    assert [event.step for event in log.evaluations] == [4, 8]
    assert row.value == min(event.metrics["eval_loss"] for event in log.evaluations)
    assert {event.step for event in log.refresh() if isinstance(event, Checkpointed)} <= {4, 8}


def test_two_learning_rates_are_listed_as_unproved(project: Path, ran: Run) -> None:
    code = """
    ratio: float = 1.0

    def trainer(self, **kwargs):
        model, rate = kwargs["model"], kwargs["args"].learning_rate
        groups = [{"params": model.body.parameters(), "lr": rate}, {"params": model.head.parameters(), "lr": rate * self.ratio}]
        return Trainer(**kwargs, optimizers=(torch.optim.AdamW(groups), None))
"""
    _, row, log = ran(written(project, "eval_accuracy", code=code, space="\n  task.ratio: {choices: [4.0, 16.0]}"))
    assert row.ending == "complete"
    assert log.started is not None and "learning_rate" in log.started.unproved and "task.ratio" in log.started.proved


NESTED = """
    metrics: list = []

    def compute_metrics(self, prediction):
        return {"PER": {"f1": 0.5, "number": 3}, "per_class": np.asarray([0.5, 0.25]), "overall": np.float32(0.375)}
"""


def test_a_nested_metric_is_named_before_anything_runs(project: Path, problems: Refuse) -> None:
    assert problems(written(project, "eval_PER", code=NESTED)) == (
        ("objective.metric", "eval_PER is a mapping (f1, number), not a number"),
    )


def test_nested_metrics_beside_the_objective_harm_nothing(project: Path, ran: Run) -> None:
    _, row, log = ran(written(project, "eval_overall", code=NESTED))
    assert (row.ending, row.value) == ("complete", 0.375)
    assert {"eval_PER", "eval_per_class"}.isdisjoint(log.evaluations[0].metrics)


def test_a_range_inside_a_mapping_is_searched_and_proved(project: Path, ran: Run) -> None:
    training = ", lr_scheduler_type: cosine_with_min_lr, lr_scheduler_kwargs: {num_cycles: 0.25}"
    space = "\n  lr_scheduler_kwargs: {min_lr_rate: {low: 0.1, high: 0.3}}"
    _, row, log = ran(written(project, "eval_accuracy", training=training, space=space))
    assert row.ending == "complete"
    assert set(row.params) == {"learning_rate", "lr_scheduler_kwargs.min_lr_rate"}
    assert log.started is not None and "lr_scheduler_kwargs" in log.started.proved


PACKAGE = """
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .hidden.arguments import MyArguments


def __getattr__(name):
    if name == "MyArguments":
        from .hidden.arguments import MyArguments

        return MyArguments
    raise AttributeError(name)
"""
ARGUMENTS = """
from dataclasses import dataclass
from transformers import TrainingArguments


@dataclass
class MyArguments(TrainingArguments):
    beta: float = 0.1
"""


@pytest.mark.parametrize("path", ["kit:MyArguments", "kit.hidden.arguments:MyArguments"])
def test_a_class_is_found_by_every_path_it_can_be_imported_by(project: Path, path: str, ran: Run) -> None:
    hidden = project / "kit" / "hidden"
    hidden.mkdir(parents=True)
    (project / "kit" / "__init__.py").write_text(PACKAGE)
    (hidden / "__init__.py").touch()
    (hidden / "arguments.py").write_text(ARGUMENTS)
    file = written(
        project, "eval_accuracy", space="\n  beta: {low: 0.1, high: 0.5}", code=f"    arguments_type = '{path}'\n"
    )
    _, row, _ = ran(file)
    assert row.ending == "complete" and "beta" in row.params
    (project / "task.py").write_text((project / "task.py").read_text().replace("MyArguments'", "MyArgument'"))
    with pytest.raises(StudyFileError) as refused:
        load_study(file)
    [problem] = refused.value.problems
    assert "MyArgument" in problem.message


@pytest.mark.slow
@pytest.mark.parametrize("data", ["a file", "a data set of the Hub's form"])
def test_a_home_that_cannot_be_written_is_named_where_it_is_needed(project: Path, tiny_bert: Path, data: str) -> None:
    rows = [("free prize", "a"), ("mother late", "b")] * 24
    study = written(project, "eval_accuracy", of_rows(project, tiny_bert, rows))
    if data != "a file":
        (project / "rows").mkdir()
        (project / "rows.csv").rename(project / "rows/train.csv")
        study.write_text(re.sub(r"data: \{path: rows.csv\}", "data: {name: ./rows}", study.read_text()))
    environment = {"PATH": os.environ["PATH"], "LANG": "C", "HOME": "/proc/nohome", "TMPDIR": str(project)}
    environment |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    process = sweep("run", "study.yaml", cwd=project, env=environment)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == (0 if data == "a file" else 2), output
    if data == "a file":
        return
    said = " ".join(output.split())
    assert "the cache folder /proc/nohome/.cache" in said and "cannot be written" in said and "set HF_HOME" in said


def test_a_model_without_a_configuration_is_trained(project: Path, ran: Run, problems: Refuse) -> None:
    file = written(project, "eval_accuracy", space="\n  model.dropout: {low: 0.1, high: 0.5}")
    assert problems(file) == ()
    _, row, log = ran(file)
    assert row.ending == "complete"
    assert log.started is not None and "model.dropout" in log.started.unproved


def test_list_labels_are_refused_with_the_way_out(project: Path, tiny_bert: Path, problems: Refuse) -> None:
    rows = [("free prize", ["a", "b"]), ("mother late", ["a"])] * 8
    [(where, message)] = problems(written(project, "eval_accuracy", of_rows(project, tiny_bert, rows, "rows.jsonl")))
    assert where == "task"
    assert (
        "expected one value per row, got ['a', 'b'] in row 1 of train; for several labels per row use type: multi-"
        in message
    )
