"""The verdict over confirmation runs: means, intervals, which configurations differ, and how much was luck.

Seeds that collapsed are counted apart. Intervals of a mean are Student's t over the seeds, within the metric's range;
values that do not vary between seeds have none, and the best mean's reaches lower, as it was chosen for being the best. Each
configuration is compared with the baseline, and the others with each other: where nothing differs, at least 95 of 100
studies find nothing. See :mod:`sweepkit.report.statistics`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from pydantic import TypeAdapter

from sweepkit.report.statistics import Noise, best_of, compare, deviation, without_collapsed
from sweepkit.study import words
from sweepkit.study.damage import read_json
from sweepkit.study.files import write_whole
from sweepkit.study.objective import Direction
from sweepkit.study.paths import Place
from sweepkit.tasks.metrics import limits

ALPHA = 0.05
WELCH = "Welch's t-test between the seeds' values, with Holm's correction"
DUNNETT = "Dunnett's test of each against the baseline; among the others Welch's t-test, with Holm's correction"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A configuration to judge: its trial in the search, and a value per new seed."""

    number: int
    values: tuple[float, ...]
    baseline: bool = False
    searched: float | None = None
    """Its value in the search; None where it had none."""
    lost: int = 0
    """Seeds without a value: the training failed, diverged or ran out of memory."""
    collapsed: tuple[float, ...] = ()
    """Values of seeds that ended far below the others; ``values`` are the others."""

    @property
    def title(self) -> str:
        """The trial's number, and whether it is the baseline."""
        return f"trial {self.number}" + (" (the baseline)" if self.baseline else "")


@dataclass(frozen=True, kw_only=True)
class Estimate(Candidate):
    """One configuration over new seeds."""

    mean: float
    std: float
    """Standard deviation between seeds (n - 1)."""
    low: float | None
    high: float | None
    """95 % interval of the mean, from ``low`` to ``high``; None where all seeds have the same value."""

    @property
    def text(self) -> str:
        """Mean and standard deviation, or the one value of all seeds, with their number and how many collapsed."""
        count, all_of = len(self.values), len(self.values) + len(self.collapsed)
        seeds = f"{count} of {words.plural(all_of, 'new seed')}" if self.collapsed else words.plural(count, "new seed")
        if not self.std:
            return f"{words.value(self.mean)} with each of {seeds}"
        return f"{words.value(self.mean)} ± {words.value(self.std)} over {seeds}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two configurations, the one with the better mean first; ``gain`` (never negative) is by how much it is better."""

    better: int
    worse: int
    gain: float
    low: float | None
    high: float | None
    """95 % interval of the gain: by Dunnett's test of all comparisons together, by Welch's of this pair alone; None where
    neither varies between its seeds."""
    p: float
    """Corrected for the number of comparisons."""
    distinguishable: bool


@dataclass(frozen=True, kw_only=True)
class Luck:
    """How far the search's best value lies above the mean over new seeds (negative: below it)."""

    number: int
    searched: float
    amount: float
    low: float | None
    high: float | None
    """95 % interval of the amount; None where all seeds have the same value."""
    promised: float | None
    """Its gain over the baseline in the search."""
    confirmed: float | None
    """Its gain over the baseline in the mean over new seeds."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The result of a confirmation; ``estimates`` are ordered by mean, the best first."""

    metric: str
    direction: Direction
    estimates: tuple[Estimate, ...]
    comparisons: tuple[Comparison, ...]
    chosen: int | None
    """The trial with the best mean; None without estimates."""
    luck: Luck | None
    lost: tuple[int, ...]
    """Trials with fewer than two seeds that have a value; they cannot be judged."""
    test: str = WELCH
    expected: float | None = None
    """The chosen trial's mean without what it is expected to owe to being the best of several; None in earlier versions'."""

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as plain data, its sentences included."""
        return {**asdict(self), "sentences": self.sentences()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verdict:
        """Return the verdict that :meth:`to_json` wrote."""
        return TypeAdapter(cls).validate_python(data)

    def estimate(self, number: int) -> Estimate | None:
        """Return the estimate of a trial, None where it has none."""
        return next((estimate for estimate in self.estimates if estimate.number == number), None)

    def sentences(self) -> list[str]:
        """Return the verdict as sentences, the most important first."""
        if not self.estimates:
            return [self.conclusion()]
        lines = [self.conclusion(), f"{self.metric} as mean ± standard deviation (95 % interval of the mean):"]
        lines += [f"  {_in_words(estimate)}" for estimate in self.estimates]
        lines += [f"Trial {number} cannot be judged: fewer than two of its seeds have a value." for number in self.lost]
        lines += [*self._others(), *self._luck_in_words()]
        lines += self._collapsed_in_words()
        return [*lines, f"Test: {self.test}; two-sided, at 5 %."] if self.comparisons else lines

    def conclusion(self) -> str:
        """Return what to do, in a sentence."""
        if not self.estimates:
            return "Nothing can be concluded from new seeds: no configuration has a value for two of them."
        first, baseline = self.estimates[0], next((e for e in self.estimates if e.baseline), None)
        more = f"compare with more seeds, for example confirm: {{seeds: {2 * len(first.values)}}}"
        if len(self.estimates) == 1:
            return f"Trial {first.number} has {first.text}; there is no other configuration to compare it with."
        if first is baseline:
            return f"Keep the baseline (trial {first.number}): no other configuration has a better mean over new seeds."
        if baseline is not None:
            [pair] = [p for p in self.comparisons if (p.better, p.worse) == (first.number, baseline.number)]
            if pair.distinguishable:
                return f"Take trial {first.number}: over new seeds it is better than the baseline by {_gain(pair)}."
            return (
                f"Keep the baseline, or {more}: trial {first.number} has the best mean, but it is not distinguishable from "
                f"the baseline ({_p(pair)})."
            )
        rivals = [str(p.worse) for p in self.comparisons if p.better == first.number and not p.distinguishable]
        if not rivals:
            return f"Take trial {first.number}: over new seeds it is better than every other that was judged."
        return (
            f"Take the cheapest of trials {words.join([str(first.number), *rivals])}, or {more}: trial {first.number} has "
            "the best mean, but they are not distinguishable."
        )

    def _others(self) -> Iterator[str]:
        """Yield every comparison that the conclusion does not already state."""
        baseline = next((e.number for e in self.estimates if e.baseline), None)
        known = (self.chosen, baseline)
        for pair in self.comparisons:
            if (pair.better, pair.worse) == known:
                continue
            worse = f"the baseline (trial {pair.worse})" if pair.worse == baseline else f"trial {pair.worse}"
            better = f"The baseline (trial {pair.better})" if pair.better == baseline else f"Trial {pair.better}"
            apart = f"{better} is better than {worse} by {_gain(pair)}."
            yield apart if pair.distinguishable else f"{better} is not distinguishable from {worse} ({_p(pair)})."

    def _collapsed_in_words(self) -> Iterator[str]:
        """Yield what was left out of the means, and what the best mean owes to having been chosen."""
        for each in self.estimates:
            if each.collapsed:
                values = words.join([words.value(value) for value in each.collapsed])
                seeds = words.plural(len(each.collapsed), "seed")
                collapsed = f"{seeds} of trial {each.number} collapsed, to {values}"
                yield f"{collapsed}: left out of the mean; count such a collapse as a risk."
        first = self.estimates[0]
        if self.expected is not None and words.value(self.expected) != words.value(first.mean):
            count = len(self.estimates)
            yield (
                f"As the best of {count} means, trial {first.number}'s is probably too good: expect "
                f"{words.value(self.expected)} from further seeds."
            )

    def _luck_in_words(self) -> list[str]:
        luck = self.luck
        if luck is None:
            return []
        reached = f"{words.value(luck.searched)} that trial {luck.number} reached in the search"
        if luck.low is None or luck.high is None:
            how = (
                f"{words.value(abs(luck.amount))} {'better' if luck.amount > 0 else 'worse'} than"
                if luck.amount
                else "also"
            )
            line = f"The {reached} is {how} the value of each new seed."
        elif luck.low > 0:
            line = f"Of the {reached}, {words.value(luck.amount)} was luck ({_interval(luck)})."
        elif luck.high < 0:
            line = f"The {reached} was bad luck: the mean over new seeds is better by {words.value(-luck.amount)}."
        else:
            line = f"The {reached} may owe nothing to luck ({_interval(luck)}); more seeds would narrow this."
        if luck.promised is None or luck.confirmed is None:
            return [line]
        gain = f"{words.difference(luck.promised)} over the baseline; over new seeds it is {words.difference(luck.confirmed)}"
        return [line, f"In the search it gained {gain}."]


def read_verdict(place: Place) -> Verdict | None:
    """Return the verdict of a study's last confirmation, or None without one. Raises DamagedFile."""
    found: Verdict | None = read_json(place.verdict_json, Verdict, f"`sweep run {place.name}` judges again")
    return found


def write_verdict(place: Place, verdict: Verdict) -> None:
    """Write the verdict beside the confirmation runs, whole or not at all."""
    place.verdict_json.parent.mkdir(parents=True, exist_ok=True)
    write_whole(place.verdict_json, json.dumps(verdict.to_json(), indent=2) + "\n")


def judge(candidates: Iterable[Candidate], *, metric: str, direction: Direction, best: int | None = None) -> Verdict:
    """Judge configurations that were trained again; ``best`` is the search's best trial.

    Values are assumed to be independent between configurations, as they are when each has seeds of its own.
    """
    sign = 1.0 if direction == "maximize" else -1.0
    known = list(candidates)
    able = [candidate for candidate in known if len(candidate.values) >= 2]
    nothing = Verdict(
        metric=metric,
        direction=direction,
        estimates=(),
        comparisons=(),
        chosen=None,
        luck=None,
        lost=tuple(candidate.number for candidate in known if len(candidate.values) < 2),
    )
    if not able:
        return nothing
    bounds, able = _bounds(metric, able), _ranked(able, sign)
    noise = Noise.of([each.values for each in able])
    owed, below = best_of([sign * _mean(each.values) for each in able], noise)
    estimates = _estimated(able, noise, bounds, sign * below)
    return replace(
        nothing,
        estimates=tuple(estimates),
        comparisons=_compared(estimates, noise, bounds),
        chosen=estimates[0].number,
        luck=_luck(estimates, sign, best),
        test=DUNNETT if noise.equal and any(each.baseline for each in estimates) else WELCH,
        expected=estimates[0].mean - sign * owed,
    )


def _ranked(candidates: Sequence[Candidate], sign: float) -> list[Candidate]:
    """Return the candidates without their collapsed seeds, the best mean first."""
    kept = without_collapsed([candidate.values for candidate in candidates], sign)
    ranked = [
        replace(each, values=values, collapsed=tuple(value for value in each.values if value not in values))
        for each, values in zip(candidates, kept, strict=True)
    ]
    return sorted(ranked, key=lambda each: (-sign * _mean(each.values), each.number))


def _bounds(metric: str, candidates: Sequence[Candidate]) -> tuple[float, float]:
    """Return the metric's range; unlimited where a measured value shows that the name means another metric."""
    low, high = limits(metric)
    measured = [value for each in candidates for value in (*each.values, each.searched) if value is not None]
    return (low, high) if all(low <= value <= high for value in measured) else (-math.inf, math.inf)


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if deviation(values) else values[0]


def _estimated(
    candidates: Sequence[Candidate], noise: Noise, bounds: tuple[float, float], below: float
) -> list[Estimate]:
    """Return the estimates; the first is the best, whose interval begins at its mean less ``below``."""
    estimates: list[Estimate] = []
    for index, each in enumerate(candidates):
        mean, std, half = _mean(each.values), deviation(each.values), math.copysign(noise.half(index), below)
        ends = sorted((mean + half, mean - (half if estimates else below)))
        low, high = (max(bounds[0], ends[0]), min(bounds[1], ends[1])) if std else (None, None)
        estimates.append(Estimate(**vars(each), mean=mean, std=std, low=low, high=high))
    return estimates


def _compared(estimates: Sequence[Estimate], noise: Noise, bounds: tuple[float, float]) -> tuple[Comparison, ...]:
    control = next((index for index, each in enumerate(estimates) if each.baseline), None)
    widest, found = bounds[1] - bounds[0], []
    for (first, second), p, half in sorted(compare([each.values for each in estimates], noise, control)):
        better, worse = estimates[first], estimates[second]  # as they are sorted
        gain = abs(better.mean - worse.mean)
        low, high = (max(-widest, gain - half), min(widest, gain + half)) if half else (None, None)
        pair = Comparison(
            better=better.number, worse=worse.number, gain=gain, low=low, high=high, p=p, distinguishable=p <= ALPHA
        )
        found.append(pair)
    return tuple(found)


def _luck(estimates: Sequence[Estimate], sign: float, best: int | None) -> Luck | None:
    found = next((e for e in estimates if e.number == best), None)
    if found is None or found.searched is None:
        return None
    baseline = next((e for e in estimates if e.baseline and e is not found), None)
    known = [edge for edge in (found.low, found.high) if edge is not None]
    low, high = sorted(sign * (found.searched - edge) for edge in known) if known else (None, None)
    return Luck(
        number=found.number,
        searched=found.searched,
        amount=sign * (found.searched - found.mean),
        low=low,
        high=high,
        promised=sign * (found.searched - baseline.searched) if baseline and baseline.searched is not None else None,
        confirmed=sign * (found.mean - baseline.mean) if baseline else None,
    )


def _in_words(estimate: Estimate) -> str:
    interval = f" ({words.value(estimate.low)} to {words.value(estimate.high)})" if estimate.std else ""
    searched = f", {words.value(estimate.searched)} in the search" if estimate.searched is not None else ""
    lost = f", {words.plural(estimate.lost, 'seed')} without a value" if estimate.lost else ""
    return f"{estimate.title}: {estimate.text}{interval}{searched}{lost}"


def _interval(of: Luck | Comparison) -> str:
    return f"95 % interval {words.value(of.low)} to {words.value(of.high)}"


def _gain(pair: Comparison) -> str:
    interval = f"{_interval(pair)}, " if pair.low is not None else ""
    return f"{words.value(pair.gain)} ({interval}{_p(pair)})"


def _p(pair: Comparison) -> str:
    return f"p = {pair.p:.2g}" if pair.p >= 1e-4 else "p < 0.0001"
