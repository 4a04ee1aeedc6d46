"""The verdict over confirmation runs: means, intervals, what is distinguishable, how much was luck.

SciPy computes. Intervals of a mean are Student's t over the
seeds; configurations are compared pair by pair with Welch's t-test (two-sided), corrected by Holm over all pairs, so that
with nothing to find in at least 95 of 100 studies nothing is called distinguishable. Where neither of a pair differs between
its seeds there is no noise to measure a gain by, and the exact permutation test takes the t-test's place.
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
from sweepkit.study.paths import Place
from sweepkit.study.study import Direction

CONFIDENCE = 0.95
TEST = "Welch's t-test between the seeds' values, two-sided, with Holm's correction over all pairs, at 5 %"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One configuration that was trained again: its trial in the search, and a value per new seed."""

    number: int
    values: tuple[float, ...]
    baseline: bool = False
    searched: float | None = None
    """Its value in the search; None where it had none."""
    lost: int = 0
    """Seeds that gave no value: they failed, diverged or ran out of memory."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What the seeds say of one configuration. ``low`` to ``high`` is the 95 % interval of the mean."""

    number: int
    baseline: bool
    searched: float | None
    values: tuple[float, ...]
    lost: int
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
    """What the search's best value owed to its seed: its distance to the mean over new seeds (positive: too good)."""

    number: int
    searched: float
    amount: float
    low: float
    high: float
    """95 % interval of the amount."""
    promised: float | None
    """By how much the search saw it beat the baseline."""
    confirmed: float | None
    """By how much its mean beats the baseline's."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer of a confirmation; ``estimates`` have the best mean first."""

    metric: str
    direction: Direction
    estimates: tuple[Estimate, ...]
    comparisons: tuple[Comparison, ...]
    chosen: int | None
    """Trial whose mean is best; None while no seed gave a value."""
    luck: Luck | None
    lost: tuple[int, ...]
    """Trials of which fewer than two seeds gave a value; nothing can be said of them."""
    test: str = TEST

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as plain data, its sentences included."""
        return {**asdict(self), "sentences": self.sentences()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verdict:
        """Return the verdict that :meth:`to_json` wrote."""
        return TypeAdapter(cls).validate_python(data)

    def sentences(self) -> list[str]:
        """Return the verdict in words, what matters most first."""
        if not self.estimates:
            return ["No configuration could be confirmed: fewer than two of its new seeds gave a value."]
        seeds = sorted({len(estimate.values) for estimate in self.estimates})
        counted = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        lines = [
            f"Over {counted} new seeds each, {self.metric} as mean ± standard deviation (95 % interval of the mean):"
        ]
        lines += [f"  {_estimate(estimate)}" for estimate in self.estimates]
        lines += [f"Trial {number} cannot be judged: fewer than two of its seeds gave a value." for number in self.lost]
        lines += self._against_baseline()
        lines += self._among_each_other()
        lines += self._luck_in_words()
        if self.chosen is not None:
            lines.append(f"Chosen: {self._name(self.chosen)}, the best mean.")
        return [*lines, f"Test: {self.test}."] if self.comparisons else lines

    def _against_baseline(self) -> list[str]:
        baseline = next((e.number for e in self.estimates if e.baseline), None)
        if baseline is None:
            return []
        lines = []
        for pair in self.comparisons:
            if baseline not in (pair.better, pair.worse):
                continue
            other = pair.better if pair.worse == baseline else pair.worse
            if pair.distinguishable:
                how = "better" if pair.better == other else "worse"
                lines.append(f"Trial {other} is {how} than the baseline by {_gain(pair)}.")
            else:
                lines.append(f"Trial {other} is not distinguishable from the baseline (p = {pair.p:.2g}).")
        return lines

    def _among_each_other(self) -> list[str]:
        tuned = {e.number for e in self.estimates if not e.baseline}
        pairs = [pair for pair in self.comparisons if pair.better in tuned and pair.worse in tuned]
        apart = [pair for pair in pairs if pair.distinguishable]
        lines = [f"Trial {pair.better} is better than trial {pair.worse} by {_gain(pair)}." for pair in apart]
        if pairs and not apart:
            listed = _listed([str(number) for number in sorted(tuned)])
            return [f"Trials {listed} are not distinguishable from each other."]
        alike = [f"{p.better} from {p.worse}" for p in pairs if not p.distinguishable]
        return [*lines, f"Not distinguishable: trial {_listed(alike)}."] if alike else lines

    def _luck_in_words(self) -> list[str]:
        luck = self.luck
        if luck is None:
            return []
        reached = f"{words.value(luck.searched)} that trial {luck.number} reached in the search"
        interval = f"95 % interval {words.value(luck.low)} to {words.value(luck.high)}"
        if luck.low > 0:
            line = f"Of the {reached}, {words.value(luck.amount)} was luck ({interval})."
        elif luck.high < 0:
            line = f"The {reached} were bad luck: new seeds are better by {words.value(-luck.amount)}."
        else:
            line = f"How much of the {reached} was luck cannot be told from none at all ({interval}); more seeds tell more."
        if luck.promised is None or luck.confirmed is None:
            return [line]
        gained = f"{words.difference(luck.promised)} over the baseline, {words.difference(luck.confirmed)} is confirmed"
        return [line, f"The search promised {gained}."]

    def _name(self, number: int) -> str:
        estimate = next(e for e in self.estimates if e.number == number)
        return f"trial {number} (the baseline)" if estimate.baseline else f"trial {number}"


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
    """Return the verdict over configurations that were trained again; ``best`` is the search's best trial.

    Seeds' values are taken as independent between configurations, as they are when each has seeds of its own.
    """
    sign = 1.0 if direction == "maximize" else -1.0
    able: list[Candidate] = []
    lost: list[Candidate] = []
    for candidate in candidates:
        (able if len(candidate.values) >= 2 else lost).append(candidate)
    estimates = sorted(map(_estimated, able), key=lambda e: (-sign * e.mean, e.number))
    comparisons = _compared(estimates, sign)
    return Verdict(
        metric=metric,
        direction=direction,
        estimates=tuple(estimates),
        comparisons=comparisons,
        chosen=estimates[0].number if estimates else None,
        luck=_luck(estimates, sign, best),
        lost=tuple(candidate.number for candidate in lost),
    )


def _estimated(candidate: Candidate) -> Estimate:
    from scipy import stats

    values = candidate.values
    mean, std = fmean(values), _deviation(values)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * std / math.sqrt(len(values))
    return Estimate(
        number=candidate.number,
        baseline=candidate.baseline,
        searched=candidate.searched,
        values=values,
        lost=candidate.lost,
        mean=mean,
        std=std,
        low=mean - half,
        high=mean + half,
    )


def _deviation(values: Sequence[float]) -> float:
    """The standard deviation; 0 where values differ by no more than rounding."""
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
    """p and the 95 % interval of the gain."""
    from scipy import stats

    gain = sign * (better.mean - worse.mean)
    if better.std == 0 and worse.std == 0:
        alike = math.isclose(better.mean, worse.mean, rel_tol=1e-12)
        return (1.0 if alike else 2 / math.comb(len(better.values) + len(worse.values), len(better.values))), gain, gain
    found = stats.ttest_ind_from_stats(
        sign * better.mean,
        better.std,
        len(better.values),
        sign * worse.mean,
        worse.std,
        len(worse.values),
        equal_var=False,
    )
    variances = [e.std**2 / len(e.values) for e in (better, worse)]
    # Welch and Satterthwaite's degrees of freedom, as SciPy has them inside the test but does not give them out.
    degrees = sum(variances) ** 2 / sum(
        v**2 / (len(e.values) - 1) for v, e in zip(variances, (better, worse), strict=True)
    )
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees)) * math.sqrt(sum(variances))
    return float(found.pvalue), gain - half, gain + half


def _holm(ps: Sequence[float]) -> list[float]:
    """Return p values corrected for looking at all of them (Holm 1979).

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


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
