"""Where the trials of a study stand, and how long they take, kept while they change: no decision goes through all of them."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from sweepkit.trial.trial import Ending


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


Rank = tuple[float, int]
"""Minus the sort key of a value, and the trial's number: what sorts trials, the best first."""


class Pace:
    """How long starts and evaluations take: medians, the first evaluation of a trial apart, as it takes longer."""

    def __init__(self, courses: Iterable[Course]) -> None:
        times = [each for course in courses for each in _times(course)]
        self._starts = sorted(seconds for number, seconds in times if number == 0)
        self._firsts = sorted(seconds for number, seconds in times if number == 1)
        self._laters = sorted(seconds for number, seconds in times if number > 1)

    def change(self, old: Course | None, new: Course | None) -> None:
        """Note that a course takes the place of another."""
        before, after = _times(old), _times(new)
        for changed, put in ((before - after, _remove), (after - before, insort)):
            for number, seconds in changed:
                put((self._starts, self._firsts, self._laters)[min(number, 2)], seconds)

    @property
    def lap(self) -> float | None:
        """Seconds of an evaluation, with the training before it; None while none was measured, or where they took no time."""
        return _middle(self._laters) or _middle(self._firsts) or None

    @property
    def start_cost(self) -> float:
        """Cost of a start in evaluations; 0 while it was not measured."""
        return (_middle(self._starts) or 0.0) / self.lap if self.lap else 0.0

    def whole(self, evaluations: int) -> float | None:
        """Return the seconds of a training of so many evaluations, from its start; None while that is unknown."""
        if self.lap is None:
            return None
        return (_middle(self._starts) or 0.0) + (_middle(self._firsts) or 0.0) + (evaluations - 1) * self.lap

    def rest(self, course: Course, evaluations: float) -> float | None:
        """Return the seconds that so many more evaluations of a trial take, by those it had; None while that is unknown."""
        later = [seconds for number, seconds in course.seconds.items() if number > 1]
        if later or self.lap is None:
            return evaluations * fmean(later) if later else None
        first = _middle(self._firsts)
        return evaluations * self.lap * (course.seconds.get(1, first) / first if first else 1.0)


class Standing:
    """Which trials reached an evaluation, which are paused and how many run."""

    def __init__(self, key: Callable[[float], float], courses: Mapping[int, Course]) -> None:
        self._key, self._courses = key, courses
        self._reached: dict[int, list[Rank]] = {}
        self.pace = Pace(courses.values())
        self.paused: dict[int, list[Rank]] = {}
        """Last evaluation → trials that paused there, the best first."""
        self.running = 0
        for course in courses.values():
            self._place(course, 1)

    def reached(self, evaluation: int) -> Sequence[Rank]:
        """Return the trials that reached an evaluation, the best first."""
        if evaluation not in self._reached:
            there = (course for course in self._courses.values() if evaluation in course.values)
            self._reached[evaluation] = sorted(self._rank(course, evaluation) for course in there)
        return self._reached[evaluation]

    def change(self, old: Course | None, new: Course | None) -> None:
        """Note that a course takes the place of another."""
        self.pace.change(old, new)
        for evaluation, ranks in self._reached.items():
            for course, put in ((old, _remove), (new, insort)):
                if course is not None and evaluation in course.values:
                    put(ranks, self._rank(course, evaluation))
        self._place(old, -1)
        self._place(new, 1)

    def but(self, changed: Iterable[tuple[Course, Course]]) -> Standing:
        """Return the same, in which these trials run, paused or ended instead: (as it is, as it would be)."""
        other = Standing(self._key, {})
        other._courses, other._reached, other.pace = self._courses, self._reached, self.pace
        other.paused = {evaluation: list(ranks) for evaluation, ranks in self.paused.items()}
        other.running = self.running
        for old, new in changed:
            other._place(old, -1)
            other._place(new, 1)
        return other

    def _place(self, course: Course | None, count: int) -> None:
        """Put a course where it stands, or take it away from there."""
        if course is None:
            return
        self.running += count * (course.ending is Ending.running)
        if course.ending is Ending.paused:
            ranks, rank = self.paused.setdefault(course.evaluation, []), self._rank(course, course.evaluation)
            if count > 0:
                insort(ranks, rank)
            else:
                _remove(ranks, rank)

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
