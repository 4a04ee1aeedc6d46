"""An Optuna loop as one writes it by hand: one process, a fresh Trainer per trial. Serial; in-memory storage."""

from __future__ import annotations

import json
import sys
import time

import optuna
import psutil
from digits import ARGUMENTS, CONFIGURATIONS, QUIET, accuracy, model_init, splits
from transformers import Trainer, TrainingArguments

if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    data = splits()

    def objective(trial: optuna.Trial) -> float:
        """Train one configuration and return its accuracy."""
        values = {
            "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True),
            "weight_decay": trial.suggest_float("weight_decay", 0.0, 0.2),
        }
        trainer = Trainer(
            model_init=model_init,
            args=TrainingArguments(output_dir="out", **ARGUMENTS, **QUIET, **values),
            train_dataset=data["train"],
            eval_dataset=data["validation"],
            compute_metrics=accuracy,
        )
        trainer.train()
        found = [entry["eval_accuracy"] for entry in trainer.state.log_history if "eval_accuracy" in entry]
        return max(found)

    study = optuna.create_study(direction="maximize")
    for configuration in CONFIGURATIONS[: options["trials"]]:
        study.enqueue_trial(configuration)
    began = time.time()
    study.optimize(objective, n_trials=options["trials"])
    ended = time.time()
    sys.stdout.write(
        "\n" + json.dumps({"startup": began - psutil.Process().create_time(), "wall": ended - began}) + "\n"
    )
