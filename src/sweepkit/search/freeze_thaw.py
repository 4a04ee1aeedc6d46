"""Freeze-thaw: pauses trials, and resumes those expected to improve most on the best one for the least training.

After Swersky, Snoek and Adams 2014, with the acquisition of Ament et al. 2023: at a free slot every paused trial and a set of
new configurations are rated by the logarithm of their expected improvement at the end of their training, minus that of the
evaluations they still need, a start included. What it improves on is the best end that is expected of any trial: else a new
configuration would be tried for as long as none was trained to its end. What runs counts as if it had come where it is
expected, so that several slots do not try the same. No trial pauses at an evaluation that says nothing: see :func:`_tells`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sweepkit.search.curves import Array, CurveModel, Points, log_expected_improvement, scores
from sweepkit.search.samplers import share_of
from sweepkit.search.standing import Course
from sweepkit.search.strategy import Next, Ruling, Seen, Strategy
from sweepkit.study.configurations import Configuration
from sweepkit.trial.events import Evaluated
from sweepkit.trial.trial import Ending

RANDOM_TRIALS = 8
"""Trials, the baseline among them, before the model is asked."""
SHARES = (0.1, 0.2, 0.36, 0.6)
"""Shares of a whole training after which a trial may pause; before a tenth, curves say little about how they will end."""
CANDIDATES = 200
"""New configurations rated at a time: half of them at random, half around the best trials."""
AROUND = 5
"""Trials that new configurations are looked for around."""
POINTS = 260
"""Evaluations that the model is given at most, as its time grows with their third power."""
FIT_POINTS = 100
"""Evaluations that the hyperparameters are fitted to."""
SAME = 0.01
"""Difference that is taken for none, in parts of what the best of the first trials is ahead of their worst quarter at first."""
LEFT = 0.1
"""Part of its way that the best complete trial must have come by an evaluation for others to pause there."""
MARGIN = 0.1
"""Improvement, in standard deviations of the scores, that does not count in what goes on: where many trials are at one level,
such as chance, each would else be trained to its end for a difference that means nothing."""
LEAST_START = 0.25
"""Cost of a start, in evaluations, below which it counts as none."""
WORTH = 0.01
"""Expected improvement, in standard deviations of the scores, below which nothing is finished once no more trials start."""


def pauses(evaluations: int) -> list[int]:
    """Return the evaluations after which a trial of so many may pause.

    >>> pauses(5), pauses(50)
    ([1, 2, 3], [5, 10, 18, 30])
    """
    return sorted({max(1, round(share * evaluations)) for share in SHARES} - {evaluations})


class FreezeThaw(Strategy):
    """Freeze-thaw over these dimensions; ``least`` trials are trained to their end, whatever is expected of them.

    ``worth`` is the improvement per hour of training below which nothing goes on. ``earlier`` are trials of other studies
    (dimension → label) with the normal scores of their ranks.
    """

    def __init__(
        self,
        distributions: Mapping[str, BaseDistribution],
        *,
        least: int = 1,
        worth: float | None = None,
        earlier: Sequence[tuple[Mapping[str, object], float]] = (),
    ) -> None:
        self._cube = _Cube(distributions, earlier)
        self._least = least
        self._worth = worth
        self._known: tuple[object, Next | None] = ((), None)

    def report(self, event: Evaluated, seen: Seen) -> Ruling:
        """Return ``pause`` where trials may pause: what goes on is decided where all that could is compared."""
        whole = seen.evaluations
        may = whole is not None and event.number in pauses(whole) and _tells(seen, event.number)
        return Ruling("pause" if may else "continue")

    def ask(self, seen: Seen) -> Next | None:
        """Return the paused trial or the new configuration that is expected to improve most for its cost."""
        seen = seen.in_time
        seen = replace(seen, room=seen.may_start(self._least))
        courses = [(course.number, course.ending, course.evaluation) for course in seen.courses.values()]
        asked = courses, seen.room, seen.missing(self._least)
        if self._known[0] != asked:  # the same question, as a trial that pauses frees its slot
            self._known = asked, self._decide(seen)
        return self._known[1]

    def _decide(self, seen: Seen) -> Next | None:
        evaluated = sum(course.evaluation > 0 or _lost(course) for course in seen.courses.values())
        if seen.room and (len(seen.courses) < RANDOM_TRIALS or evaluated < RANDOM_TRIALS // 2):
            return Next(why="one of the first trials, at random")
        anything = Next() if seen.room else None
        if not evaluated or seen.evaluations is None:
            return anything
        view = _View(seen, self._cube)
        going, new = view.rate_paused(), view.rate_new() if seen.room else None
        best = max((each for each in (going, new) if each is not None), key=lambda each: each.worth, default=None)
        if best is None:
            return anything
        hourly, short = view.per_hour(best), bool(seen.missing(self._least))
        if self._worth is not None and hourly < self._worth:
            if not short:
                said = f"the expected improvement is {hourly:.2g} per hour, less than {self._worth:g}"
                return Next(why=f"budget.worth: {said}", ends=True)
            best = going or best
        return best.next(view) if seen.room or short or best.gain > np.log(WORTH) else None


@dataclass(frozen=True)
class _Rated:
    """A paused trial or a new configuration, and what is expected of it."""

    what: Course | Configuration
    mean: float
    deviation: float
    cost: float
    """Evaluations it still needs, a start included."""
    gain: float
    """Logarithm of the expected improvement."""
    worth: float
    """Logarithm of what is expected beyond the margin, for each evaluation."""

    def next(self, view: _View) -> Next:
        """Return the decision for it."""
        expected = view.in_words(self.mean, self.deviation)
        if isinstance(self.what, Course):
            return Next(self.what.number, f"continued after evaluation {self.what.evaluation}: {expected}")
        return Next(configuration=self.what, why=f"started: {expected}")


class _Cube:
    """The space as a unit cube, in which a choice has a column for every label, and what earlier studies expect in it."""

    def __init__(
        self, distributions: Mapping[str, BaseDistribution], earlier: Sequence[tuple[Mapping[str, object], float]]
    ) -> None:
        self._distributions = distributions
        widths = map(_width, distributions.values())
        self.groups = [group for group, width in enumerate(widths) for _ in range(width)] or [0]
        """The parameter that each column belongs to."""
        self._model: CurveModel | None = None
        if earlier:
            places, nothing = np.array([self._place(drawn) for drawn, _ in earlier]), np.zeros(len(earlier))
            points = Points(places, nothing + 1, np.arange(len(earlier)), nothing)
            self._model = CurveModel(points, np.array([score for _, score in earlier]), self.groups)

    def points(self, drawn: Sequence[Mapping[str, object]], progress: Array, trials: NDArray[np.int64]) -> Points:
        """Return the points of these configurations (dimension → label)."""
        places, nothing = np.array([self._place(each) for each in drawn]), np.zeros(len(drawn))
        points = Points(places, np.asarray(progress, dtype=float), trials, nothing)
        if self._model is None:
            return points
        ends = replace(points, progress=nothing + 1, trials=-1 - np.arange(len(drawn)))
        return replace(points, expected=self._model.predict(ends)[0])

    def _place(self, drawn: Mapping[str, object]) -> list[float]:
        shares = (_shares(each, drawn.get(key, _NONE)) for key, each in self._distributions.items())
        return [share for each in shares for share in each] or [0.5]


class _View:
    """The model of what was seen at one moment."""

    def __init__(self, seen: Seen, cube: _Cube) -> None:
        assert seen.evaluations is not None
        self._seen = seen
        self._whole = seen.evaluations
        self._cube = cube
        self._stops = {*pauses(self._whole), self._whole}
        rows = self._rows()
        self._values = np.array([value for _, _, value in rows])
        self._scores = scores(np.round((self._values - self._values.max()) / _resolution(seen)))
        points = self._points([(course, evaluation) for course, evaluation, _ in rows])
        model = CurveModel(points, self._scores, cube.groups, fit_to=_spread(len(rows), FIT_POINTS))
        running = [course for course in seen.courses.values() if course.ending is Ending.running]
        if running:
            coming = self._points([(course, self._next_stop(course)) for course in running])
            points, expected = points + coming, np.append(self._scores, model.predict(coming)[0])
            model = CurveModel(points, expected, cube.groups, fitted=model.fitted)
        self._model = model
        going = [course for course in seen.courses.values() if course.evaluation and _alive(course, seen)]
        ends = model.predict(self._points([(course, self._whole) for course in going]))[0] if going else np.zeros(0)
        self._best = float(max(ends, default=0.0))
        order = np.argsort(-ends, kind="stable")[:AROUND]
        self._leaders = [going[index] for index in order]

    def rate_paused(self) -> _Rated | None:
        """Return the best of the paused trials; None without any."""
        paused = self._seen.paused
        if not paused:
            return None
        asked = self._points([(course, self._whole) for course in paused])
        return self._rate(paused, asked, np.array([self._whole - course.evaluation for course in paused]))

    def rate_new(self) -> _Rated | None:
        """Return the best of the new configurations; None where everything was tried."""
        drawn = self._seen.draw(CANDIDATES, [course.drawn for course in self._leaders])
        if not drawn:
            return None
        asked = self._cube.points([each.params for each in drawn], np.ones(len(drawn)), -1 - np.arange(len(drawn)))
        return self._rate(drawn, asked, np.full(len(drawn), self._whole))

    def _rate(self, each: Sequence[Course | Configuration], ends: Points, evaluations: NDArray[np.int64]) -> _Rated:
        """Return the best of these by what is expected at their ends, where they still need so many evaluations."""
        mean, deviation = self._model.predict(ends)
        cost = evaluations + _coarse(self._seen.standing.pace.start_cost)
        worth = log_expected_improvement(mean, deviation, self._best + MARGIN) - np.log(cost)
        first = int(np.argmax(worth))
        gain = log_expected_improvement(mean, deviation, self._best)[first]
        return _Rated(each[first], mean[first], deviation[first], cost[first], gain, worth[first])

    def per_hour(self, rated: _Rated) -> float:
        """Return the improvement expected of it, in the metric's own unit, per hour of its training; infinite if unknown.

        A score's unit is what it is among the better quarter of what was seen.
        """
        lap = self._seen.standing.pace.lap
        order = np.argsort(self._scores)[-max(2, len(self._scores) // 4) :]
        rise, run = (float(each[order[-1]] - each[order[0]]) for each in (self._values, self._scores))
        if lap is None or run <= 0:
            return float("inf")
        return float(np.exp(rated.gain)) * rise / run / (rated.cost * lap / 3600)

    def in_words(self, mean: float, deviation: float) -> str:
        """Return what is expected at the end, and of the best trial, in the metric's own unit."""
        order = np.argsort(self._scores)
        known = np.array([mean - deviation, mean, mean + deviation, self._best])
        low, middle, high, best = np.interp(known, self._scores[order], self._values[order]) * self._seen.key(1.0)
        return f"expected {middle:.4g} ± {abs(high - low) / 2:.2g} at the end, the best trial's is {best:.4g}"

    def _rows(self) -> list[tuple[Course, int, float]]:
        """Return evaluations with their values, higher is better; where there are too many, first each trial's last.

        Of more trials than points, the better half of the points are the best trials and the others any of the rest.
        """
        last, earlier = [], []
        for course in self._seen.courses.values():
            if _lost(course):
                last.append((course, self._whole, float("nan")))
            for evaluation in sorted(course.values):
                row = course, evaluation, self._seen.key(course.values[evaluation])
                if evaluation == course.evaluation:
                    last.append(row)
                elif evaluation in self._stops:
                    earlier.append(row)
        last.sort(key=_value)
        most = POINTS // 2 if len(last) > POINTS else POINTS
        kept = last[:most] + [last[most:][place] for place in _spread(len(last) - most, POINTS - most)]
        rows = kept + sorted(earlier, key=_value)[: POINTS - len(kept)]
        worst = min((value for *_, value in rows if np.isfinite(value)), default=0.0)
        rows = [(course, at, value if np.isfinite(value) else worst - 1.0) for course, at, value in rows]
        return sorted(rows, key=lambda row: (row[0].number, row[1]))

    def _points(self, rows: Sequence[tuple[Course, int]]) -> Points:
        progress = np.log1p([evaluation for _, evaluation in rows]) / np.log1p(self._whole)
        return self._cube.points(
            [course.drawn for course, _ in rows], progress, np.array([course.number for course, _ in rows])
        )

    def _next_stop(self, course: Course) -> int:
        return min((stop for stop in self._stops if stop > course.evaluation), default=self._whole)


_NONE = object()


def _lost(course: Course) -> bool:
    return course.ending in (Ending.diverged, Ending.infeasible)


def _tells(seen: Seen, evaluation: int) -> bool:
    """Whether an evaluation says something: not where the best complete trial had hardly left the median of the first ones,
    which it left behind later. A pause there would have stopped that one, too.
    """
    complete = [each for each in seen.courses.values() if each.ending is Ending.complete and each.evaluation]
    leader = max(complete, key=lambda course: _so_far(course, seen), default=None)
    first = [course.until(evaluation) for course in list(seen.courses.values())[:RANDOM_TRIALS] if course is not leader]
    others = [_so_far(course, seen) for course in first if course.evaluation and np.isfinite(_so_far(course, seen))]
    if leader is None or not others:
        return True
    end, there = _so_far(leader, seen), _so_far(leader.until(evaluation), seen)  # it may have ended before, early
    level = float(np.median(others))
    return end - level <= _resolution(seen) or there - level >= LEFT * (end - level)


def _so_far(course: Course, seen: Seen) -> float:
    return seen.key(course.values[course.evaluation])


def _resolution(seen: Seen) -> float:
    """Return the difference between values that counts as none, lest a plateau's last digits be ranked."""
    first = [course.values[1] for course in list(seen.courses.values())[:RANDOM_TRIALS] if 1 in course.values]
    keys = [seen.key(value) for value in first if np.isfinite(value)]
    return max(SAME * float(max(keys) - np.quantile(keys, 0.25)), 1e-12) if keys else 1e-12


def _coarse(start_cost: float) -> float:
    """Round what a start costs, in evaluations, to a power of two, lest the clock's noise decide between equal trials."""
    return 2.0 ** round(np.log2(start_cost)) if start_cost >= LEAST_START else 0.0


def _alive(course: Course, seen: Seen) -> bool:
    """Whether a trial was trained to its end, or may be."""
    return course.ending in (Ending.complete, Ending.paused) or (
        course.ending is Ending.running and seen.may_finish(course)
    )


def _value(row: tuple[Course, int, float]) -> float:
    return -row[2] if np.isfinite(row[2]) else float("inf")


def _spread(count: int, most: int) -> NDArray[np.int64]:
    return np.linspace(0, count - 1, max(0, min(count, most))).round().astype(np.int64)


def _width(distribution: BaseDistribution) -> int:
    return len(distribution.choices) if isinstance(distribution, CategoricalDistribution) else 1


def _shares(distribution: BaseDistribution, label: object) -> list[float]:
    """Return a label's place in the unit cube; one that a branch leaves out lies in the middle, with no choice made."""
    if isinstance(distribution, CategoricalDistribution):
        return [0.7 * (label == choice and type(label) is type(choice)) for choice in distribution.choices]
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    if not isinstance(label, (int, float)):
        return [0.5]
    return [share_of(distribution, label)]
