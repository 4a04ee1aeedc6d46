"""What a trial's callback says of an evaluation."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from making import toy_study
from sweepkit.trial.callback import Diverged, TrialCallback
from sweepkit.trial.events import Evaluated, Event
from sweepkit.trial.trial import TrialSpec


class Silence:
    """A line at whose other end nobody is."""

    def send(self, event: Event) -> None:
        pass

    def ask(self, event: Evaluated) -> str:
        return "continue"

    def poll(self) -> str | None:
        return None


def test_the_goal_that_is_not_finite_is_named(tmp_path: Path) -> None:
    goals = [{"metric": "eval_loss", "direction": "minimize"}, {"metric": "eval_f1", "direction": "maximize"}]
    study = toy_study(tmp_path, objective={"metrics": goals, "value": "last"})
    spec = TrialSpec(number=0, hyperparameters={}, directory=str(tmp_path))
    callback = TrialCallback(study, spec, Silence(), lambda _: None)
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    with pytest.raises(Diverged, match=r"^eval_f1 is not finite at step 0$"):
        callback.on_evaluate(args, TrainerState(), TrainerControl(), {"eval_loss": 1.0, "eval_f1": math.nan})
