"""Trains one configuration as a trial, and as a script that knows nothing of sweepkit does it; what both report is compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainingArguments

from making import Kept, spec, toy_study
from sweepkit.trial.events import Evaluated
from sweepkit.trial.objective import run_trial

TRAINING = {"num_train_epochs": 2, "learning_rate": 3e-3, "seed": 5, "eval_strategy": "epoch", "use_cpu": True}
Scores = Callable[[Any], dict[str, float]]


def reported(project: Path, task: dict[str, Any], **training: Any) -> dict[str, float]:
    """The last evaluation of a trial."""
    study = toy_study(
        project,
        task={"path": None, **task},
        training={**{k: v for k, v in TRAINING.items() if k != "learning_rate"}, **training},
        objective={"metric": "eval_loss", "direction": "minimize"},
    )
    line = Kept()
    end = run_trial(study, spec(project, 0, {"learning_rate": TRAINING["learning_rate"]}), line)
    assert (end.ending, end.cause) == ("complete", "")
    return dict(line.of(Evaluated)[-1].metrics)


def plain(
    folder: Path, model_init: Callable[[], Any], splits: Any, collator: Any, scores: Scores | None, **more: Any
) -> dict[str, float]:
    """The last evaluation of a Trainer that knows nothing of sweepkit; ``more`` are its class and arguments."""
    kind, arguments = more.pop("trainer", Trainer), more.pop("arguments", TrainingArguments)
    trainer = kind(
        model_init=model_init,
        args=arguments(output_dir=str(folder / "plain"), save_strategy="no", report_to="none", **{**TRAINING, **more}),
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        data_collator=collator,
        compute_metrics=scores,
    )
    trainer.train()
    return [entry for entry in trainer.state.log_history if "eval_loss" in entry][-1]
