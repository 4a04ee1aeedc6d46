"""The baseline: a study's model and data in plain Trainers, one after another; prints the seconds of each as JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from transformers import Trainer, TrainingArguments, set_seed

from sweepkit.study.study import StudyData
from sweepkit.tasks.load import task_of

if __name__ == "__main__":
    rounds, home, file = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    study = StudyData.model_validate_json(file.read_text()).at(home)
    task = task_of(study, {})
    data, seconds = task.data(), []
    for _ in range(rounds):
        began = time.perf_counter()
        arguments = TrainingArguments("out", report_to="none", save_strategy="no", **study.training)
        set_seed(arguments.seed)
        trainer = Trainer(
            model=task.model_init(),
            args=arguments,
            train_dataset=data["train"],
            eval_dataset=data["validation"],
            data_collator=task.data_collator(),
        )
        trainer.train()
        trainer.evaluate()
        seconds.append(time.perf_counter() - began)
    sys.stdout.write("\n" + json.dumps(seconds) + "\n")
