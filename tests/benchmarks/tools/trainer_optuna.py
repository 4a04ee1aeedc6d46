"""``Trainer.hyperparameter_search`` on Optuna. Serial: it trains in the one Trainer it has, so that n_jobs cannot be 2.

Set: in-memory storage (its default, the fastest), nothing saved, one thread (faster than two for a model this small).
"""

from __future__ import annotations

import json
import sys
import time

import psutil
from digits import ARGUMENTS, CONFIGURATIONS, QUIET, accuracy, model_init, splits
from transformers import Trainer, TrainingArguments

if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    data = splits()
    trainer = Trainer(
        model_init=model_init,
        args=TrainingArguments(output_dir="out", **ARGUMENTS, **QUIET),
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        compute_metrics=accuracy,
    )
    began = time.time()
    trainer.hyperparameter_search(
        hp_space=lambda trial: CONFIGURATIONS[trial.number],
        compute_objective=lambda metrics: metrics["eval_accuracy"],
        n_trials=options["trials"],
        direction="maximize",
        backend="optuna",
    )
    ended = time.time()
    sys.stdout.write(
        "\n" + json.dumps({"startup": began - psutil.Process().create_time(), "wall": ended - began}) + "\n"
    )
