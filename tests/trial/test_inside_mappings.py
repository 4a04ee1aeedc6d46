"""Parameters inside mapping values: sampled, put into the mapping, and at work in a real trial."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers.trainer
from transformers import Trainer

import toys
from making import spec, toy_study
from sweepkit.check import check
from sweepkit.check.study_file import load_study
from sweepkit.driver.run import Replacements, run_checked
from sweepkit.study.errors import InputError
from sweepkit.study.study import StudyData
from sweepkit.tasks import models
from sweepkit.tasks.load import task_class, task_of
from sweepkit.trial.events import Event
from sweepkit.trial.log import TrialLog
from sweepkit.trial.objective import build_model, run_trial

RATE = {"low": 0.05, "high": 0.3}
COSINE = {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"num_cycles": 0.25}}


class Heard:
    """A line that keeps its events and lets the trial go on."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def send(self, event: Event) -> None:
        self.events.append(event)

    def ask(self, event: Event) -> str:
        self.events.append(event)
        return "continue"

    def poll(self) -> str | None:
        return None


@pytest.mark.real
def test_a_study_searches_the_schedules_own_values(project: Path) -> None:
    kwargs = {"min_lr_rate": RATE, "num_cycles": {"expression": "lr_scheduler_kwargs.min_lr_rate * 2"}}
    branches = {"linear": {}, "cosine_with_min_lr": {"lr_scheduler_kwargs": kwargs}}
    study = toy_study(
        project,
        space={"lr_scheduler_type": {"choices": branches}, "learning_rate": {"low": 1e-3, "high": 1e-2}},
        baseline={
            "lr_scheduler_type": "cosine_with_min_lr",
            "lr_scheduler_kwargs": {"min_lr_rate": 0.2},
            "learning_rate": 0.001,
        },
        enqueue=[{"lr_scheduler_type": "linear"}, {"lr_scheduler_kwargs": {"min_lr_rate": 0.1}}],
        budget={"trials": 3},
    )
    trained = dict[int, dict[str, Any]]()

    class Kept(task_class(study.task, study.home)):  # type: ignore[misc]  # the toy task's class
        def trainer(self, **given: Any) -> Trainer:
            made: Trainer = super().trainer(**given)
            trained[len(trained)] = {"args": given["args"], "trainer": made}
            return made

    rows = run_checked(check(study), instead=Replacements(task=Kept)).rows
    assert [(row.ending, row.cause) for row in rows] == [("complete", "")] * 3
    for row, trial in zip(rows, trained.values(), strict=True):
        asked = {key.partition(".")[2]: value for key, value in row.params.items() if "lr_scheduler_kwargs." in key}
        factor = trial["trainer"].lr_scheduler.lr_lambdas[0]
        held = {name: value for name, value in factor.keywords.items() if name in ("min_lr_rate", "num_cycles")}
        assert (trial["args"].lr_scheduler_kwargs or {}) == asked == held
    assert [row.params.get("lr_scheduler_kwargs.min_lr_rate") for row in rows] == [0.2, None, 0.1]
    assert rows[2].params["lr_scheduler_kwargs.num_cycles"] == 0.2
    assert "lr_scheduler_kwargs" in " ".join(TrialLog(study.place.trial(0)).started.proved)  # type: ignore[union-attr]


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("lr_scheduler_kwargs.min_lr_rate", 0.1, lambda args: args.lr_scheduler_kwargs),
        ("accelerator_config.split_batches", True, lambda args: vars(args.accelerator_config)),
        ("fsdp_config.min_num_params", 7, lambda args: args.fsdp_config),
        ("activation_checkpointing_kwargs.use_reentrant", False, lambda args: args.activation_checkpointing_kwargs),
        ("liger_kernel_config.rope", True, lambda args: args.liger_kernel_config),
    ],
)
def test_every_mapping_of_the_arguments_gets_its_key(project: Path, name: str, value: Any, read: Any) -> None:
    study = check(toy_study(project, training=COSINE, space={name: {"choices": [value]}})).study
    held: list[Trainer] = []
    base = {} if name.startswith("lr_") else {"lr_scheduler_kwargs.min_lr_rate": 0.2}
    end = run_trial(study, spec(project, 0, {**base, name: value}), Heard(), before=held.append)
    assert end.ending == "complete", end.cause
    assert read(held[0].args)[name.partition(".")[2]] == value
    assert held[0].args.lr_scheduler_kwargs["num_cycles"] == 0.25


def llama(tmp_path: Path, **keys: Any) -> StudyData:
    """Return a study of a random Llama that is saved with a stretched rotary embedding."""
    from transformers import LlamaConfig

    sizes = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 32,
    }
    rope = {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0}
    LlamaConfig(**sizes, rope_parameters=rope).save_pretrained(tmp_path / "llama")
    (tmp_path / "text.txt").write_text("a\n")
    whole = {
        "name": "rope",
        "task": {
            "type": "causal-lm",
            "model": str(tmp_path / "llama"),
            "data": {"path": "text.txt"},
            **keys.pop("task", {}),
        },
        "objective": {"metric": "eval_loss", "direction": "minimize"},
        "space": {"model.rope_parameters.factor": {"low": 1, "high": 8}},
        "budget": {"trials": 2},
        **keys,
    }
    return StudyData.model_validate(whole).at(tmp_path)


def test_a_key_of_the_models_configuration_leaves_the_others_as_the_model_has_them(tmp_path: Path) -> None:
    found = check(llama(tmp_path)).study
    assert found.space["model.rope_parameters.factor"].at(1.0) == 8.0
    assert isinstance(found.space["model.rope_parameters.factor"].at(1.0), float)  # as the configuration's own is
    values = found.by_consumer({"model.rope_parameters.factor": 2.0})
    config = models.configuration(str(tmp_path / "llama"), tmp_path, **values.model)
    assert config.rope_parameters == {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0}
    whole = llama(tmp_path, training={"model.rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4}})
    values = whole.by_consumer({"model.rope_parameters.factor": 2.0})
    config = models.configuration(str(tmp_path / "llama"), tmp_path, **values.model)
    assert config.rope_parameters == {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}


def test_a_key_of_a_tasks_option_leaves_the_fixed_ones(tmp_path: Path) -> None:
    option = {"config": {"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2}, "tokenizer": "x"}
    study = llama(tmp_path, task={"model": option}, space={"task.model.config.hidden_size": {"choices": [8, 16]}})
    task = task_of(study, study.by_consumer({"task.model.config.hidden_size": 16}).task)
    assert task.model.config == {**option["config"], "hidden_size": 16}  # type: ignore[attr-defined]


def test_a_models_own_init_gets_whole_mappings_only(project: Path) -> None:
    study = toy_study(project, space={"model.shape.size": {"choices": [2, 4]}})
    task = task_class(study.task, study.home).model_construct()
    values = study.by_consumer({"model.shape.size": 2})
    with pytest.raises(InputError, match=r"needs model\.shape in training with all its keys"):
        build_model(task, values)
    fixed = toy_study(project, space=study.space, training={"model.shape": {"kind": "round"}})
    assert fixed.by_consumer({"model.shape.size": 2}).model == {"shape": {"kind": "round", "size": 2}}


@pytest.mark.real
def test_the_command_line_takes_dotted_names_everywhere(project: Path, tiny_bert: Path) -> None:
    toys.tiny_csv(project / "rows.csv", 32)
    (project / "study.yaml").write_text(
        f"""
name: floor
task: {{type: text-classification, model: {tiny_bert}, data: {{path: rows.csv}}, metrics: [accuracy]}}
training:
  {{num_train_epochs: 1, use_cpu: true, lr_scheduler_type: cosine_with_min_lr, lr_scheduler_kwargs: {{num_cycles: 0.25}}}}
objective: {{metric: eval_accuracy, direction: maximize}}
space:
  learning_rate: {{low: 1e-3, high: 1e-2, log: true}}
  lr_scheduler_kwargs:
    min_lr_rate: {{low: 0.0, high: 0.3}}
sampler: {{type: random, seed: 0}}
budget: {{trials: 2}}
tracking: {{uri: none}}
"""
    )

    def sweep(*words: str) -> str:
        done = subprocess.run([sys.executable, "-m", "sweepkit", *words], cwd=project, text=True, capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    tried = sweep("try", "study.yaml", "-p", "lr_scheduler_kwargs.min_lr_rate=0.15", "-p", "learning_rate=0.002")
    assert "complete" in tried
    sweep("enqueue", "study.yaml", "lr_scheduler_kwargs={min_lr_rate: 0.25}")
    sweep("run", "study.yaml", "--set", "space.lr_scheduler_kwargs.min_lr_rate.high=0.28")
    rows = json.loads(sweep("show", "floor", "--json"))["trials"]
    assert rows[0]["params"]["lr_scheduler_kwargs.min_lr_rate"] == 0.25
    assert load_study(project / "study.yaml", ["training.lr_scheduler_kwargs.min_lr_rate=0.1"]).study.space.keys() == {
        "learning_rate"
    }
    exported = project / "out"
    sweep("best", "floor", "--export", str(exported))
    script = (exported / "train.py").read_text()
    assert "'lr_scheduler_kwargs': {'num_cycles': 0.25, 'min_lr_rate': " in script


@pytest.mark.real
def test_a_scheduler_that_got_another_value_fails_the_trial(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = check(toy_study(project, training=COSINE, space={"lr_scheduler_kwargs.min_lr_rate": RATE})).study
    plain, other = transformers.trainer.get_scheduler, {"num_cycles": 0.25, "min_lr_rate": 0.5}

    def careless(*arguments: Any, **options: Any) -> Any:
        return plain(*arguments, **{**options, "scheduler_specific_kwargs": other})

    monkeypatch.setattr(transformers.trainer, "get_scheduler", careless)
    end = run_trial(study, spec(project, 0, {"lr_scheduler_kwargs.min_lr_rate": 0.1}), Heard())
    assert (end.ending, "what is trained is not what was sampled: lr_scheduler_kwargs" in end.cause) == ("failed", True)
