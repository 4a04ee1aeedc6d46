"""Everything a report starts from: a study, its trials, and what their logs say of the course each took.

Reads rows and logs; knows no figure, no judgement and no one who runs the study.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sweepkit.report.answer import Answer
from sweepkit.report.rows import CONFIRM, Reader, driver, read, slot_hours
from sweepkit.report.verdict import Verdict
from sweepkit.study.parameters import Choice, Domain, Scalar
from sweepkit.study.space import Dimension, dimensions, labels
from sweepkit.study.study import Goal, StudyData
from sweepkit.trial.events import Evaluated, Event, Finished, Logged, Started
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Ending, Trial


@dataclass(frozen=True, kw_only=True)
class Stint:
    """A stretch of time in which a trial held a place; ``end`` is None where nothing says when it ended."""

    host: str
    device: str
    start: float
    """Seconds since the epoch."""
    end: float | None
    ending: Ending


@dataclass(frozen=True, kw_only=True)
class Course:
    """What a trial's log says of its training."""

    evaluations: tuple[Evaluated, ...] = ()
    losses: tuple[tuple[int, float], ...] = ()
    """(step, training loss)."""
    stints: tuple[Stint, ...] = ()
    peak_memory_mb: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A study and all that is known of its trials."""

    study: StudyData
    rows: Sequence[Trial]
    courses: Mapping[int, Course] = field(default_factory=dict)
    """Trial number → its course, where there is a log."""
    confirmed: Sequence[Trial] = ()
    """Trainings of known configurations with other seeds."""
    verdict: Verdict | None = None
    """What the confirmation concluded."""
    test: Mapping[str, Any] | None = None
    """What the one evaluation on the test split gave."""
    slot_hours: float | None = None
    """Hours that slots were there for trials, where that was recorded."""
    running: bool = False
    """Whether a driver is at work on the study."""

    @cached_property
    def answer(self) -> Answer:
        """Which trials are best, and which one is chosen."""
        return Answer(self.study, self.rows, self.verdict, self.test)

    @property
    def goal(self) -> Goal:
        """The first goal, by which trials are ordered."""
        return self.study.objective.goals[0]

    @property
    def maximize(self) -> bool:
        """Whether more is better, in the first goal."""
        return self.goal.direction == "maximize"

    @property
    def ended(self) -> list[Trial]:
        """Trials that count in the budget."""
        return [row for row in self.rows if row.ending.counts]

    @property
    def best(self) -> Trial | None:
        """The best trial; None while there is none, and with several goals."""
        return self.answer.best

    @property
    def chosen(self) -> Trial | None:
        """The study's answer: the trial that the confirmation chose, else the best."""
        return self.answer.chosen

    @property
    def baseline(self) -> Trial | None:
        """The baseline, where the study has one."""
        return self.answer.baseline

    def better(self, left: float, right: float) -> float:
        """Return by how much ``left`` is better than ``right`` in the first goal; negative where it is worse."""
        return left - right if self.maximize else right - left

    def curve(self, row: Trial) -> list[tuple[int, float]]:
        """Return (evaluation, first goal's value) of a trial, oldest first; from its log, else as the pruner saw it."""
        course = self.courses.get(row.number, Course())
        if course.evaluations:
            return [(event.number, event.values[0]) for event in course.evaluations if event.values]
        return list(row.intermediate.items())


def gather(study: StudyData) -> Evidence:
    """Return what is known of a study at this moment; reads its storage and logs, and writes nothing."""
    rows = read(study)
    answer = Answer.read(study, rows)
    return Evidence(
        study=study,
        rows=rows,
        courses=courses(study.place.trials, rows),
        confirmed=Reader(study, suffix=CONFIRM).rows(),
        verdict=answer.verdict,
        test=answer.test,
        slot_hours=slot_hours(study.place),
        running=driver(study.place) is not None,
    )


def courses(trials: Path, rows: Sequence[Trial]) -> dict[int, Course]:
    """Return the course of every trial that has a log under ``trials``."""
    found = {row.number: TrialLog(trials / f"{row.number:04d}").refresh() for row in rows}
    return {number: course(events) for number, events in found.items() if events}


def course(events: Sequence[Event]) -> Course:
    """Return what a trial's events say of its training."""
    ends = [event for event in events if isinstance(event, Finished)]
    return Course(
        evaluations=tuple(event for event in events if isinstance(event, Evaluated)),
        losses=tuple((e.step, e.metrics["loss"]) for e in events if isinstance(e, Logged) and "loss" in e.metrics),
        stints=tuple(_stints(events)),
        peak_memory_mb=max((event.peak_memory_mb for event in ends), default=0.0),
    )


def _stints(events: Sequence[Event]) -> list[Stint]:
    found: list[Stint] = []
    began: Started | None = None
    last = 0.0
    for event in events:
        if isinstance(event, Started):
            if began:
                found.append(_stint(began, last, Ending.stopped))
            began = event
        elif isinstance(event, Finished) and began:
            found.append(_stint(began, event.at, Ending(event.ending)))
            began = None
        last = event.at
    return [*found, _stint(began, None, Ending.running)] if began else found


def _stint(began: Started, end: float | None, ending: Ending) -> Stint:
    return Stint(host=began.host, device=began.device, start=began.at, end=end, ending=ending)


def configuration(study: StudyData, row: Trial) -> dict[str, tuple[Dimension, Scalar]]:
    """Return dimension key → (dimension, label) of a trial; what lies outside the space as it is now is left out."""
    drawn = row.drawn or labels(study.space, row.params)
    return {
        key: (dimension, drawn[key])
        for key, dimension in dimensions(study.space).items()
        if key in drawn and _has(dimension.parameter, drawn[key])
    }


def _has(domain: Domain, label: Scalar) -> bool:
    return label in domain.labels if isinstance(domain, Choice) else domain.contains(label)
