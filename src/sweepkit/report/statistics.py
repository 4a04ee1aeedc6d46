"""What a few seeds per configuration can tell: collapsed seeds, standard errors, the best of several means, comparisons.

SciPy computes; how often the intervals cover the truth, and how often a gain is found, is measured by the tests.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, median, stdev

import numpy as np

CONFIDENCE = 0.95
FAR = 6.0
"""Robust standard deviations below its configuration's median from which on a seed counts as collapsed."""
DRAWS = 20_000
Pair = tuple[int, int]
"""Indices of two configurations."""


def without_collapsed(groups: Sequence[Sequence[float]], sign: float) -> list[tuple[float, ...]]:
    """Return each configuration's values without those of collapsed seeds; all of them where fewer than two would be left.

    Fine-tuning of some configurations ends, with an occasional seed, far from where the others end; a mean over such a
    mixture says little. The scale is the median absolute deviation from the configurations' medians, over all of them
    (1.4826 times it is a normal distribution's standard deviation). ``sign`` is -1 where less is better.
    """
    away = [[sign * (value - median(group)) for value in group] for group in groups]
    sizes = [abs(each) for group in away for each in group if each]
    if len(sizes) < 4:
        return [tuple(group) for group in groups]
    limit = -FAR * 1.4826 * median(sizes)
    kept = [
        tuple(v for v, off in zip(group, off_by, strict=True) if off >= limit)
        for group, off_by in zip(groups, away, strict=True)
    ]
    return [some if len(some) >= 2 else tuple(group) for some, group in zip(kept, groups, strict=True)]


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation (n - 1); 0 where the values differ by rounding only."""
    found = stdev(values)
    return 0.0 if found <= 1e-12 * max(map(abs, values)) else found


@dataclass(frozen=True)
class Noise:
    """The standard errors of configurations' means, 0 where the values do not vary, and their degrees of freedom."""

    errors: tuple[float, ...]
    degrees: tuple[int, ...]
    equal: bool
    """Whether one standard deviation, pooled over all configurations, serves them all."""

    @classmethod
    def of(cls, groups: Sequence[Sequence[float]]) -> Noise:
        """Pool the deviations unless they differ (Brown and Forsythe 1974, at 5 %) or cannot be compared."""
        from scipy import stats

        own = [deviation(group) for group in groups]
        degrees = [len(group) - 1 for group in groups]
        testable = len(groups) > 1 and min(degrees) >= 2 and min(own) > 0
        equal = testable and float(stats.levene(*groups, center="median").pvalue) >= 0.05
        if equal:
            pooled = math.sqrt(sum(d * s**2 for d, s in zip(degrees, own, strict=True)) / sum(degrees))
            own, degrees = [pooled] * len(groups), [sum(degrees)] * len(groups)
        errors = tuple(s / math.sqrt(len(group)) for s, group in zip(own, groups, strict=True))
        return cls(errors, tuple(degrees), equal)

    def half(self, index: int) -> float:
        """Return half the 95 % interval of a mean (Student's t)."""
        return quantile(self.degrees[index]) * self.errors[index]


def quantile(degrees: float) -> float:
    """Return half the width of Student's t interval, in standard errors."""
    from scipy import stats

    return float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees))


def best_of(means: Sequence[float], noise: Noise) -> tuple[float, float]:
    """Return what the largest of these means is expected to owe to being the largest, and how far below it the truth may be.

    The first by a parametric bootstrap around means shrunk towards their common mean (DerSimonian and Laird 1986 for the
    variance between them); the second is the one-sided 95 % limit where all are equal, the worst case, or half the
    interval of a single mean, whichever is longer. Means whose values do not vary owe nothing.
    """
    top = int(np.argmax(means))
    half = noise.half(top) if noise.errors[top] else 0.0
    if len(means) < 2 or not min(noise.errors):
        return 0.0, half
    dice, errors, x = np.random.default_rng(0), np.asarray(noise.errors), np.asarray(means)
    weights = errors**-2
    common = float((weights * x).sum() / weights.sum())
    excess = float((weights * (x - common) ** 2).sum()) - (len(x) - 1)
    between = max(0.0, excess / float(weights.sum() - (weights**2).sum() / weights.sum()))
    truths = common + (x - common) * between / (between + errors**2)
    normal, rows = dice.normal(size=(DRAWS, len(x))), np.arange(DRAWS)
    largest = (truths + normal * errors).argmax(axis=1)
    owed = float((normal * errors)[rows, largest].mean())
    chi = dice.chisquare(noise.degrees, size=(DRAWS, len(x))) / np.asarray(noise.degrees)
    first = (normal * errors).argmax(axis=1)
    scale = np.sqrt(chi[rows, 0 if noise.equal else first])
    limit = float(np.quantile(normal[rows, first] / scale, CONFIDENCE))
    return owed, max(half, limit * noise.errors[top])


def compare(
    groups: Sequence[Sequence[float]], noise: Noise, control: int | None
) -> Iterator[tuple[Pair, float, float]]:
    """Yield each pair of configurations, its corrected two-sided p value, and half the 95 % interval of the difference.

    Those with the ``control`` by Dunnett's test where one standard deviation serves all (1955; his intervals hold for all
    of them together), else by Welch's. The others, and these, are each corrected by Holm's method among themselves.
    """
    indices = range(len(groups))
    rest = [pair for pair in combinations(indices, 2) if control not in pair]
    if control is not None and noise.equal:
        yield from _dunnett(groups, noise, control)
    elif control is not None:
        yield from _welch(groups, [pair for pair in combinations(indices, 2) if control in pair])
    yield from _welch(groups, rest)


def _dunnett(groups: Sequence[Sequence[float]], noise: Noise, control: int) -> Iterator[tuple[Pair, float, float]]:
    """By quadrature over the control's deviation and the pooled one's: ``scipy.stats.dunnett`` draws points instead, which
    gives p values of 0 and intervals that do not always converge."""
    from scipy import optimize, special, stats

    others = [index for index in range(len(groups)) if index != control]
    sizes = np.array([len(groups[index]) for index in others])
    shared = np.sqrt(sizes / (sizes + len(groups[control])))  # the control's part of each difference
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    scale = np.sqrt(stats.chi2.ppf((np.arange(200) + 0.5) / 200, noise.degrees[0]) / noise.degrees[0])

    def outside(limit: float) -> float:
        """Return the probability that some standardised difference lies beyond ``limit``, where nothing differs."""
        middle, edge = nodes[:, None, None] * shared, limit * scale[None, :, None]
        rest = np.sqrt(1 - shared**2)
        within = special.ndtr((middle + edge) / rest) - special.ndtr((middle - edge) / rest)
        return max(0.0, 1 - float(weights @ within.prod(axis=2).mean(axis=1)) / math.sqrt(2 * math.pi))

    limit = float(optimize.brentq(lambda limit: outside(limit) - (1 - CONFIDENCE), 0.1, 100, xtol=1e-6))
    for index in others:
        error = math.hypot(noise.errors[index], noise.errors[control])
        apart = abs(fmean(groups[index]) - fmean(groups[control]))
        yield (min(index, control), max(index, control)), outside(apart / error), limit * error


def _welch(groups: Sequence[Sequence[float]], pairs: Sequence[Pair]) -> Iterator[tuple[Pair, float, float]]:
    tested = [_welch_pair(groups[one], groups[other]) for one, other in pairs]
    for pair, p, (_, half) in zip(pairs, holm([p for p, _ in tested]), tested, strict=True):
        yield pair, p, half


def _welch_pair(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Return p and half the interval; where neither varies, the exact permutation test's p and 0."""
    from scipy import stats

    if not deviation(one) and not deviation(other):
        alike = math.isclose(one[0], other[0], rel_tol=1e-12)
        return (1.0 if alike else 2 / math.comb(len(one) + len(other), len(one))), 0.0
    # By the Welch–Satterthwaite equation. scipy.stats.ttest_ind warns where one of the two does not vary.
    (v, m), (w, n) = ((deviation(values) ** 2 / len(values), len(values) - 1) for values in (one, other))
    error, degrees = math.sqrt(v + w), (v + w) ** 2 / (v**2 / m + w**2 / n)
    return 2 * float(stats.t.sf(abs(fmean(one) - fmean(other)) / error, degrees)), quantile(degrees) * error


def holm(ps: Sequence[float]) -> list[float]:
    """Return p values corrected for multiple comparisons (Holm 1979).

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    adjusted, running = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        running = max(running, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = running
    return adjusted
