"""The data of a report: a study, its trials, and from their logs the course of each training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import variance

from sweepkit.report.answer import Answer
from sweepkit.report.rows import CONFIRM, Reader, read, slot_hours
from sweepkit.report.watch import State, read_state
from sweepkit.study.configurations import key_of
from sweepkit.study.objective import Objective
from sweepkit.study.parameters import Choice, Scalar
from sweepkit.study.space import Dimension, dimensions, labels
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Event, Finished, Logged, Started
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Ending, Trial

Configuration = Mapping[str, tuple[Dimension, Scalar]]
"""Dimension's key → (dimension, label or number)."""


@dataclass(frozen=True, kw_only=True)
class Stint:
    """A stretch of time in which a trial ran on a device; ``end`` is None where it is unknown."""

    host: str
    device: str
    start: float
    """Seconds since the epoch."""
    end: float | None = None
    ending: Ending = Ending.running
    resumed: int = 0
    """Global step that it continued from, 0 from the start."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """The course of a trial's training, from its log."""

    evaluations: tuple[Evaluated, ...] = ()
    losses: tuple[tuple[int, float], ...] = ()
    """(step, training loss)."""
    stints: tuple[Stint, ...] = ()
    peak_memory_mb: float = 0.0


@dataclass(frozen=True)
class Evidence(Answer):
    """A study and everything known about its trials."""

    courses: Mapping[int, Course] = field(default_factory=dict)
    """Trial number → its course, where there is a log."""
    confirmed: Sequence[Trial] = ()
    """Confirmation runs: known configurations with new seeds."""
    slot_hours: float | None = None
    """Hours that slots were available; None where they were not recorded."""
    state: State = field(default_factory=lambda: State("not running"))

    def curve(self, row: Trial) -> list[tuple[int, float]]:
        """Return (evaluation, first goal's value) of a trial, oldest first: from its log, else the values the pruner saw."""
        evaluations = self.course(row).evaluations
        return (
            [(e.number, e.values[0]) for e in evaluations if e.values] if evaluations else [*row.intermediate.items()]
        )

    def course(self, row: Trial) -> Course:
        """Return the course of a trial, an empty one where there is no log."""
        return self.courses.get(row.number, Course())

    def of_goal(self, goal: int) -> Evidence:
        """Return the evidence as that of a study with this goal (from 0) alone."""
        aim = self.study.objective.goals[goal]
        alone = Objective(metric=aim.metric, direction=aim.direction)
        rows = [replace(row, values=row.values[goal : goal + 1]) for row in self.rows]
        study = self.study.model_copy(update={"objective": alone}).at(self.study.home)
        return replace(self, study=study, rows=rows, confirmation=None if goal else self.confirmation)

    @cached_property
    def seed_spread(self) -> float | None:
        """Pooled standard deviation of the first goal between trainings that differ in their seed alone.

        From the confirmation, else from configurations trained twice with ``seed_per_trial``; None without either.
        """
        able = [row for row in self.confirmed if row.ending is Ending.complete and row.values]
        if not able and self.study.seed_per_trial:
            able = [row for row in self.rows if row.ending is Ending.complete and row.values]
        groups: dict[str, list[float]] = {}
        for row in able:
            params = {name: value for name, value in row.params.items() if name != "seed"}
            groups.setdefault(key_of(params), []).append(row.values[0])
        repeated = [values for values in groups.values() if len(values) > 1]
        freedom = sum(len(values) - 1 for values in repeated)
        if not freedom:
            return None
        return float((sum(variance(values) * (len(values) - 1) for values in repeated) / freedom) ** 0.5)


def gather(study: StudyData) -> Evidence:
    """Read a study's storage and logs; writes nothing."""
    rows = read(study)
    return Evidence.read(
        study,
        rows,
        courses=courses(study.place.trials, rows),
        confirmed=Reader(study, suffix=CONFIRM).rows(),
        slot_hours=slot_hours(study.place),
        state=read_state(study, rows),
    )


def evidence_of(about: StudyData | Evidence) -> Evidence:
    """Return what is known of a study at this moment; values that are not finite count as none."""
    evidence = about if isinstance(about, Evidence) else gather(about)
    finite = [row if all(map(math.isfinite, row.values)) else replace(row, values=()) for row in evidence.rows]
    return replace(evidence, rows=finite)


def courses(trials: Path, rows: Sequence[Trial]) -> dict[int, Course]:
    """Return the course of every trial that has a log under ``trials``."""
    found = {row.number: TrialLog(trials / f"{row.number:04d}").refresh() for row in rows}
    return {number: _course(events) for number, events in found.items() if events}


def _course(events: Sequence[Event]) -> Course:
    ends = [event for event in events if isinstance(event, Finished)]
    return Course(
        evaluations=tuple(event for event in events if isinstance(event, Evaluated)),
        losses=tuple((e.step, e.metrics["loss"]) for e in events if isinstance(e, Logged) and "loss" in e.metrics),
        stints=tuple(_stints(events)),
        peak_memory_mb=max((event.peak_memory_mb for event in ends), default=0.0),
    )


def _stints(events: Sequence[Event]) -> list[Stint]:
    found: list[Stint] = []
    last = 0.0
    for event in events:
        open_stint = bool(found) and found[-1].ending is Ending.running
        if isinstance(event, Started):
            if open_stint:  # its end was never logged
                found[-1] = replace(found[-1], end=last, ending=Ending.stopped)
            found.append(Stint(host=event.host, device=event.device, start=event.at, resumed=event.resumed))
        elif isinstance(event, Finished) and open_stint:
            found[-1] = replace(found[-1], end=event.at, ending=Ending(event.ending))
        last = event.at
    return found


def configurations(evidence: Evidence) -> dict[int, Configuration]:
    """Return trial → its configuration."""
    return {row.number: configuration(evidence.study, row) for row in evidence.rows}


def configuration(study: StudyData, row: Trial) -> Configuration:
    """Return dimension key → (dimension, label) of a trial; what lies outside the space as it is now is left out."""
    drawn = row.drawn or labels(study.space, row.params)
    found = {}
    for key, dimension in dimensions(study.space).items():
        parameter, label = dimension.parameter, drawn.get(key)
        inside = label in parameter.labels if isinstance(parameter, Choice) else parameter.contains(label)
        if key in drawn and inside:
            found[key] = (dimension, label)
    return found
