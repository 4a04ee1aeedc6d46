"""Which trials go on, and what a free slot trains: the interface of a strategy, and what it sees of a study.

A strategy is asked twice: :meth:`Strategy.report` at each evaluation, whether the trial goes on, and :meth:`Strategy.ask`
where a slot is free, what to train there. Both follow from what is stored alone (:class:`Seen`): a strategy keeps nothing
between two calls but what it could compute again, and takes chance from the study's seed. So a study that is killed at any
moment makes the same decisions when it resumes, unless they depend on the time that is left. The search stores each decision
with its reason before anyone acts on it, and gives the same answer when the same evaluation is reported again.

Strategies need not care about the rest. The baseline and a trial at its final evaluation always go on. A pause at which
:meth:`Strategy.ask` would continue the same trial becomes ``continue``, so that no process ends for nothing. A trial that was
paused resumes from its last checkpoint, whichever that is. What is still paused when the study ends is pruned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from sweepkit.search.standing import Course, Rank, Standing
from sweepkit.study.configurations import Configuration
from sweepkit.trial.events import Evaluated
from sweepkit.trial.trial import Ending

Word = Literal["continue", "pause", "prune"]

SLACK = 1.1
"""Times the seconds that a training is expected to take, by those before it, are put aside for it."""
SLOWEST = 10
"""Times the median that no training is expected to take."""


@dataclass(frozen=True)
class TimeLeft:
    """What a budget of time leaves."""

    to_start: float
    """Seconds until nothing may start any more."""
    grace: float
    """Seconds after that until what runs is stopped."""
    together: float = math.inf
    """Seconds of training, of all trials together, until nothing may start any more."""

    def among(self, trials: int) -> TimeLeft:
        """Return what is left to each where so many trials run at a time."""
        return TimeLeft(min(self.to_start, self.together / trials), self.grace)


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

    @cached_property
    def _left(self) -> TimeLeft | None:
        """What a slot that is free now has left."""
        return None if self.time is None else self.time.among(self.standing.running + 1)

    @property
    def trainings(self) -> float:
        """Whole trainings that a slot has time for; infinite without a limit, and while their time is unknown."""
        each = None if self.evaluations is None else self.standing.pace.whole(self.evaluations)
        return math.inf if self._left is None or each is None else self._left.to_start / (SLACK * each)

    def missing(self, least: int) -> int:
        """Return how many trials but the baseline must still be trained to their end, or be on their way, to be so many."""
        return max(0, least - self.hopeful(Ending.running))

    def hopeful(self, *going: Ending) -> int:
        """Return how many trials but the baseline were trained to their end, or are ``going`` and may be in time."""
        others = [each for each in self.courses.values() if not each.spared]
        complete = sum(each.ending is Ending.complete for each in others)
        return complete + sum(each.ending in going and self.may_finish(each) for each in others)

    def may_start(self, least: int) -> bool:
        """Whether a new trial may start, and leaves the time to finish what is missing to ``least`` complete ones.

        While there is none but the baseline that could, one starts whatever the time.
        """
        trainings = self.trainings
        if not self.room or trainings >= 1 + least:
            return self.room
        if not self.hopeful(Ending.running, Ending.paused):
            return True
        rounds = math.ceil(self.missing(least) / (1 + self.standing.running)) if self.paused_at else 0
        return trainings >= 1 + rounds

    def may_finish(self, course: Course, *, at: bool = False) -> bool:
        """Whether there is time to train a trial that runs or is paused to its end, as far as is known.

        ``at``: it is just being evaluated; else one that runs may be about to be.
        """
        if self._left is None or self.evaluations is None:
            return True
        runs, pace = course.ending is Ending.running, self.standing.pace
        rest = pace.rest(course, max(0, self.evaluations - course.evaluation - (runs and not at)))
        if rest is None or pace.lap is None:
            return True
        return SLACK * (rest + (0.0 if runs else pace.start_cost * pace.lap)) <= self._left.to_start + self._left.grace

    @cached_property
    def in_time(self) -> Seen:
        """The study without the paused trials that cannot be trained to their end in time: they count as pruned."""
        if self.trainings >= SLOWEST:
            return self  # without a look at all that are paused
        return self._with(Ending.pruned, [course for course in self.paused if not self.may_finish(course)])

    def with_paused(self, number: int) -> Seen:
        """Return the study as it would be if this trial paused: alone, where those that are paused may not go on any more."""
        closed = self.time is not None and self.time.to_start <= 0
        over = [each for each in self.paused if closed and each.number != number]
        return self._with(Ending.pruned, over)._with(Ending.paused, [self.courses[number]])

    def _with(self, ending: Ending, courses: Sequence[Course]) -> Seen:
        changed = [(each, replace(each, ending=ending)) for each in courses]
        if not changed:
            return self
        kept = self.standing.but(changed)
        return replace(self, courses={**self.courses, **{each.number: each for _, each in changed}}, kept=kept)


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
