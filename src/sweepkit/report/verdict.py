"""The verdict over confirmation runs: means, intervals, which configurations differ, and how much was luck.

Intervals of a mean are Student's t over the seeds. Configurations are compared in pairs by Welch's two-sided t-test with
Holm's correction over all pairs: where nothing differs, at least 95 of 100 studies find nothing. Where neither of a pair
varies between its seeds, the exact permutation test replaces the t-test. SciPy computes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import fmean, stdev
from typing import Any

from pydantic import TypeAdapter

from sweepkit.study import words
from sweepkit.study.files import write_whole
from sweepkit.study.objective import Direction
from sweepkit.study.paths import Place

CONFIDENCE = 0.95
TEST = "Welch's t-test between the seeds' values, two-sided, with Holm's correction over all pairs, at 5 %"


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


@dataclass(frozen=True, kw_only=True)
class Estimate(Candidate):
    """One configuration over new seeds. ``low`` to ``high`` is the 95 % interval of the mean."""

    mean: float
    std: float
    """Standard deviation between seeds (n - 1)."""
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two configurations, the one with the better mean first; ``gain`` (never negative) is by how much it is better."""

    better: int
    worse: int
    gain: float
    low: float
    high: float
    """95 % interval of the gain, of this pair alone."""
    p: float
    """After Holm's correction."""
    distinguishable: bool


@dataclass(frozen=True, kw_only=True)
class Luck:
    """How far the search's best value lies above the mean over new seeds (negative: below it)."""

    number: int
    searched: float
    amount: float
    low: float
    high: float
    """95 % interval of the amount."""
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
    test: str = TEST

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
            return ["No configuration could be confirmed: each has fewer than two new seeds with a value."]
        seeds = sorted({len(estimate.values) for estimate in self.estimates})
        counted = f"Over {' to '.join(map(str, seeds[:1] + seeds[1:][-1:]))} new seeds each"
        lines = [f"{counted}, {self.metric} as mean ± standard deviation (95 % interval of the mean):"]
        lines += [f"  {_estimate(estimate)}" for estimate in self.estimates]
        lines += [f"Trial {number} cannot be judged: fewer than two of its seeds have a value." for number in self.lost]
        lines += self._against_baseline()
        lines += self._among_each_other()
        lines += self._luck_in_words()
        name = f"trial {self.chosen}" + " (the baseline)" * self.estimates[0].baseline
        lines.append(f"Chosen: {name}, which has the best mean.")
        return [*lines, f"Test: {self.test}."] if self.comparisons else lines

    def _against_baseline(self) -> list[str]:
        baseline = next((e.number for e in self.estimates if e.baseline), None)
        if baseline is None:
            return []
        lines = []
        for pair in [pair for pair in self.comparisons if baseline in (pair.better, pair.worse)]:
            other, how = (pair.better, "better") if pair.worse == baseline else (pair.worse, "worse")
            apart = f"is {how} than the baseline by {_gain(pair)}"
            alike = f"is not distinguishable from the baseline (p = {pair.p:.2g})"
            lines.append(f"Trial {other} {apart if pair.distinguishable else alike}.")
        return lines

    def _among_each_other(self) -> list[str]:
        tuned = {e.number for e in self.estimates if not e.baseline}
        pairs = [pair for pair in self.comparisons if pair.better in tuned and pair.worse in tuned]
        apart = [pair for pair in pairs if pair.distinguishable]
        lines = [f"Trial {pair.better} is better than trial {pair.worse} by {_gain(pair)}." for pair in apart]
        if pairs and not apart:
            numbers = listed([str(number) for number in sorted(tuned)])
            return [f"Trials {numbers} are not distinguishable from each other."]
        alike = [f"{p.better} from {p.worse}" for p in pairs if not p.distinguishable]
        return [*lines, f"Not distinguishable: trial {listed(alike)}."] if alike else lines

    def _luck_in_words(self) -> list[str]:
        luck = self.luck
        if luck is None:
            return []
        reached = f"{words.value(luck.searched)} that trial {luck.number} reached in the search"
        interval = f"95 % interval {words.value(luck.low)} to {words.value(luck.high)}"
        if luck.low > 0:
            line = f"Of the {reached}, {words.value(luck.amount)} was luck ({interval})."
        elif luck.high < 0:
            line = f"The {reached} was bad luck: the mean over new seeds is better by {words.value(-luck.amount)}."
        else:
            line = f"The {reached} may owe nothing to luck ({interval}); more seeds would narrow this."
        if luck.promised is None or luck.confirmed is None:
            return [line]
        gain = f"{words.difference(luck.promised)} over the baseline; over new seeds it is {words.difference(luck.confirmed)}"
        return [line, f"In the search it gained {gain}."]


def read_verdict(place: Place) -> Verdict | None:
    """Return the verdict of a study's last confirmation, or None without one."""
    try:
        return Verdict.from_json(json.loads(place.verdict_json.read_text()))
    except FileNotFoundError:
        return None


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
    estimates = sorted(map(_estimated, able), key=lambda e: (-sign * e.mean, e.number))
    return Verdict(
        metric=metric,
        direction=direction,
        estimates=tuple(estimates),
        comparisons=_compared(estimates, sign),
        chosen=estimates[0].number if estimates else None,
        luck=_luck(estimates, sign, best),
        lost=tuple(candidate.number for candidate in known if candidate not in able),
    )


def _estimated(candidate: Candidate) -> Estimate:
    from scipy import stats

    values = candidate.values
    mean, std = fmean(values), _deviation(values)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * std / math.sqrt(len(values))
    return Estimate(**asdict(candidate), mean=mean, std=std, low=mean - half, high=mean + half)


def _deviation(values: Sequence[float]) -> float:
    """Return the standard deviation; 0 where the values differ by rounding only."""
    found = stdev(values)
    return 0.0 if found <= 1e-12 * max(map(abs, values)) else found


def _compared(estimates: Sequence[Estimate], sign: float) -> tuple[Comparison, ...]:
    pairs = list(combinations(estimates, 2))  # the better mean first, as they are sorted
    raw = [_welch(better, worse, sign) for better, worse in pairs]
    adjusted = _holm([p for p, _, _ in raw])
    return tuple(
        Comparison(
            better=better.number,
            worse=worse.number,
            gain=sign * (better.mean - worse.mean),
            low=low,
            high=high,
            p=p,
            distinguishable=p <= 1 - CONFIDENCE,
        )
        for (better, worse), (_, low, high), p in zip(pairs, raw, adjusted, strict=True)
    )


def _welch(better: Estimate, worse: Estimate, sign: float) -> tuple[float, float, float]:
    """Return p and the 95 % interval of the gain."""
    from scipy import stats

    gain = sign * (better.mean - worse.mean)
    if better.std == 0 and worse.std == 0:
        alike = math.isclose(better.mean, worse.mean, rel_tol=1e-12)
        return (1.0 if alike else 2 / math.comb(len(better.values) + len(worse.values), len(better.values))), gain, gain
    # By the Welch–Satterthwaite equation. scipy.stats.ttest_ind warns where one of the two does not vary.
    (v, m), (w, n) = ((e.std**2 / len(e.values), len(e.values) - 1) for e in (better, worse))
    error, degrees = math.sqrt(v + w), (v + w) ** 2 / (v**2 / m + w**2 / n)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees)) * error
    return 2 * float(stats.t.sf(gain / error, degrees)), gain - half, gain + half


def _holm(ps: Sequence[float]) -> list[float]:
    """Return p values corrected for multiple comparisons (Holm 1979).

    >>> [round(p, 3) for p in _holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    adjusted, running = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        running = max(running, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = running
    return adjusted


def _luck(estimates: Sequence[Estimate], sign: float, best: int | None) -> Luck | None:
    found = next((e for e in estimates if e.number == best), None)
    if found is None or found.searched is None:
        return None
    baseline = next((e for e in estimates if e.baseline and e is not found), None)
    ends = sorted(sign * (found.searched - edge) for edge in (found.low, found.high))
    return Luck(
        number=found.number,
        searched=found.searched,
        amount=sign * (found.searched - found.mean),
        low=ends[0],
        high=ends[1],
        promised=sign * (found.searched - baseline.searched) if baseline and baseline.searched is not None else None,
        confirmed=sign * (found.mean - baseline.mean) if baseline else None,
    )


def _estimate(estimate: Estimate) -> str:
    name = f"trial {estimate.number}" + (" (baseline)" if estimate.baseline else "")
    noise = f"{words.value(estimate.mean)} ± {words.value(estimate.std)}"
    searched = f", {words.value(estimate.searched)} in the search" if estimate.searched is not None else ""
    lost = f", {words.plural(estimate.lost, 'seed')} without a value" if estimate.lost else ""
    return f"{name}: {noise} ({words.value(estimate.low)} to {words.value(estimate.high)}){searched}{lost}"


def _gain(pair: Comparison) -> str:
    interval = f"{words.value(pair.low)} to {words.value(pair.high)}"
    return f"{words.value(pair.gain)} ({interval}, p = {pair.p:.2g})"


def listed(parts: Sequence[str]) -> str:
    """Return the parts as a list in words.

    >>> listed(["1", "2", "3"])
    '1, 2 and 3'
    """
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
