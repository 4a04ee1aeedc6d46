"""The main job as a person does it: ``sweep run`` and ``sweep best`` in processes of their own, on a tiny real model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import toys
from making import sweep, toy_study
from sweepkit.check.study_file import to_yaml

pytestmark = pytest.mark.real


CLASSIFY = """
name: messages
task:
  type: text-classification
  model: {model}
  data: {{train: train.csv, validation: validation.csv}}
  metrics: [f1]
  max_length: 16
training: {{num_train_epochs: 2, use_cpu: true}}
objective: {{metric: eval_f1, direction: maximize}}
space: {{learning_rate: {{low: 1e-3, high: 1e-2, log: true}}}}
sampler: {{type: random, seed: 2}}
budget: {{trials: 3}}
backend: {{parallel: 1}}
tracking: {{uri: none}}
"""


def said(*arguments: str, cwd: Path, code: int = 0) -> str:
    """Return what the command printed; it has to end with ``code``."""
    process = sweep(*arguments, cwd=cwd)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == code, output
    return output


def f1_of_a_plain_trainer(model_folder: str, messages: Path) -> float:
    """Return the F1 that transformers alone finds for a saved model on a csv of messages."""
    import csv

    import numpy as np
    from datasets import Dataset
    from sklearn.metrics import f1_score
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    model = AutoModelForSequenceClassification.from_pretrained(model_folder)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    with messages.open() as file:
        rows = list(csv.DictReader(file))
    data: dict[str, Any] = dict(tokenizer([row["text"] for row in rows], truncation=True, max_length=16))
    data["labels"] = [model.config.label2id[row["label"]] for row in rows]
    arguments = TrainingArguments(output_dir=str(messages.parent / "plain"), use_cpu=True, report_to="none")
    trainer = Trainer(model=model, args=arguments, data_collator=DataCollatorWithPadding(tokenizer))
    found = trainer.predict(Dataset.from_dict(data))
    return float(f1_score(found.label_ids, np.argmax(found.predictions, axis=-1)))


def test_the_printed_checkpoint_scores_what_was_recorded(project: Path, tiny_bert: Path) -> None:
    toys.tiny_csv(project / "train.csv", 64)
    toys.tiny_csv(project / "validation.csv", 48, seed=1)
    (project / "study.yaml").write_text(CLASSIFY.format(model=tiny_bert))
    said("run", "study.yaml", cwd=project)
    best = json.loads(said("best", "messages", "--json", cwd=project))["best"]
    folder = said("best", "messages", cwd=project).strip()
    assert 0 < best["value"] <= 1
    assert abs(f1_of_a_plain_trainer(folder, project / "validation.csv") - best["value"]) < 1e-9


def test_failed_trials_are_told_by_summary_and_exit_code_while_the_others_finish(project: Path) -> None:
    ways = {
        "well": {"task.x": 0.4},
        "raises": {"task.fail_at_step": 2},
        "exits": {"task.exit_code": 3},
        "killed": {"task.kill": True},
    }
    study = toy_study(
        project,
        space={"way": {"choices": ways}},
        enqueue=[{"way": way} for way in ways],
        budget={"trials": len(ways)},
        training={"learning_rate": 1e-3, "use_cpu": True},
    )
    (project / "study.yaml").write_text(to_yaml(study))
    output = said("run", "study.yaml", cwd=project, code=1)
    summary = output[output.index("toy  ") :]
    assert "1 complete, 3 failed" in summary
    shown = json.loads(said("show", "toy", "--json", cwd=project))["trials"]
    assert [(trial["ending"], trial["cause"]) for trial in shown] == [
        ("complete", ""),
        ("failed", "RuntimeError: toy failure at step 2"),
        ("failed", "exit code 3"),
        ("failed", "signal 9 (SIGKILL)"),
    ]
    for trial in shown[1:]:
        assert trial["cause"] in summary
