"""Makes the toolkit's studies that benchmarks run, and reads afterwards when their trials began and ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sweepkit.study.study import StudyData

HERE = Path(__file__).parent


def digits_study(project: Path, **keys: Any) -> StudyData:
    """Return the study of the twelve configurations, two trials at a time; ``keys`` replace the study's own.

    Nothing is resumed, so that no resumable checkpoints are written; the best model of a trial is, as always.
    """
    from digits import ARGUMENTS, CONFIGURATIONS

    return StudyData.model_validate(
        {
            "name": "digits",
            "task": {"path": f"{HERE / 'digits.py'}:Digits"},
            "training": ARGUMENTS,
            "objective": {"metric": "eval_accuracy", "direction": "maximize"},
            "space": {
                "learning_rate": {"low": 1e-5, "high": 1e-2, "log": True},
                "weight_decay": {"low": 0.0, "high": 0.2},
            },
            "sampler": {"type": "random", "seed": 0},
            "enqueue": CONFIGURATIONS,
            "budget": {"trials": len(CONFIGURATIONS)},
            "checkpoints": {"every": "never"},
            "backend": {"parallel": 2, "gpus_per_trial": 0, "cpus_per_trial": 1},
            **keys,
        }
    ).at(project)


def events(study: StudyData, number: int, kind: str) -> list[dict[str, Any]]:
    """Return a trial's events of one kind, as they stand in its log."""
    log = study.place.trial(number) / "events.jsonl"
    return [event for event in map(json.loads, log.read_text().splitlines()) if event["kind"] == kind]


def span(study: StudyData, numbers: range) -> float:
    """Return the seconds from the first of these trials being handed out to the end of the last."""
    began = min((study.place.trial(number) / "spec.json").stat().st_mtime for number in numbers)
    return max(float(events(study, number, "finished")[-1]["at"]) for number in numbers) - began
