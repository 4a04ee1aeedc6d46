"""What is sampled is what is trained: every commonly tuned field, read back from the Trainer that ran with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer

import toys
from making import Kept, spec, toy_study
from sweepkit.check import check
from sweepkit.driver.run import Replacements, run_checked
from sweepkit.study.errors import TrialFailed
from sweepkit.study.study import TaskSpec
from sweepkit.tasks.load import load_task, task_class
from sweepkit.trial.events import Event, Finished, Started
from sweepkit.trial.inspect import _unknown_configuration
from sweepkit.trial.log import TrialLog
from sweepkit.trial.objective import build_trainer, run_trial
from sweepkit.trial.proof import prove, same
from toy_tasks import Quadratic
from toys import TOY_TASKS

pytestmark = pytest.mark.real


RECORDING = f"{TOY_TASKS}:Recording"


def run(project: Path, hyperparameters: dict[str, Any], **keys: Any) -> tuple[Trainer, Finished, list[Event]]:
    """Train and return the Trainer that ran."""
    study = toy_study(
        project, training={"max_steps": 2, "eval_strategy": "steps", "eval_steps": 2}, task={"path": RECORDING}
    )
    ears = Kept()
    end = run_trial(study, spec(project, 0, hyperparameters, **keys), ears)
    recorded = task_class(TaskSpec(path=RECORDING), project)
    return recorded.trainers[-1], end, ears.events  # type: ignore[attr-defined]  # a toy's class variable


def first_group(key: str) -> Callable[[Trainer], Any]:
    return lambda trainer: trainer.optimizer.param_groups[0][key]


def first_evaluated(trainer: Trainer) -> int:
    return min(int(entry["step"]) for entry in trainer.state.log_history if "eval_loss" in entry)


def removes_unused_columns(trainer: Trainer) -> bool:
    data = trainer.eval_dataset.add_column("unused", [0] * len(trainer.eval_dataset))
    return "unused" not in trainer._remove_unused_columns(data).column_names


def evaluates_in_half(trainer: Trainer) -> bool:
    """After training: an evaluation during training keeps the model's type."""
    trainer.evaluation_loop(trainer.get_eval_dataloader(), "")
    return next(trainer.model.parameters()).dtype == torch.bfloat16


FIELDS: list[tuple[str, Any, Callable[[Trainer], Any]]] = [
    ("learning_rate", 3e-3, first_group("initial_lr")),
    ("weight_decay", 0.13, first_group("weight_decay")),
    ("adam_beta1", 0.8, lambda t: t.optimizer.param_groups[0]["betas"][0]),
    ("adam_beta2", 0.95, lambda t: t.optimizer.param_groups[0]["betas"][1]),
    ("adam_epsilon", 1e-6, first_group("eps")),
    ("max_grad_norm", 0.01, lambda t: round(t.steps.gradient_norm, 4)),
    ("per_device_train_batch_size", 4, lambda t: t.callback_handler.train_dataloader.total_batch_size),
    ("per_device_eval_batch_size", 2, lambda t: t.get_eval_dataloader().total_batch_size),
    ("gradient_accumulation_steps", 2, lambda t: t.steps.micro_batches),
    ("lr_scheduler_type", "cosine", lambda t: t.lr_scheduler.lr_lambdas[0].func.__name__.split("_")[2]),
    ("lr_scheduler_type", "constant", lambda t: "constant" if t.lr_scheduler.get_last_lr()[0] == 1e-3 else "falls"),
    ("warmup_steps", 1, lambda t: t.lr_scheduler.lr_lambdas[0].keywords["num_warmup_steps"]),
    ("warmup_steps", 0.5, lambda t: t.lr_scheduler.lr_lambdas[0].keywords["num_warmup_steps"] / t.state.max_steps),
    ("optim", "adafactor", lambda t: type(t.optimizer.optimizer).__name__.lower()),
    ("optim", "sgd", lambda t: type(t.optimizer.optimizer).__name__.lower()),
    ("optim", "rmsprop", lambda t: type(t.optimizer.optimizer).__name__.lower()),
    ("label_smoothing_factor", 0.1, lambda t: t.label_smoother.epsilon),
    ("bf16", True, lambda t: t.accelerator.mixed_precision == "bf16"),
    ("num_train_epochs", 2.0, lambda t: t.state.epoch),
    ("max_steps", 4, lambda t: t.state.global_step),
    ("eval_steps", 1, first_evaluated),
    ("logging_steps", 1, lambda t: t.state.logging_steps),
    ("eval_delay", 2.0, first_evaluated),
    ("seed", 7, lambda t: torch.initial_seed()),
    ("data_seed", 9, lambda t: t.callback_handler.train_dataloader.batch_sampler.sampler.initial_seed),
    (
        "train_sampling_strategy",
        "sequential",
        lambda t: type(t._get_train_sampler()).__name__.removesuffix("Sampler").lower(),
    ),
    ("dataloader_drop_last", True, lambda t: t.callback_handler.train_dataloader.batch_sampler.drop_last),
    ("full_determinism", True, lambda t: torch.are_deterministic_algorithms_enabled()),
    ("bf16_full_eval", True, evaluates_in_half),
    ("remove_unused_columns", False, removes_unused_columns),
    # These show nowhere else on one processor.
    ("torch_empty_cache_steps", 1, lambda t: t.args.torch_empty_cache_steps),
    ("average_tokens_across_devices", False, lambda t: t.args.average_tokens_across_devices),
    ("eval_accumulation_steps", 1, lambda t: t.args.eval_accumulation_steps),
]
BESIDE: dict[str, dict[str, Any]] = {
    "num_train_epochs": {"max_steps": -1},
    "eval_delay": {"eval_steps": 1},
    "label_smoothing_factor": {"task.class_labels": True},
}
"""What a field needs beside it to act within two steps."""


@pytest.mark.parametrize(("name", "value", "read"), FIELDS, ids=[f"{name}={value}" for name, value, _ in FIELDS])
def test_the_sampled_value_is_in_the_trainer_that_ran(
    project: Path, name: str, value: object, read: Callable[[Trainer], Any]
) -> None:
    trainer, end, events = run(project, {name: value, **BESIDE.get(name, {})})
    assert (end.ending, end.cause) == ("complete", "")
    assert same(value, read(trainer))
    (started,) = [event for event in events if isinstance(event, Started)]
    assert name in started.proved
    torch.use_deterministic_algorithms(False)


def test_a_searched_ratio_of_warm_up_steps_is_proved_in_every_trials_scheduler(project: Path) -> None:
    space = {"warmup_steps": {"low": 0.05, "high": 0.2}}
    study = toy_study(project, space=space, task={"path": RECORDING}, training={"max_steps": 40}, budget={"trials": 3})
    kind = task_class(study.task, project)
    rows = run_checked(check(study), instead=Replacements(task=kind)).rows
    trainers = kind.trainers[-len(rows) :]  # type: ignore[attr-defined]  # a toy's class variable
    for row, trainer in zip(rows, trainers, strict=True):
        ratio, factor = row.params["warmup_steps"], trainer.lr_scheduler.lr_lambdas[0]
        peak = math.ceil(40 * ratio)
        assert 0.05 <= ratio <= 0.2 and factor(peak - 1) < factor(peak) == 1.0 > factor(peak + 1)
        started = [e for e in TrialLog(study.place.trial(row.number)).refresh() if isinstance(e, Started)]
        assert ["warmup_steps" in event.proved for event in started] == [True]


def test_scheduler_options_reach_the_scheduler(project: Path) -> None:
    values = {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 3}}
    trainer, _, _ = run(project, values)
    assert trainer.lr_scheduler.lr_lambdas[0].keywords["num_cycles"] == 3  # type: ignore[union-attr]  # exists after training


def test_a_value_that_does_not_arrive_fails_the_trial_and_is_named(project: Path) -> None:
    _, end, _ = run(project, {"weight_decay": 0.2, "task.meddle": "weight_decay"})
    assert end.ending == "failed"
    assert end.cause == "what is trained is not what was sampled: weight_decay: expected 0.2, found 0.1234"


def test_model_values_are_proved_in_the_configuration(project: Path) -> None:
    trainer, end, events = run(project, {"model.dropout": 0.25})
    assert end.ending == "complete"
    assert trainer.model.config.dropout == 0.25  # type: ignore[union-attr]  # exists after training
    assert [e.proved for e in events if isinstance(e, Started)] == [
        ("eval_steps", "eval_strategy", "learning_rate", "max_steps", "model.dropout", "use_cpu")
    ]


def test_the_effective_batch_is_proved_after_running_out_of_memory(project: Path) -> None:
    trainer, end, _ = run(project, {"per_device_train_batch_size": 8}, micro_batch_divisor=2)
    assert end.ending == "complete"
    assert (trainer.args.per_device_train_batch_size, trainer.args.gradient_accumulation_steps) == (4, 2)


def test_a_resumed_optimizer_runs_with_the_changed_values(project: Path) -> None:
    study = toy_study(project, training={"num_train_epochs": 2, "weight_decay": 0.1}, task={"path": RECORDING})
    ears = Kept("stop")
    assert run_trial(study, spec(project, 0, {"learning_rate": 1e-3}), ears).ending == "stopped"
    changed = spec(
        project,
        0,
        {"learning_rate": 4e-3, "weight_decay": 0.3, "adam_beta2": 0.9},
        resume_from=str(project / "runs/toy/trials/0000/last/checkpoint-4"),
    )
    end = run_trial(study, changed, Kept())
    assert (end.ending, end.cause, end.step) == ("complete", "", 8)
    recorded = task_class(TaskSpec(path=RECORDING), project)
    groups, rates = recorded.first_steps[-1]  # type: ignore[attr-defined]  # a toy's class variable
    assert (groups[0]["weight_decay"], groups[0]["betas"][1], groups[0]["initial_lr"]) == (0.3, 0.9, 4e-3)
    assert rates == pytest.approx([4e-3 * 4 / 8] * len(rates))


@pytest.mark.parametrize(
    ("value", "kept", "said"), [("best", 8, (0.9,)), ("last", 12, (0.1,)), ("mean(2)", 12, (0.5,))]
)
def test_the_objectives_rule_decides_value_and_checkpoint(
    project: Path, value: str, kept: int, said: tuple[float, ...]
) -> None:
    study = toy_study(
        project,
        objective={"metric": "eval_score", "direction": "maximize", "value": value},
        task={"curve": [0.5, 0.9, 0.1]},
        training={"num_train_epochs": 3},
    )
    ears = Kept()
    end = run_trial(study, spec(project, 0), ears)
    best = [event for event in ears.events if getattr(event, "role", "") == "best"]
    assert end.values == pytest.approx(said)
    assert best[-1].step == kept  # type: ignore[attr-defined]  # Checkpointed


# peft asks transformers by a name that transformers is giving up.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("targets", ["all-linear", ["query", "value"]])
def test_adapters_of_every_linear_layer_are_what_all_linear_asks_for(
    project: Path, tiny_bert: Path, targets: str | list[str]
) -> None:
    toys.tiny_csv(project / "rows.csv", 16)
    task = {"type": "text-classification", "path": None, "model": str(tiny_bert), "data": {"path": "rows.csv"}}
    study = toy_study(project, task=task)
    loaded = load_task(study.task, project)
    trained = spec(project, 0, {"peft.r": 2, "peft.target_modules": targets})
    trainer = build_trainer(study, trained, loaded, study.by_consumer(trained.hyperparameters), None)
    asked = study.by_consumer({"peft.target_modules": "all-linear"})
    if targets == "all-linear":
        assert "peft.target_modules" in prove(trainer, loaded, asked, trained)[0]
    else:
        with pytest.raises(
            TrialFailed, match=r"peft.target_modules: expected 'all-linear', found no adapter on .*\.key"
        ):
            prove(trainer, loaded, asked, trained)


class Plain(Quadratic):
    """A model of plain torch, without a configuration."""

    def model_init(self, **config: Any) -> Any:
        return PlainModel(**config)


class PlainModel(torch.nn.Module):
    """Four weights and a dropout that is an argument."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = torch.nn.Dropout(dropout)
        self.weight = torch.nn.Parameter(torch.zeros(4))

    def forward(self, inputs: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.dropout(inputs) @ self.weight
        return {"loss": ((logits - labels) ** 2).mean(), "logits": logits}


def test_what_a_model_without_a_configuration_accepts_is_trained_and_listed_as_unproved(project: Path) -> None:
    study = toy_study(project, space={"model.dropout": {"low": 0.0, "high": 0.5}}, task={"path": RECORDING})
    built = build_trainer(study, spec(project, 0), Plain(), study.by_consumer({"model.dropout": 0.25}), None)
    assert built.model is not None and built.model.dropout.p == 0.25
    assert _unknown_configuration(study, Plain(), built) == []
    ears = Kept()
    run_trial(study, spec(project, 1, {"model.dropout": 0.25}), ears, kind=Plain)
    started = next(event for event in ears.events if isinstance(event, Started))
    assert "model.dropout" in started.unproved


def test_a_trainer_that_shards_nothing_is_not_what_was_asked_for(project: Path) -> None:
    trainer, *_ = run(project, {})
    trainer.args.fsdp = True
    study = toy_study(project, task={"path": RECORDING})
    values = study.by_consumer({"fsdp": True})
    with pytest.raises(TrialFailed, match="fsdp: expected True, found NO, which shards nothing"):
        prove(trainer, trainer.toy, values, spec(project, 0))
