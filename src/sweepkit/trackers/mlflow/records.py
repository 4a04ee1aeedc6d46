"""Turns a trial's events, row and spec into a run's name, parameters, metrics, status and tags; imports no mlflow."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweepkit.study import words
from sweepkit.study.parameters import Domain
from sweepkit.study.secrets import HIDDEN, hide, secret_name
from sweepkit.study.space import visit
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Event, Finished, Logged, Scheduled, Started
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Ending, Trial, read_spec

Point = tuple[str, float, int, int]
"""A metric's name, value, time in milliseconds and step."""

STATUS = {Ending.complete: "FINISHED", Ending.pruned: "KILLED", Ending.stopped: "KILLED"}
"""Ending → MLflow's status; all others are FAILED."""

NAMED = 6
"""Most hyperparameters in a run's name."""

OURS = frozenset(
    {"output_dir", "logging_dir", "report_to", "run_name", "disable_tqdm", "save_strategy", "logging_nan_inf_filter"}
)
"""Training arguments that sweepkit sets itself; they are no part of a trial's configuration."""


def run_name(study: StudyData, number: int, row: Trial | None, values: Mapping[str, Any], phase: str = "") -> str:
    """Return ``0007 lr=3e-5 bs=16``: the trial's number and its searched values, in the study's order.

    A confirmation run has the number of the trial that it repeats, and its seed.
    """
    names = [each.name for each in visit(study.space) if isinstance(each.parameter, Domain)]
    settings = [words.settings({name: values[name]}) for name in dict.fromkeys(names) if name in values]
    more = ["…"] if len(settings) > NAMED else []
    label = ["baseline"] if row and row.origin == "baseline" else []
    if row and row.confirm_of is not None:
        number, label = row.confirm_of, [f"seed={row.seed}"]
    return " ".join([*([phase] if phase else []), f"{number:04d}", *label, *settings[:NAMED], *more])[:250]


def logarithm(name: str) -> str:
    """Return the name of the parameter that holds another one's logarithm."""
    return f"log10 {name}"


def logarithmic(study: StudyData) -> set[str]:
    """Return the names of the parameters that are searched on a log scale."""
    return {each.name for each in visit(study.space) if getattr(each.parameter, "log", False)}


def logarithms(study: StudyData, values: Mapping[str, Any]) -> dict[str, str]:
    """Return the decimal logarithms of values searched on a log scale: MLflow's charts have no such axes."""
    scaled = logarithmic(study)
    return {
        logarithm(name): f"{math.log10(value):.6g}"
        for name, value in values.items()
        if name in scaled and isinstance(value, (int, float)) and 0 < value < math.inf
    }


def text(value: Any) -> str:
    """Return a parameter's value as text: scalars as Python prints them, the rest as JSON."""
    return str(value) if value is None or isinstance(value, (str, bool, int, float)) else json.dumps(value, default=str)


def hyperparameters(folder: Path, row: Trial | None) -> dict[str, Any]:
    """Return the trial's initial hyperparameters, from its spec; from its row where it has no spec."""
    if row and row.schedule:
        return dict(row.params)  # its spec holds the last turn of the schedule
    spec = read_spec(folder)
    return dict(spec.hyperparameters if spec else row.params if row else {})


def params(study: StudyData, values: Mapping[str, Any], started: Started | None) -> dict[str, str]:
    """Return the searched values, those that the study fixes, and the training arguments that differ from their defaults."""
    effective = started.effective if started else {}
    others = {name: value for name, value in effective.items() if name not in values and name not in OURS}
    return {
        name: HIDDEN if secret_name(name) and value else text(value)
        for name, value in {**hide(study.fixed), **values, **others}.items()
    }


def metrics(events: Iterable[Event], epoch_step: int) -> tuple[list[Point], int]:
    """Return the metrics in new events, and the last step whose epoch is among them; each step's epoch is sent once.

    ``epoch_step`` is the last step whose epoch was delivered. Timestamps are the events', so that the same event always
    becomes the same metric.
    """
    found: list[Point] = []
    for event in events:
        at = milliseconds(event.at)
        if isinstance(event, Scheduled):
            turn = {f"schedule/{name}": value for name, value in event.hyperparameters.items()}
            turn |= {} if event.donor is None else {"schedule/donor": event.donor}
            found += [(name, float(value), at, event.step) for name, value in turn.items()]
        if not isinstance(event, (Logged, Evaluated)):
            continue
        logged: Mapping[str, Any] = event.metrics
        numbers = {name: float(value) for name, value in logged.items() if isinstance(value, (int, float))}
        numbers.pop("epoch", None)
        if event.step > epoch_step:
            numbers["epoch"] = float(event.epoch)
            epoch_step = event.step
        found += [(name, value, at, event.step) for name, value in numbers.items()]
    return found, epoch_step


def attempt_tags(events: Sequence[Event], log: TrialLog) -> dict[str, str]:
    """Return tags of new attempts: device, host, and arguments that differ from the first attempt's."""
    found: dict[str, str] = {}
    for event in events:
        if not isinstance(event, Started):
            continue
        found |= {"device": event.device, "host": event.host, "sweepkit.attempts": str(event.attempt)}
        if event.unproved:
            found["sweepkit.unproved"] = ", ".join(event.unproved)
        first = log.first_start() or event
        changed = {name: value for name, value in event.effective.items() if first.effective.get(name) != value}
        if changed:
            found[f"sweepkit.attempt.{event.attempt}"] = text(changed)
    return {name: value for name, value in found.items() if value}


def ending_tags(row: Trial, log: TrialLog) -> dict[str, str]:
    """Return an ended trial's tags: its ending, and the cause as ``reason``."""
    cause = row.cause or (log.finished.cause if log.finished else "")
    return {"sweepkit.ending": str(row.ending), "reason": cause}


def outcome(study: StudyData, row: Trial, log: TrialLog) -> list[Point]:
    """Return the metrics of an ended trial: its objective and, once it will not go on, its cost under ``system/``."""
    ends = [event for event in log.refresh() if isinstance(event, Finished)]
    seconds = sum(event.seconds for event in ends)
    cost: dict[str, float] = {"attempts": float(log.attempts), "duration_seconds": seconds}
    if held := gpus(study, log.path.parent, log.started.device if log.started else ""):
        cost["gpu_hours"] = seconds * held / 3600
    if peak := max((event.peak_memory_mb for event in ends), default=0.0):
        cost["peak_memory_mb"] = peak
    found = []
    if ends and row.ending.counts:  # a trial may be stopped more than once at a step
        last = ends[-1]
        found = [(f"system/{name}", value, milliseconds(last.at), last.step) for name, value in cost.items()]
    return [*found, *objective(study, row, log)]


def objective(study: StudyData, row: Trial, log: TrialLog) -> list[Point]:
    """Return the trial's value as ``objective``, at the step of its last evaluation.

    With several goals ``objective`` is the deciding one, and each goal is also ``objective.<metric>``.
    """
    evaluations = log.evaluations
    if row.ending not in (Ending.complete, Ending.pruned) or not row.values or not evaluations:
        return []
    at, step = milliseconds(evaluations[-1].at), evaluations[-1].step
    named = {"objective": row.values[study.objective.deciding]}
    if len(row.values) > 1:
        goals = study.objective.goals
        named |= {f"objective.{goal.metric}": value for goal, value in zip(goals, row.values, strict=True)}
    return [(name, value, at, step) for name, value in named.items() if not math.isnan(value)]


def result(answer: Mapping[str, Any]) -> list[Point]:
    """Return the metrics of the study's own run: what its answer says in numbers, and how many trials ended in which way.

    The step is the number of trials, so that a study which goes on has a curve.
    """
    counts = answer.get("trials", {})
    ended, at = sum(counts.values()), milliseconds(time.time())
    numbers = {"result": "value", "best": "searched", "baseline": "baseline", "gain": "gain"}
    found = {name: answer.get(key) for name, key in numbers.items()}
    found |= {"trials": ended, **counts} if counts else {}
    return [(f"study/{name}", float(value), at, ended) for name, value in found.items() if value is not None]


def gpus(study: StudyData, folder: Path, device: str) -> float:
    """Return how many GPUs the trial held, a fraction where trials share one; 0 also where that is not known."""
    if not device or device.startswith("cpu"):
        return 0.0
    share, spec = study.backend.gpus_per_trial, read_spec(folder)
    if spec and spec.gpus and study.backend.kind.here:
        return spec.gpus
    if isinstance(share, float) and 0 < share < 1:
        return share
    return float(len(spec.devices) or 1) if spec else 0.0


def milliseconds(seconds: float) -> int:
    """Return a time in seconds as MLflow's milliseconds."""
    return int(seconds * 1000)


def answer_tags(answer: Mapping[str, Any], best_run: str) -> dict[str, str]:
    """Return the tags of the study's own run for its answer; ``best_run`` is the run id of the best trial."""
    tags = {"sweepkit.status": str(answer.get("status", "done")), "reason": str(answer.get("reason", ""))}
    if (best := answer.get("best")) is not None:
        tags |= {"sweepkit.best_trial": str(best), "sweepkit.best_run": best_run}
        for tag, name, form in (
            ("best_value", "value", "g"),
            ("baseline_value", "baseline", "g"),
            ("gain", "gain", "+g"),
        ):
            tags[f"sweepkit.{tag}"] = format(answer[name], form) if isinstance(answer.get(name), float) else ""
        tags["sweepkit.verdict"] = str(answer.get("verdict", ""))
    return tags
