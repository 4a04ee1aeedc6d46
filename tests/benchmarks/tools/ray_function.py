"""A hand-written Ray Tune function, two trials at a time, its actors reused, so that each imports torch once.

The clock starts at the first training step, when its actors have imported everything. Set: reuse_actors=True, the data handed
over once through the object store, no dashboard, no loggers.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import ray
from digits import ARGUMENTS, CONFIGURATIONS, QUIET, FirstStep, accuracy, model_init, splits
from ray import tune
from transformers import Trainer, TrainerCallback, TrainingArguments


class Report(TrainerCallback):
    """Reports each evaluation to Tune."""

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Report the accuracy."""
        tune.report({"eval_accuracy": metrics["eval_accuracy"]})


def train(config: dict[str, Any], data: Any) -> None:
    """Train one configuration."""
    trainer = Trainer(
        model_init=model_init,
        args=TrainingArguments(output_dir="out", **ARGUMENTS, **QUIET, **config["values"]),
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        compute_metrics=accuracy,
        callbacks=[Report(), FirstStep(Path(config["note"]))],
    )
    trainer.train()


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    note = Path.cwd() / "first-step"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(train, data=splits()), {"cpu": 1}),
        param_space={"note": str(note), "values": tune.grid_search(CONFIGURATIONS[: options["trials"]])},
        tune_config=tune.TuneConfig(
            metric="eval_accuracy", mode="max", num_samples=1, max_concurrent_trials=2, reuse_actors=True
        ),
        run_config=tune.RunConfig(storage_path=str(Path.cwd()), verbose=0),
    )
    tuner.fit()
    ended = time.time()
    began = float(note.read_text())
    ray.shutdown()
    sys.stdout.write(
        "\n" + json.dumps({"startup": began - psutil.Process().create_time(), "wall": ended - began}) + "\n"
    )
