"""The limit: the same trainings without any search, in two loops side by side; says what each ``train()`` alone took.

Given what a warm process has: everything imported once, and nothing left for the garbage collector (gc.freeze). Each loop
begins with a step that does not count, for what is imported and compiled only then.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import sys
import time
from typing import Any

from digits import ARGUMENTS, CONFIGURATIONS, QUIET, accuracy, model, splits
from transformers import Trainer, TrainingArguments, set_seed


def train(share: list[dict[str, Any]], data: Any, times: Any) -> None:
    """Train one configuration after another, behind a step that does not count."""
    for number, values in enumerate([{"max_steps": 1}, *share]):
        arguments = TrainingArguments(output_dir="out", **ARGUMENTS, **QUIET, **values)
        set_seed(arguments.seed)
        trainer = Trainer(
            model=model(),
            args=arguments,
            train_dataset=data["train"],
            eval_dataset=data["validation"],
            compute_metrics=accuracy,
        )
        began = time.perf_counter()
        trainer.train()
        if number:
            times.put(time.perf_counter() - began)


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    rows = splits()
    gc.collect()
    gc.freeze()
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    chosen = CONFIGURATIONS[: options["trials"]]
    loops = [context.Process(target=train, args=(chosen[slot::2], rows, queue)) for slot in range(2)]
    for loop in loops:
        loop.start()
    found = [queue.get() for _ in chosen]
    for loop in loops:
        loop.join()
    sys.stdout.write("\n" + json.dumps({"train": found}) + "\n")
