"""``hyperparameter_search`` against the documented behaviour of the Trainer's own method of that name."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from datasets import Dataset
from transformers import (
    PretrainedConfig,
    PreTrainedModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_utils import BestRun

import sweepkit
from sweepkit.errors import InputError

# As in a script's __main__ or a notebook: what is defined here goes to other processes by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class LineConfig(PretrainedConfig):
    model_type = "toy-line"

    def __init__(self, a: float = 0.0, **kwargs: Any) -> None:
        self.a = a
        super().__init__(**kwargs)


class Line(PreTrainedModel):
    config_class = LineConfig

    def __init__(self, config: LineConfig) -> None:
        super().__init__(config)
        self.a = torch.nn.Parameter(torch.tensor(config.a))
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        pass

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        loss = ((self.a * x - labels) ** 2).mean() if labels is not None else None
        return {"loss": loss, "logits": self.a * x}


def line(trial: Any) -> Line:
    return Line(LineConfig())


def trainer(folder: Path, **arguments: Any) -> Trainer:
    rows = [{"x": [float(i)], "labels": [2.0 * i]} for i in range(8)]
    data = Dataset.from_list(rows)
    given = {
        "max_steps": 4,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "use_cpu": True,
        "report_to": "none",
        **arguments,
    }
    args = TrainingArguments(output_dir=str(folder / "out"), **given)
    return Trainer(args=args, model_init=line, train_dataset=data, eval_dataset=data)


def learning_rate(trial: Any) -> dict[str, Any]:
    return {"learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-1, log=True)}


def test_it_returns_the_best_run(project: Path) -> None:
    best = sweepkit.hyperparameter_search(trainer(project), hp_space=learning_rate, n_trials=4, direction="minimize")
    assert isinstance(best, BestRun)
    assert set(best.hyperparameters) == {"learning_rate"}
    assert isinstance(best.objective, float)
    assert 0 <= int(best.run_id) < 4


def test_compute_objective_conditional_space_and_names(project: Path) -> None:
    def space(trial: Any) -> dict[str, Any]:
        values = {"optim": trial.suggest_categorical("optim", ["sgd", "adamw_torch"])}
        if values["optim"] == "adamw_torch":
            values["adam_beta2"] = trial.suggest_float("adam_beta2", 0.9, 0.999)
        return values

    def objective(metrics: dict[str, float]) -> float:
        return -metrics["eval_loss"]

    best = sweepkit.hyperparameter_search(
        trainer(project),
        hp_space=space,
        compute_objective=objective,
        hp_name=lambda trial: f"mine-{trial.number}",
        n_trials=6,
        direction="maximize",
        study_name="named",
    )
    assert isinstance(best, BestRun) and best.objective < 0
    assert ("adam_beta2" in best.hyperparameters) == (best.hyperparameters["optim"] == "adamw_torch")
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "named"]
    names = {run.info.run_name for run in client.search_runs([experiment.experiment_id])}
    assert {f"mine-{number}" for number in range(6)} < names


def test_several_directions_return_the_pareto_front(project: Path) -> None:
    def objective(metrics: dict[str, float]) -> list[float]:
        return [metrics["eval_loss"], metrics["epoch"]]

    front = sweepkit.hyperparameter_search(
        trainer(project),
        hp_space=learning_rate,
        compute_objective=objective,
        n_trials=3,
        direction=["minimize", "maximize"],
    )
    assert isinstance(front, list) and all(isinstance(run.objective, list) for run in front)


def test_without_an_evaluation_strategy_it_evaluates_at_the_end(project: Path) -> None:
    best = sweepkit.hyperparameter_search(
        trainer(project, eval_strategy="no", eval_steps=None), hp_space=learning_rate, n_trials=1
    )
    assert isinstance(best, BestRun)


def test_a_study_name_goes_on_where_it_stopped(project: Path) -> None:
    first = sweepkit.hyperparameter_search(trainer(project), learning_rate, n_trials=2, study_name="twice")
    again = sweepkit.hyperparameter_search(trainer(project), learning_rate, n_trials=3, study_name="twice")
    assert isinstance(first, BestRun) and isinstance(again, BestRun)
    assert again.objective <= first.objective
    assert len(list((project / "runs/twice/trials").iterdir())) == 3


def test_a_trainer_that_cannot_be_sent_runs_here_and_says_so(project: Path) -> None:
    mine = trainer(project)
    lock = threading.Lock()

    def init() -> Line:
        with lock:
            return Line(LineConfig())

    mine.model_init = init
    with pytest.warns(UserWarning, match="cannot be sent to another process .* its trials run in this one"):
        best = sweepkit.hyperparameter_search(mine, learning_rate, n_trials=2)
    assert isinstance(best, BestRun)


def test_a_seq2seq_trainer_keeps_its_own_arguments(project: Path) -> None:
    plain = trainer(project)
    args = Seq2SeqTrainingArguments(
        output_dir="out",
        max_steps=2,
        eval_strategy="steps",
        eval_steps=2,
        use_cpu=True,
        report_to="none",
        generation_max_length=7,
    )
    mine = Seq2SeqTrainer(
        args=args, model_init=line, train_dataset=plain.train_dataset, eval_dataset=plain.eval_dataset
    )
    best = sweepkit.hyperparameter_search(mine, learning_rate, n_trials=1)
    assert isinstance(best, BestRun)


def test_what_it_cannot_do_is_said(project: Path) -> None:
    bare = trainer(project)
    bare.model_init = None
    with pytest.raises(InputError, match="needs a model_init"):
        sweepkit.hyperparameter_search(bare, learning_rate)
    with pytest.raises(InputError, match="unknown n_trails"):
        sweepkit.hyperparameter_search(trainer(project), learning_rate, n_trails=3)
