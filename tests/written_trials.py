"""Trials written by hand, as a driver leaves them on disk, for tests that train nothing. Knows no tracker."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweepkit.study.study import StudyData
from sweepkit.trial.events import Checkpointed, Evaluated, Event, Finished, Logged, Started
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Ending, Trial, TrialSpec

BEGAN = 1_700_000_000.0


def toy_study(home: Path, **more: Any) -> StudyData:
    """Return a study of two hyperparameters that lies in ``home``."""
    return StudyData.model_validate(
        {
            "name": "toy",
            "question": "Which learning rate?",
            "task": {"type": "text-classification"},
            "objective": {"metric": "eval_f1", "direction": "maximize"},
            "space": {
                "learning_rate": {"low": 1e-6, "high": 1e-2, "log": True},
                "per_device_train_batch_size": {"choices": [8, 16]},
            },
            **more,
        }
    ).at(home)


def values(number: int) -> dict[str, Any]:
    """Return the hyperparameters of a trial."""
    return {"learning_rate": 3e-5 * (number + 1), "per_device_train_batch_size": 16}


def started(number: int, *, attempt: int = 1, **more: Any) -> Started:
    """Return the start of an attempt."""
    effective = {**values(number), "num_train_epochs": 3.0, "output_dir": "/somewhere"}
    at = BEGAN + 1000 * (attempt - 1)
    return Started(
        trial=number, at=at, attempt=attempt, host="box", **{"device": "cpu", "effective": effective, **more}
    )


def training(number: int, steps: Sequence[int], *, every: int = 10, attempt: int = 1) -> list[Event]:
    """Return what training says at these steps: two metrics each, and an evaluation of two every ``every`` steps."""
    found: list[Event] = []
    for step in steps:
        at = BEGAN + 1000 * (attempt - 1) + step / 10
        metrics = {"loss": 1 / step, "grad_norm": float(step)}
        found.append(Logged(trial=number, at=at, step=step, epoch=step / every, metrics=metrics))
        if step % every == 0:
            score = 1 - math.exp(-step / 20) + number / 1000
            found.append(
                Evaluated(
                    trial=number,
                    at=at + 0.05,
                    number=step // every,
                    step=step,
                    epoch=step / every,
                    metrics={"eval_f1": score, "eval_loss": 1 / step},
                    values=(score,),
                )
            )
    return found


def finished(number: int, ending: Ending, *, step: int = 30, attempt: int = 1, **more: Any) -> Finished:
    """Return the end of an attempt that took 20 seconds."""
    at = BEGAN + 1000 * (attempt - 1) + 20
    return Finished(trial=number, at=at, ending=ending, step=step, seconds=20.0, peak_memory_mb=120.0, **more)


def write(
    study: StudyData, number: int, events: Sequence[Event], hyperparameters: Mapping[str, Any] | None = None
) -> None:
    """Append events to a trial's log, beside the spec its driver wrote before."""
    folder = study.place.trial(number)
    folder.mkdir(parents=True, exist_ok=True)
    given = dict(hyperparameters if hyperparameters is not None else values(number))
    spec = TrialSpec(number=number, hyperparameters=given, directory=str(folder))
    (folder / "spec.json").write_text(spec.to_json())
    with TrialLog(folder) as log:
        for event in events:
            log.append(event)


def row(number: int, ending: Ending, **more: Any) -> Trial:
    """Return a trial's row, with the value of its last evaluation where an ending has one."""
    has = ending in (Ending.complete, Ending.pruned)
    score = 1 - math.exp(-30 / 20) + number / 1000
    origin = "baseline" if number == 0 else "sampled"
    return Trial(
        number=number,
        ending=ending,
        **{"params": values(number), "values": (score,) if has else (), "origin": origin, **more},
    )


def whole(study: StudyData, number: int, ending: Ending = Ending.complete, **more: Any) -> Trial:
    """Write a trial of one attempt and 30 steps from its start to its end; return its row."""
    end = finished(number, ending, cause=str(more.get("cause", "")))
    write(study, number, [started(number), *training(number, range(1, 31)), end])
    return row(number, ending, **more)


def keeps_best(study: StudyData, number: int, model: Path) -> Path:
    """Put a copy of a model folder where the trial's best checkpoint lies, and say so in its log; return it."""
    best = study.place.trial(number) / "best"
    best.mkdir(parents=True)
    for file in model.iterdir():
        (best / file.name).write_bytes(file.read_bytes())
    with TrialLog(best.parent) as log:
        log.append(Checkpointed(trial=number, at=BEGAN + 3, step=20, role="best", path=str(best), evaluation=2))
    return best


def prepared(folder: Path, rows: Mapping[str, int]) -> Path:
    """Write what a folder of prepared data says of itself; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "about.json").write_text(json.dumps({"rows": dict(rows), "digest": "0123456789abcdef"}))
    return folder


def tiny_classifier(folder: Path) -> Path:
    """Write a tiny text classifier (ham, spam; random weights) with its tokenizer, like a ``best/``; return it."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    import toys

    base = toys.tiny_bert(folder / "base")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(base, id2label={0: "ham", 1: "spam"})
    model.save_pretrained(folder / "best")
    AutoTokenizer.from_pretrained(base).save_pretrained(folder / "best")
    return folder / "best"
