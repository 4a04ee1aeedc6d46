"""A plain loop: a fresh model and Trainer each round, a few steps and (``evaluate``) an evaluation; says what each took.

The first round, which loads code lazily, does not count unless it is the only one.
"""

from __future__ import annotations

import json
import sys
import time

from digits import ARGUMENTS, QUIET, accuracy, model, splits
from transformers import Trainer, TrainingArguments, set_seed

if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    data = splits()
    seconds = []
    for _ in range(options["rounds"]):
        began = time.perf_counter()
        when = "epoch" if options["evaluate"] else "no"
        short = {**ARGUMENTS, **QUIET, "max_steps": options["steps"], "eval_strategy": when}
        arguments = TrainingArguments(output_dir="out", **short)
        set_seed(arguments.seed)
        trainer = Trainer(
            model=model(),
            args=arguments,
            train_dataset=data["train"],
            eval_dataset=data["validation"],
            compute_metrics=accuracy,
        )
        trainer.train()
        seconds.append(time.perf_counter() - began)
    sys.stdout.write("\n" + json.dumps({"seconds": seconds[1:] or seconds, "at": time.time()}) + "\n")
