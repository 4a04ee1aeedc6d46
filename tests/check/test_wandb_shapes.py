"""W&B sweep files as people write them: other names, other metrics, 0 and 1 for booleans, models; what is unclear is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sweepkit.check.study_file import read_study
from sweepkit.check.wandb import FILL_IN, Imported, import_sweep
from sweepkit.check.wandb_metrics import find_metric
from sweepkit.cli import app
from sweepkit.study.parameters import Choice

KIND = {"type": "text-classification", "model": FILL_IN, "data": {"name": "imdb"}}
HEAD = "method: random\nrun_cap: 8\n"
ACCURACY = "metric: {name: eval/accuracy, goal: maximize}\n"


def imported(text: str, **task: Any) -> Imported:
    file = Path("sweep.yaml")
    file.write_text(text)
    return import_sweep(file, task={**KIND, **task}, home=Path.cwd())


SHAPES: dict[str, tuple[str, str, dict[str, Any], list[str]]] = {
    "keras names": (
        "metric: {name: val_acc, goal: maximize}\nparameters:\n  learn_rate: {min: 0.00001, max: 0.001}\n"
        "  batch: {values: [8, 16]}\n  max_epochs: {value: 2}\n",
        "eval_accuracy",
        {"learning_rate": None, "per_device_train_batch_size": [8, 16], "num_train_epochs": 2},
        [],
    ),
    "a metric in words": (
        "metric: {name: Validation/Accuracy, goal: maximize}\nparameters:\n  learningRate: {min: 0.00001, max: 0.001}\n",
        "eval_accuracy",
        {"learning_rate": None},
        [],
    ),
    "a metric of an epoch": (
        "metric: {name: epoch/val_loss, goal: minimize}\nparameters:\n  base_lr: {min: 0.00001, max: 0.001}\n"
        "  weightdecay: {values: [0.0, 0.1]}\n",
        "eval_loss",
        {"learning_rate": None, "weight_decay": [0.0, 0.1]},
        [],
    ),
    "a metric that the task does not report": (
        "metric: {name: val_top5, goal: maximize}\nparameters:\n  lr: {min: 0.00001, max: 0.001}\n",
        "eval_top5",
        {"learning_rate": None},
        ["which metric is meant? The task reports eval_accuracy, eval_f1, eval_loss"],
    ),
    "a metric that only needs to be named": (
        "metric: {name: val/mcc, goal: maximize}\nparameters:\n  lr: {min: 0.00001, max: 0.001}\n",
        "eval_matthews_correlation",
        {"learning_rate": None},
        ["or add matthews_correlation to task.metrics"],
    ),
    "a metric of the training": (
        "metric: {name: train/loss, goal: minimize}\nparameters:\n  lr: {min: 0.00001, max: 0.001}\n",
        "eval_loss",
        {"learning_rate": None},
        ["trials are compared by their evaluations: train/loss becomes eval_loss"],
    ),
    "booleans as numbers": (
        ACCURACY + "parameters:\n  fp16: {values: [0, 1]}\n  bf16: {value: 0}\n  gradient_checkpointing: {min: 0, max: 1}\n"
        "  lr: {min: 0.00001, max: 0.001}\n",
        "eval_accuracy",
        {"fp16": [False, True], "bf16": False, "gradient_checkpointing": [False, True], "learning_rate": None},
        [],
    ),
    "booleans as words": (
        ACCURACY + "parameters:\n  fp16: {values: ['true', 'false']}\n  bf16: {value: 'off'}\n  lr: {values: [0.1, 0.2]}\n",
        "eval_accuracy",
        {"fp16": [True, False], "bf16": False, "learning_rate": [0.1, 0.2]},
        [],
    ),
    "models in the sweep": (
        ACCURACY + "parameters:\n  backbone: {values: [bert-base-uncased, roberta-base]}\n  lr: {values: [0.1, 0.2]}\n",
        "eval_accuracy",
        {"task.model": ["bert-base-uncased", "roberta-base"], "learning_rate": [0.1, 0.2]},
        [],
    ),
    "groups of a configuration": (
        ACCURACY + "parameters:\n  hparams:\n    parameters:\n      lr: {min: 0.00001, max: 0.001}\n"
        "      num_warmup_steps: {values: [0, 100]}\n  seq_len: {values: [64, 128]}\n",
        "eval_accuracy",
        {"learning_rate": None, "warmup_steps": [0, 100], "task.max_length": [64, 128]},
        [],
    ),
    "names with slashes and dashes": (
        ACCURACY + "parameters:\n  optimizer/lr: {min: 0.00001, max: 0.001}\n  trainer/weight-decay: {values: [0.0, 0.1]}\n",
        "eval_accuracy",
        {"learning_rate": None, "weight_decay": [0.0, 0.1]},
        [],
    ),
    "nothing that is known": (
        ACCURACY + "parameters:\n  fc_units: {values: [64, 128]}\n  augment: {values: [a, b]}\n",
        "eval_accuracy",
        {},
        ["leaves nothing to search", "left out"],
    ),
    "constants only": (
        ACCURACY + "parameters:\n  lr: {value: 0.0001}\n  epochs: {values: [3]}\n",
        "eval_accuracy",
        {"learning_rate": 0.0001, "num_train_epochs": 3},
        ["leaves nothing to search"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_a_sweep_as_people_write_it(project: Path, shape: str) -> None:
    text, metric, values, told = SHAPES[shape]
    found = imported(HEAD + text)
    study = found.study
    assert study.objective.metric == metric
    options = {f"task.{name}": value for name, value in study.task.options.items() if name not in ("data", "model")}
    written = {**study.space, **study.training, **options}
    assert written.keys() == values.keys()
    for name, value in values.items():
        if value is not None:
            each = written[name]
            assert (list(each.choices) if isinstance(each, Choice) else each) == value
            assert isinstance(value, list) or type(each) is type(value)
    messages = " | ".join(warning.message for warning in found.warnings)
    assert all(each in messages for each in told) and (told or not messages)


def test_a_model_that_was_named_wins_over_the_sweeps(project: Path) -> None:
    for written in ("{value: roberta-base}", "{values: [bert-base-uncased, roberta-base]}"):
        sweep = f"{HEAD}{ACCURACY}parameters:\n  model_name_or_path: {written}\n  lr: {{values: [0.1, 0.2]}}\n"
        named = imported(sweep, model="mine")
        assert named.study.task.options["model"] == "mine" and "task.model" not in named.study.space
        assert [warning.message for warning in named.warnings] == ["is left out, as --model says mine"]
    asked = imported(f"{HEAD}{ACCURACY}parameters:\n  model: {{value: roberta-base}}\n  lr: {{values: [0.1, 0.2]}}\n")
    assert asked.study.task.options["model"] == "roberta-base" and not asked.warnings


def test_what_is_left_to_do_is_what_the_file_lacks(project: Path) -> None:
    Path("sweep.yaml").write_text(
        f"{HEAD}{ACCURACY}parameters:\n  model: {{value: roberta-base}}\n  units: {{values: [1, 2]}}\n"
    )
    done = CliRunner().invoke(app, ["import", "sweep.yaml"])
    assert done.exit_code == 0
    assert "fill in task.data" in done.stdout and "fill in task.model" not in done.stdout
    assert "say in space what may vary; nothing of the sweep could be searched" in done.stdout
    assert read_study("study.yaml").task.options["model"] == "roberta-base"


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("accuracy", "eval_accuracy"),
        ("eval/acc", "eval_accuracy"),
        ("valAccuracy", "eval_accuracy"),
        ("best_val_acc", "eval_accuracy"),
        ("val/F1", "eval_f1"),
        ("Validation F1-Score", "eval_f1"),
        ("loss", "eval_loss"),
        ("val_loss_epoch", "eval_loss"),
        ("valid-loss", "eval_loss"),
        ("dev.loss", "eval_loss"),
    ],
)
def test_usual_names_of_metrics_are_those_that_the_task_reports(written: str, name: str) -> None:
    found = find_metric(written, {"eval_accuracy", "eval_f1", "eval_loss", "eval_runtime"})
    assert (found.name, found.question) == (name, "")
