"""Which trials go on, and what a free slot trains: the interface of a strategy, and what it sees of a study.

A strategy is asked twice: :meth:`Strategy.report` at each evaluation, whether the trial goes on, and :meth:`Strategy.ask`
where a slot is free, what to train there. Both follow from what is stored alone (:class:`Seen`): a strategy keeps nothing
between two calls but what it could compute again, and takes chance from the study's seed. So a study that is killed at any
moment makes the same decisions when it resumes. The search stores each decision with its reason before anyone acts on it, and
gives the same answer when the same evaluation is reported again.

Strategies need not care about the rest. The baseline and a trial at its final evaluation always go on. A pause at which
:meth:`Strategy.ask` would continue the same trial becomes ``continue``, so that no process ends for nothing. A trial that was
paused resumes from its last checkpoint, whichever that is. What is still paused when the study ends is pruned.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import fmean
from typing import Any, Literal

from sweepkit.study.configurations import Configuration
from sweepkit.trial.events import Evaluated
from sweepkit.trial.trial import Ending

Word = Literal["continue", "pause", "prune"]

SLACK = 1.1
"""Times the seconds that a training is expected to take, by those before it, are put aside for it."""
SLOWEST = 10
"""Times the median that no training is expected to take."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """A trial that was started, as a strategy sees it."""

    number: int
    ending: Ending
    """``running``, ``paused`` or how it ended; a trial that was interrupted counts as running."""
    spared: bool
    """Whether it is the baseline, which is neither pruned nor paused."""
    params: Mapping[str, Any]
    """Hyperparameters by their consumers' names."""
    drawn: Mapping[str, Any]
    """Sampler's dimension → number or label."""
    values: dict[int, float]
    """Evaluation (from 1), in order → value of the deciding goal so far, by the objective's rule (best, last or mean)."""
    seconds: Mapping[int, float]
    """Evaluation → seconds since the one before, or since training began or went on; without those nobody measured."""
    start_seconds: float | None
    """Seconds that the start of a process took before it trained, the last time that an end of one was seen."""

    @property
    def evaluation(self) -> int:
        """Number of the last evaluation; 0 before the first."""
        return next(reversed(self.values), 0)

    def until(self, evaluation: int) -> Course:
        """Return the course as it was at this evaluation, which is being repeated if there are later ones."""
        return replace(self, values={number: value for number, value in self.values.items() if number <= evaluation})


@dataclass(frozen=True)
class TimeLeft:
    """What a budget of time leaves."""

    to_start: float
    """Seconds until nothing may start any more."""
    to_end: float
    """Seconds until what runs is stopped."""


Rank = tuple[float, int]
"""Minus the sort key of a value, and the trial's number: what sorts trials, the best first."""


class Standing:
    """Where trials stand, kept while courses change, so that no decision has to go through all of them."""

    def __init__(self, key: Callable[[float], float], courses: Mapping[int, Course]) -> None:
        self._key, self._courses = key, courses
        self._reached: dict[int, list[Rank]] = {}
        self.paused: dict[int, list[Rank]] = {}
        """Last evaluation → trials that paused there, the best first."""
        self._laps: list[float] = []
        self._starts: list[float] = []
        for course in courses.values():
            self._pause(course)
            self._time(None, course)

    @property
    def lap(self) -> float | None:
        """Median seconds of an evaluation; None while none was measured, or where they took no time."""
        return _middle(self._laps) or None

    @property
    def start_cost(self) -> float:
        """Median cost of a start in evaluations, as measured; 0 while it was not."""
        return (_middle(self._starts) or 0.0) / self.lap if self.lap else 0.0

    def reached(self, evaluation: int) -> Sequence[Rank]:
        """Return the trials that reached an evaluation, the best first."""
        if evaluation not in self._reached:
            there = (course for course in self._courses.values() if evaluation in course.values)
            self._reached[evaluation] = sorted(self._rank(course, evaluation) for course in there)
        return self._reached[evaluation]

    def change(self, old: Course | None, new: Course | None) -> None:
        """Note that a course takes the place of another."""
        self._time(old, new)
        for evaluation, ranks in self._reached.items():
            for course, put in ((old, _remove), (new, insort)):
                if course is not None and evaluation in course.values:
                    put(ranks, self._rank(course, evaluation))
        if old is not None and old.ending is Ending.paused:
            _remove(self.paused[old.evaluation], self._rank(old, old.evaluation))
        if new is not None:
            self._pause(new)

    def with_paused(self, course: Course) -> Standing:
        """Return the same with one more that is paused, which stands where it stood."""
        other = Standing(self._key, {})
        other._courses, other._reached = self._courses, self._reached
        other._laps, other._starts = self._laps, self._starts
        other.paused = {evaluation: list(ranks) for evaluation, ranks in self.paused.items()}
        other._pause(course)
        return other

    def _pause(self, course: Course) -> None:
        if course.ending is Ending.paused:
            insort(self.paused.setdefault(course.evaluation, []), self._rank(course, course.evaluation))

    def _time(self, old: Course | None, new: Course | None) -> None:
        """Note what a course's evaluations and its start took."""
        before, after = _times(old), _times(new)
        for changed, put in ((before - after, _remove), (after - before, insort)):
            for evaluation, seconds in changed:
                put(self._laps if evaluation else self._starts, seconds)

    def _rank(self, course: Course, evaluation: int) -> Rank:
        return -self._key(course.values.get(evaluation, float("nan"))), course.number


def _times(course: Course | None) -> set[tuple[int, float]]:
    """Return the seconds of a course's evaluations, by number, and of its start, under 0."""
    if course is None:
        return set()
    start = set() if course.start_seconds is None else {(0, course.start_seconds)}
    return start.union(course.seconds.items())


def _remove(ordered: list[Any], each: Any) -> None:
    del ordered[bisect_left(ordered, each)]


def _middle(ordered: Sequence[float]) -> float | None:
    """Return the median of what is in order."""
    count = len(ordered)
    return (ordered[(count - 1) // 2] + ordered[count // 2]) / 2 if count else None


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A study as a strategy sees it, at one moment."""

    courses: Mapping[int, Course]
    """Trials that were started, by number."""
    room: bool
    """Whether a new trial may start: the budget has one left, and there is something new to try."""
    evaluations: int | None
    """Evaluations of a whole trial; None while that is unknown."""
    key: Callable[[float], float]
    """Sort key of a value: higher is better, NaN is lowest."""
    draw: Callable[..., list[Configuration]]
    """``draw(count, near)`` returns at most so many configurations that the space and its constraints allow and that were not
    tried: at random, or half of them near the ones given (dimension → label)."""
    kept: Standing | None = None
    """Where these courses stand, if that was kept; it is found out otherwise."""
    time: TimeLeft | None = None
    """What the budget of time leaves; None without one."""

    @cached_property
    def standing(self) -> Standing:
        """Where the trials stand at each evaluation, and which are paused there."""
        return self.kept or Standing(self.key, self.courses)

    @property
    def paused(self) -> Sequence[Course]:
        """The paused trials: those with most evaluations first, among these the best first."""
        return [self.courses[number] for _, ranks in self.paused_at for _, number in ranks]

    @property
    def paused_at(self) -> Sequence[tuple[int, Sequence[Rank]]]:
        """The paused trials by their last evaluation, the highest first; there the best first."""
        return sorted(((at, ranks) for at, ranks in self.standing.paused.items() if ranks), reverse=True)

    @property
    def trainings(self) -> float:
        """Whole trainings that a slot has time for; infinite without a limit, and while their time is unknown."""
        standing = self.standing
        if self.time is None or self.evaluations is None or standing.lap is None:
            return math.inf
        return self.time.to_start / (SLACK * standing.lap * (self.evaluations + standing.start_cost))

    def missing(self, least: int) -> int:
        """Return how many trials but the baseline must still be trained to their end, or be on their way, to be so many."""
        return max(0, least - self.hopeful(Ending.running))

    def hopeful(self, *going: Ending) -> int:
        """Return how many trials but the baseline were trained to their end, or are ``going`` and may be in time."""
        others = [each for each in self.courses.values() if not each.spared]
        complete = sum(each.ending is Ending.complete for each in others)
        return complete + sum(each.ending in going and self._may_finish(each) for each in others)

    def may_start(self, least: int) -> bool:
        """Whether a new trial may start, and leaves the time to finish what is missing to ``least`` complete ones."""
        trainings = self.trainings
        if not self.room or trainings >= 1 + least:
            return self.room
        slots = 1 + sum(each.ending is Ending.running for each in self.courses.values())
        return trainings >= 1 + (math.ceil(self.missing(least) / slots) if self.paused_at else 0)

    @property
    def in_time(self) -> Seen:
        """The study without the paused trials that cannot be trained to their end in time: they count as pruned."""
        if self.trainings >= SLOWEST:
            return self  # without a look at all that are paused
        return self._without([course for course in self.paused if not self._may_finish(course)])

    def _may_finish(self, course: Course) -> bool:
        """Whether there is time to train a trial that runs or is paused to its end, as far as is known."""
        standing = self.standing
        if self.time is None or self.evaluations is None or standing.lap is None:
            return True
        lap = fmean(course.seconds.values()) if course.seconds else standing.lap
        start = 0.0 if course.ending is Ending.running else standing.start_cost * standing.lap
        return SLACK * ((self.evaluations - course.evaluation) * lap + start) <= self.time.to_end

    def _without(self, paused: Sequence[Course]) -> Seen:
        over = {course.number: replace(course, ending=Ending.pruned) for course in paused}
        return replace(self, courses={**self.courses, **over}, kept=None) if over else self

    def with_paused(self, number: int) -> Seen:
        """Return the study as it would be if this trial paused: alone, where those that are paused may not go on any more."""
        seen = self._without(self.paused) if self.time is not None and self.time.to_start <= 0 else self
        course = replace(seen.courses[number], ending=Ending.paused)
        already = seen.courses[number].ending is Ending.paused
        kept = seen.standing if already else seen.standing.with_paused(course)
        return replace(seen, courses={**seen.courses, number: course}, kept=kept)


@dataclass(frozen=True)
class Ruling:
    """The answer to an evaluation."""

    answer: Word = "continue"
    why: str = ""
    """One line for people, stored and shown with the trial; without one, ``continue`` is not stored."""
    written: Mapping[str, Any] = field(default_factory=dict)
    """System attributes of Optuna's for the trial, attached once the answer is stored."""


@dataclass(frozen=True)
class Next:
    """What a free slot trains: the paused trial ``number``, else a new trial."""

    number: int | None = None
    why: str = ""
    """One line for people, stored and shown with the trial."""
    configuration: Configuration | None = None
    """Of a new trial; None lets the sampler propose. One queued by hand, or the study file's own, comes first."""
    ends: bool = False
    """Whether nothing is worth its training any more; ``why`` says it of the study."""


class Strategy:
    """Every trial is trained to its end, also one that paused under another strategy, with which the study ran before."""

    def report(self, event: Evaluated, seen: Seen) -> Ruling:
        """Decide whether the trial goes on after this evaluation, its last one in ``seen``."""
        return Ruling()

    def ask(self, seen: Seen) -> Next | None:
        """Decide what a free slot trains; None: nothing now. Called again whenever something happened; may be asked in vain."""
        if paused := seen.paused:
            return Next(paused[0].number)
        return Next() if seen.room else None
