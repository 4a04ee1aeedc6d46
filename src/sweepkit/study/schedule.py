"""The number of evaluations of a trial, from its TrainingArguments as transformers 5 interprets them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def evaluations(values: Mapping[str, Any], *, steps: int | None = None, epochs: float | None = None) -> int | None:
    """Return how often a trial with these TrainingArguments evaluates; None if that depends on its data.

    ``steps`` and ``epochs`` are the trial's length, once its data is known. ``eval_steps`` below 1 is a share of all steps,
    the last step always evaluates, and evaluations before ``eval_delay`` are skipped. One before the first step
    (``eval_on_start``) does not count.

    >>> evaluations({"eval_strategy": "epoch", "num_train_epochs": 2.5})
    3
    >>> (
    ...     evaluations({"eval_strategy": "steps", "eval_steps": 40}),
    ...     evaluations({"eval_strategy": "steps", "eval_steps": 0.2}),
    ... )
    (None, 5)
    >>> evaluations({"eval_strategy": "steps", "eval_steps": 40}, steps=100)
    3
    """
    strategy = values.get("eval_strategy")
    if strategy == "no":
        return 0
    return _by_epoch(values, epochs) if strategy == "epoch" else _by_step(values, steps)


def _by_epoch(values: Mapping[str, Any], epochs: float | None) -> int | None:
    if epochs is None:
        if values.get("max_steps", -1) > 0:
            return None
        epochs = float(values.get("num_train_epochs", 3.0))
    # After each whole epoch from the delay on, and at the end.
    whole, first = math.floor(epochs), max(1, math.ceil(values.get("eval_delay") or 0))
    return max(0, whole - first + 1) + (whole < epochs and epochs >= (values.get("eval_delay") or 0))


def _by_step(values: Mapping[str, Any], steps: int | None) -> int | None:
    every, delay = values.get("eval_steps") or values.get("logging_steps"), values.get("eval_delay") or 0
    if not isinstance(every, (int, float)) or every <= 0:
        return None
    if every < 1 and steps is None:
        return None if delay else math.ceil(1 / every - 1e-9)
    whole = steps if steps is not None else int(values.get("max_steps", -1))
    if whole <= 0:
        return None
    stride = math.ceil(whole * every) if every < 1 else int(every)
    full, first = whole // stride, max(1, math.ceil(delay / stride))
    return max(0, full - first + 1) + (whole % stride > 0 and whole >= delay)
