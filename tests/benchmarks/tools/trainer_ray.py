"""``Trainer.hyperparameter_search`` on Ray, two trials at a time.

The clock starts at the first training step, when the first trials have imported everything. Set: one core per trial (its own
default), the configurations through Ray's own generator, no dashboard, no loggers. ``reuse`` hands reuse_actors=True through
to Tune, which the search's documentation does not mention: without it, as people use it, each trial is a new process.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import psutil
import ray
from digits import ARGUMENTS, CONFIGURATIONS, QUIET, FirstStep, accuracy, model_init, splits
from ray import tune
from ray.tune.search import BasicVariantGenerator
from transformers import Trainer, TrainingArguments

if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    note = Path.cwd() / "first-step"
    chosen = CONFIGURATIONS[: options["trials"]]
    data = splits()
    trainer = Trainer(
        model_init=model_init,
        args=TrainingArguments(output_dir="out", **ARGUMENTS, **QUIET),
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        compute_metrics=accuracy,
        callbacks=[FirstStep(note)],
    )
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    trainer.hyperparameter_search(
        hp_space=lambda _: {"learning_rate": tune.loguniform(1e-5, 1e-2), "weight_decay": tune.uniform(0.0, 0.2)},
        compute_objective=lambda metrics: metrics["eval_accuracy"],
        n_trials=len(chosen),
        direction="maximize",
        backend="ray",
        search_alg=BasicVariantGenerator(points_to_evaluate=chosen, max_concurrent=2),
        reuse_actors=options.get("reuse", False),
        storage_path=str(Path.cwd()),
        verbose=0,
    )
    ended = time.time()
    began = float(note.read_text())
    ray.shutdown()
    sys.stdout.write(
        "\n" + json.dumps({"startup": began - psutil.Process().create_time(), "wall": ended - began}) + "\n"
    )
