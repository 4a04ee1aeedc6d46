"""One evaluation is what Trainer.evaluate returns to the training loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import EvalPrediction, Trainer, TrainerCallback

from making import Kept, spec, toy_study
from sweepkit.study.schedule import evaluations
from sweepkit.trial.events import Evaluated, Logged, Started
from sweepkit.trial.inspect import inspect
from sweepkit.trial.objective import run_trial
from toy_tasks import Quadratic, QuadraticTrainer

pytestmark = pytest.mark.real

TRAINING = {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 2}


class Several(Quadratic):
    """Is evaluated on two sets, the second of which is harder."""

    def trainer(self, **kwargs: Any) -> Trainer:
        rows = kwargs["eval_dataset"]
        trainer = QuadraticTrainer(**{**kwargs, "eval_dataset": {"easy": rows, "hard": rows.select([0, 1])}})
        trainer.toy = self
        return trainer


class _Adding(QuadraticTrainer):
    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        return {**super().evaluate(*args, **kwargs), "eval_added": float(self.state.global_step)}


class Added(Quadratic):
    """Its Trainer adds a number to what an evaluation returns."""

    def trainer(self, **kwargs: Any) -> Trainer:
        trainer = _Adding(**kwargs)
        trainer.toy = self
        return trainer


class Nested(Quadratic):
    """Reports a mapping and an array beside a number."""

    metrics: list[str | dict[str, dict[str, Any]]] = ["mean"]

    def compute_metrics(self, prediction: EvalPrediction) -> dict[str, Any]:
        scores = np.asarray([0.25, 0.75])
        return {"PER": {"f1": scores[1], "number": 3}, "per_class": scores, "mean": float(scores.mean())}


class Forgetting(Quadratic):
    """Makes a Trainer without the callbacks it was given."""

    def trainer(self, **kwargs: Any) -> Trainer:
        return super().trainer(**{**kwargs, "callbacks": []})


class _Logging(TrainerCallback):
    trainer: Trainer

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.trainer.log({"half": np.float32(0.5), "nested": {"a": 1}, "eval_gap": 0.25})


class Logging(Quadratic):
    """A callback of its own logs numbers of NumPy, mappings and what looks like an evaluation."""

    def trainer(self, **kwargs: Any) -> Trainer:
        trainer, callback = super().trainer(**kwargs), _Logging()
        callback.trainer = trainer
        trainer.add_callback(callback)
        return trainer


def trained(project: Path, kind: type[Quadratic], metric: str, **training: Any) -> tuple[str, Kept]:
    """How a trial of this task ends, and what it sent."""
    study = toy_study(
        project,
        training={**TRAINING, **training},
        objective={"metric": metric, "direction": "maximize", "value": "last"},
    )
    line = Kept()
    end = run_trial(study, spec(project, 0), line, kind=kind)
    return f"{end.ending} {end.cause}".strip(), line


def test_several_sets_are_one_evaluation_and_any_of_them_may_be_the_objective(project: Path) -> None:
    end, line = trained(project, Several, "eval_hard_loss")
    assert end == "complete"
    found = line.of(Evaluated)
    assert [(event.number, event.step) for event in found] == [(1, 2), (2, 4)]
    assert {"eval_easy_loss", "eval_hard_loss", "eval_easy_score", "eval_hard_score"} <= found[0].metrics.keys()
    assert [event.values for event in found] == [(event.metrics["eval_hard_loss"],) for event in found]


def test_two_sets_may_be_two_goals(project: Path) -> None:
    goals = [{"metric": f"eval_{name}_loss", "direction": "minimize"} for name in ("easy", "hard")]
    study = toy_study(project, training=TRAINING, objective={"metrics": goals, "value": "last"})
    line = Kept()
    run_trial(study, spec(project, 0), line, kind=Several)
    last = line.of(Evaluated)[-1]
    assert last.values == (last.metrics["eval_easy_loss"], last.metrics["eval_hard_loss"])


def test_what_a_subclass_adds_to_an_evaluation_may_be_the_objective(project: Path) -> None:
    end, line = trained(project, Added, "eval_added")
    assert (end, [event.values for event in line.of(Evaluated)]) == ("complete", [(2.0,), (4.0,)])


def test_an_evaluation_before_the_first_step_is_logged_and_nothing_else(project: Path) -> None:
    end, line = trained(project, Quadratic, "eval_score", eval_on_start=True)
    assert end == "complete"
    assert [(event.number, event.step) for event in line.of(Evaluated)] == [(1, 2), (2, 4)]
    assert [event.step for event in line.of(Logged) if "eval_score" in event.metrics] == [0]


class Impatient(Quadratic):
    """Is stopped by its own callback after the second evaluation."""

    def trainer(self, **kwargs: Any) -> Trainer:
        class Stop(TrainerCallback):
            def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                control.should_training_stop = state.global_step >= 4

        trainer: Trainer = super().trainer(**kwargs)
        trainer.add_callback(Stop())
        return trainer


@pytest.mark.parametrize(
    ("kind", "training", "steps"),
    [
        (Quadratic, {"max_steps": 5}, [2, 4, 5]),
        (Quadratic, {"max_steps": 4}, [2, 4]),
        (Quadratic, {"max_steps": -1, "num_train_epochs": 1.5, "eval_strategy": "epoch"}, [4, 6]),
        (Quadratic, {"max_steps": 6, "eval_strategy": "epoch"}, [4, 6]),
        (Quadratic, {"max_steps": 4, "eval_on_start": True}, [2, 4]),
        (Quadratic, {"max_steps": 4, "eval_delay": 3}, [4]),
        (Quadratic, {"eval_strategy": "no"}, [4]),
        (Impatient, {"max_steps": 40}, [2, 4]),
    ],
    ids=str,
)
def test_the_last_evaluation_of_a_training_and_no_other_is_final(
    project: Path, kind: type[Quadratic], training: dict[str, Any], steps: list[int]
) -> None:
    end, line = trained(project, kind, "eval_score", **training)
    found = line.of(Evaluated)
    assert (end, [event.step for event in found]) == ("complete", steps)
    assert [event.final for event in found] == [*[False] * (len(steps) - 1), True]
    values = {"eval_strategy": "steps", **TRAINING, **training}
    counted = evaluations(values, steps=steps[-1], epochs=steps[-1] / 4)
    assert kind is Impatient or counted == len(steps) - (values["eval_strategy"] == "no"), "check counts the same"


def test_a_trainer_without_the_callbacks_it_was_given_is_proved_and_evaluated_all_the_same(project: Path) -> None:
    end, line = trained(project, Forgetting, "eval_score")
    assert (end, len(line.of(Started)), len(line.of(Evaluated))) == ("complete", 1, 2)


def test_numbers_that_a_callback_logs_are_recorded_beside_what_is_none(project: Path) -> None:
    end, line = trained(project, Logging, "eval_score")
    assert end == "complete"
    assert [event.metrics for event in line.of(Logged) if event.step == 1] == [{"half": 0.5}]


def test_values_that_are_no_numbers_are_left_out_and_harm_no_checkpoint(project: Path) -> None:
    end, line = trained(project, Nested, "eval_mean")
    assert end == "complete"
    assert line.of(Evaluated)[0].values == (0.5,)
    assert not {"eval_PER", "eval_per_class"} & line.of(Evaluated)[0].metrics.keys()
    [state] = (project / "runs/toy/trials/0000/last").rglob("trainer_state.json")
    assert {"f1": 0.75, "number": 3} in [
        entry.get("eval_PER") for entry in json.loads(state.read_text())["log_history"]
    ]


def test_values_that_are_no_numbers_are_named_before_the_first_trial(project: Path) -> None:
    (project / "task.py").write_text(
        "from toy_tasks import Quadratic\n"
        "class Nested(Quadratic):\n"
        "    metrics: list = ['mean']\n"
        "    def compute_metrics(self, prediction):\n"
        "        return {'PER': {'f1': 0.5}, 'mean': 0.5}\n"
    )
    for metric, problems, facts in (
        ("eval_mean", (), ("not recorded because not a finite number: eval_PER is a mapping (f1)",)),
        ("eval_PER", (("objective.metric", "eval_PER is a mapping (f1), not a number"),), None),
    ):
        study = toy_study(
            project, task={"path": "task.py:Nested"}, objective={"metric": metric, "direction": "maximize"}
        )
        found = inspect(study, spec(project, 0))
        assert found.problems == problems
        assert facts is None or found.facts == facts
