"""Goal 6: what recording costs a trial: nothing waits for MLflow, and a logged number is a line on a socket."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter

from measure import Line, Size, median, project
from studies import digits_study, events

from sweepkit.driver.run import run as run_study
from sweepkit.study.study import StudyData

NEVER = 100_000
"""Logging once in so many steps is not logging."""


def run(size: Size) -> list[Line]:
    """Train the same configuration in pairs, logging every step and never, MLflow on; count what arrived."""
    epochs, pairs = size.pick(6, 3), size.pick(2 * size.repeats, 3)
    with project() as folder:
        base = digits_study(folder)
        fixed = {name: value for name, value in base.training.items() if name != "logging_steps"}
        study = digits_study(
            folder,
            training={**fixed, "num_train_epochs": epochs},
            space={**base.model_dump()["space"], "logging_steps": {"choices": [1, NEVER]}},
            enqueue=[{**base.enqueue[0], "logging_steps": every} for every in [NEVER, 1] * pairs],
            budget={"trials": 2 * pairs},
            backend={"parallel": 1, "gpus_per_trial": 0, "cpus_per_trial": 1},
        )
        outcome = run_study(study)
        assert outcome.status == "done", outcome
        seconds = [
            next(e["metrics"]["train_runtime"] for e in events(study, n, "logged") if "train_runtime" in e["metrics"])
            for n in range(2 * pairs)
        ]
        logged = _logged(study)
        lost = (logged - _stored(study)).total()
    never = median(seconds[::2])
    slower = [each - without for without, each in zip(seconds[::2], seconds[1::2], strict=True)]
    more = median(slower)
    detail = f"{never:.2f} s without, {never + more:.2f} s with; the Trainer's own logging included"
    parts = [100 * each / without for without, each in zip(seconds[::2], slower, strict=True)]
    metrics = 3 * 45 * epochs  # loss, grad_norm, learning_rate
    return [
        Line.of(
            "6",
            "a trial's time for each logged metric",
            [1000 * each / metrics for each in slower],
            "ms",
            at_most=0.25,
            detail=f"{metrics} metrics",
        ),
        Line.of("6", "logging every step slows training by", parts, "%", at_most=3, detail=detail),
        Line(
            "6",
            "metrics lost on the way to MLflow",
            lost,
            "",
            at_most=0,
            detail=f"of {logged.total()} in the trials' logs",
        ),
    ]


def _logged(study: StudyData) -> Counter[tuple[str, float]]:
    """Count each metric and value that the trials' logs have."""
    logs = study.place.trials.glob("*/events.jsonl")
    entries = [event for log in logs for event in map(json.loads, log.read_text().splitlines())]
    kinds = ("logged", "evaluated")
    return Counter((key, value) for e in entries if e["kind"] in kinds for key, value in e["metrics"].items())


def _stored(study: StudyData) -> Counter[tuple[str, float]]:
    """Count each metric and value that MLflow has."""
    with sqlite3.connect(study.place.root / "mlflow.db") as store:
        return Counter(map(tuple, store.execute("SELECT key, value FROM metrics")))
