"""Runs trials on a virtual clock: each is a look-up of a course that is known, so that a study takes seconds."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from sweepkit.backends import Session
from sweepkit.study.paths import LAST
from sweepkit.trial.events import Checkpointed, Evaluated, Finished, Started
from sweepkit.trial.trial import Ending, TrialSpec


@dataclass(frozen=True)
class Lap:
    """One evaluation, and the seconds since the one before or the start."""

    seconds: float
    metrics: Mapping[str, float]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Known:
    """The course of a configuration: it starts, is evaluated and ends so, unless it is stopped before."""

    laps: Sequence[Lap]
    start_seconds: float = 0.0
    """Before training, each time a process starts."""
    rest_seconds: float = 0.0
    """After the last evaluation."""
    ending: Mapping[str, Any] = field(default_factory=lambda: {"ending": Ending.complete})
    """Fields of its :class:`Finished`."""


class VirtualBackend:
    """Runs trials in the order in which real ones would report, until ``limit`` seconds of all slots together are spent."""

    gpus, description = 0.0, ""

    def __init__(self, slots: int, look_up: Callable[[TrialSpec], Known], *, limit: float = inf) -> None:
        self.slots = slots
        self._look_up = look_up
        self._limit = limit
        self.now = 0.0
        """Seconds since the first trial started."""
        self._agenda: list[tuple[float, int, int]] = []
        self._running: dict[int, tuple[TrialSpec, Known]] = {}
        self._since: dict[int, float] = {}
        self.spent = 0.0
        """Seconds of all trials."""
        self.reached: dict[int, int] = {}
        """Trial → its last evaluation."""
        self.repeated = 0
        """Evaluations that were made again."""
        self.ended: list[tuple[float, int, Ending]] = []
        """Seconds spent until then, trial, and how it ended."""
        self.cut: list[int] = []
        """Trials that would have gone on, but are known only up to where they were pruned."""

    def drive(self, session: Session) -> None:
        """Run trials until nothing is left to start, or the limit is spent."""
        while True:
            while len(self._running) < self.slots and (spec := session.next()) is not None:
                self._start(session, spec)
            if not self._agenda or self.spent >= self._limit:
                return
            now, number, evaluation = heapq.heappop(self._agenda)
            self.now = now
            self._step(session, number, evaluation)

    def _start(self, session: Session, spec: TrialSpec) -> None:
        known, done = self._look_up(spec), len(spec.evaluations)
        self._running[spec.number], self._since[spec.number] = (spec, known), self.now
        self.repeated += self.reached.setdefault(spec.number, 0) - done
        self.spent += known.start_seconds
        session.handle(Started(trial=spec.number, at=self.now + known.start_seconds, attempt=spec.attempt))
        self._plan(spec.number, done + 1, self.now + known.start_seconds)

    def _plan(self, number: int, evaluation: int, since: float) -> None:
        laps = self._running[number][1].laps
        seconds = laps[evaluation - 1].seconds if evaluation <= len(laps) else self._running[number][1].rest_seconds
        heapq.heappush(self._agenda, (since + seconds, number, evaluation))

    def _step(self, session: Session, number: int, evaluation: int) -> None:
        spec, known = self._running[number]
        if evaluation > len(known.laps):
            self.spent += known.rest_seconds
            self._run_out(session, number, known)
            return
        lap = known.laps[evaluation - 1]
        self.spent += lap.seconds
        self.reached[number] = evaluation
        final = evaluation == len(known.laps) and known.ending["ending"] == Ending.complete
        event = Evaluated(
            trial=number,
            at=self.now,
            number=evaluation,
            step=evaluation,
            epoch=float(evaluation),
            metrics=lap.metrics,
            values=lap.values,
            final=final,
        )
        session.tick()
        answer = session.handle(event)
        if answer == "stop":
            self._checkpoint(session, spec, evaluation)
            self._end(session, number, ending=Ending.stopped)
        elif answer == "prune":
            self._end(session, number, ending=Ending.pruned)
        elif evaluation == len(known.laps) and not known.rest_seconds:
            self._run_out(session, number, known)
        else:
            self._plan(number, evaluation + 1, self.now)

    def _run_out(self, session: Session, number: int, known: Known) -> None:
        if known.ending["ending"] == Ending.pruned:
            self.cut.append(number)
        self._end(session, number, **known.ending)

    def _checkpoint(self, session: Session, spec: TrialSpec, evaluation: int) -> None:
        folder = Path(spec.directory) / LAST / f"checkpoint-{evaluation}"
        folder.mkdir(parents=True, exist_ok=True)
        for older in folder.parent.iterdir():
            if older != folder:
                older.rmdir()
        at, path = self.now, str(folder)
        session.handle(Checkpointed(trial=spec.number, at=at, step=evaluation, role="last", path=path))

    def _end(self, session: Session, number: int, **facts: Any) -> None:
        del self._running[number]
        self.ended.append((self.spent, number, Ending(facts["ending"])))
        seconds = self.now - self._since.pop(number)
        session.handle(Finished(trial=number, at=self.now, seconds=seconds, **facts))
