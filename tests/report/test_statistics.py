"""How often the verdict is right over simulated studies: intervals, false wins, power, and what the best mean promises."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from scipy import stats

from sweepkit.report.statistics import Noise, compare, without_collapsed
from sweepkit.report.verdict import Candidate, judge

STUDIES = 2000
CONFIGURATIONS, TOP, SEEDS = 20, 3, 5
Draw = Callable[[np.random.Generator, int, int], np.ndarray]


def collapsing(dice: np.random.Generator, number: int, size: int) -> np.ndarray:
    """Return noise of which one value in ten collapses, far below what the others vary by."""
    return np.where(dice.random(size) < 0.1, -15 + 0.5 * dice.normal(size=size), dice.normal(size=size))


NOISES: dict[str, Draw] = {
    "normal": lambda dice, _, size: dice.normal(size=size),
    "heavy tails (t with 5 degrees)": lambda dice, _, size: dice.standard_t(5, size=size) / math.sqrt(5 / 3),
    "skewed (gamma of shape 4)": lambda dice, _, size: -(dice.gamma(4, size=size) - 4) / 2,
    "uniform": lambda dice, _, size: dice.uniform(-1, 1, size=size) * math.sqrt(3),
    "rounded to half a deviation": lambda dice, _, size: np.round(dice.normal(size=size) * 2) / 2,
    "one of three configurations noisier": lambda d, n, size: d.normal(size=size) * (0.8, 1.0, 1.4)[n % 3],
    "one seed in ten collapses": collapsing,
}
"""Noise of deviation 1, or about 1."""


@dataclass
class Rates:
    """What came out over many studies."""

    covered: list[bool] = field(default_factory=list)
    chosen: list[bool] = field(default_factory=list)
    gains: list[bool] = field(default_factory=list)
    owed: list[float] = field(default_factory=list)
    better: list[bool] = field(default_factory=list)
    """Whether something was found to be better than the baseline."""

    def __str__(self) -> str:
        rates = f"{np.mean(self.covered):.3f} of the intervals, {np.mean(self.chosen):.3f} of the chosen's"
        rates += f" and {np.mean(self.gains):.3f} of its gain's cover the truth"
        return f"{rates}; promised {np.mean(self.owed):+.3f} deviations too much; better found in {np.mean(self.better):.3f}"


def rates(noise: Draw, truths: list[float], studies: int, seed: int = 0) -> Rates:
    """Search, confirm and judge; a configuration is chosen for confirmation by one noisy value, as a search does."""
    dice, found = np.random.default_rng(seed), Rates()
    for _ in range(studies):
        searched = [truth + noise(dice, number, 1)[0] for number, truth in enumerate(truths)]
        top = sorted(range(len(truths)), key=lambda number: -searched[number])[:TOP]
        candidates = [
            Candidate(
                number=number,
                baseline=number == 0,
                searched=searched[number],
                values=tuple(map(float, truths[number] + noise(dice, number, SEEDS))),
            )
            for number in {*top, 0}
        ]
        verdict = judge(candidates, metric="eval_score", direction="maximize", best=top[0])
        stated = [e for e in verdict.estimates if e.low is not None]
        within = {e.number: e.low <= truths[e.number] <= e.high for e in stated}
        found.covered += within.values()
        found.chosen += [within[number] for number in [verdict.chosen] if number in within]
        found.owed.append(verdict.expected - truths[verdict.chosen])
        pairs = [pair for pair in verdict.comparisons if pair.worse == 0]
        gain = [pair for pair in pairs if pair.better == verdict.chosen and pair.low is not None]
        found.gains += [pair.low <= truths[pair.better] - truths[0] <= pair.high for pair in gain]
        found.better.append(any(pair.distinguishable for pair in pairs))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", NOISES)
def test_intervals_cover_and_nothing_is_found_where_nothing_differs(name: str) -> None:
    found = rates(NOISES[name], [0.0] * CONFIGURATIONS, STUDIES)
    sys.stdout.write(f"\nequal, {name}: {found}\n")
    error = 2 * math.sqrt(0.95 * 0.05 / STUDIES)
    for covered in (found.covered, found.chosen, found.gains):
        assert 0.93 - error <= np.mean(covered)
    assert abs(np.mean(found.owed)) <= 0.1
    assert np.mean(found.better) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", NOISES)
def test_a_real_gain_is_found_and_promised_as_it_is(name: str) -> None:
    found = rates(NOISES[name], [0.0] * 15 + [2.0] * 5, STUDIES, seed=1)
    sys.stdout.write(f"\n5 of 20 better by 2 deviations, {name}: {found}\n")
    # Where seeds collapse, a tenth of the five is lost. Pairwise tests found 0.57.
    wanted = 0.85 if NOISES[name] is not collapsing else 0.77
    assert np.mean(found.better) >= wanted - 2 * math.sqrt(wanted * (1 - wanted) / STUDIES)
    assert abs(np.mean(found.owed)) <= 0.1


def test_dunnetts_test_agrees_with_scipys() -> None:
    dice = np.random.default_rng(4)
    groups = [dice.normal(loc=loc, size=size) for loc, size in ((0.0, 5), (1.0, 4), (0.4, 6), (-0.2, 5))]
    theirs = stats.dunnett(*groups[1:], control=groups[0], rng=np.random.default_rng(0))
    interval = theirs.confidence_interval()
    ours = list(compare(groups, Noise.of(groups), 0))[:3]
    assert [p for _, p, _ in ours] == pytest.approx(theirs.pvalue, abs=2e-3)
    assert [2 * half for _, _, half in ours] == pytest.approx(interval.high - interval.low, rel=0.01)


def test_a_collapsed_seed_is_found_and_ordinary_noise_is_not() -> None:
    fine = [(0.91, 0.92, 0.90), (0.88, 0.90, 0.89)]
    assert without_collapsed(fine, 1.0) == fine
    assert without_collapsed([(0.91, 0.5, 0.92, 0.90), fine[1]], 1.0) == [(0.91, 0.92, 0.90), fine[1]]
    assert without_collapsed([(0.3, 2.5, 0.31, 0.29), (0.4, 0.41, 0.39)], -1.0)[0] == (0.3, 0.31, 0.29)
    assert without_collapsed([(0.3, 2.5, 0.31, 0.29), (0.4, 0.41, 0.39)], 1.0)[0] == (0.3, 2.5, 0.31, 0.29)
    assert without_collapsed([(0.5, 0.5, 0.5), (0.5, 0.5, 0.1)], 1.0)[1] == (0.5, 0.5, 0.1), "too little to go by"


def test_a_collapse_is_said_and_left_out_of_the_mean() -> None:
    candidates = [
        Candidate(number=0, baseline=True, searched=0.8, values=(0.80, 0.81, 0.79, 0.80)),
        Candidate(number=3, searched=0.9, values=(0.90, 0.10, 0.91, 0.89)),
    ]
    verdict = judge(candidates, metric="eval_f1", direction="maximize", best=3)
    said = " ".join(verdict.sentences())
    assert "trial 3: 0.9000 ± 0.0100 over 3 of 4 new seeds" in said
    assert "1 seed of trial 3 collapsed, to 0.1000: left out of the mean; count such a collapse as a risk." in said
    assert verdict.estimate(3).collapsed == (0.10,)


def test_what_the_best_of_several_means_owes_to_being_the_best_is_taken_off() -> None:
    values = [(0.80, 0.82, 0.78), (0.81, 0.83, 0.79), (0.802, 0.822, 0.782)]
    candidates = [Candidate(number=n, searched=0.8, values=each) for n, each in enumerate(values)]
    verdict = judge(candidates, metric="eval_f1", direction="maximize")
    first = verdict.estimates[0]
    assert 0.795 < verdict.expected < 0.806 < first.mean, "they are alike"
    assert first.mean - first.low > first.high - first.mean
    assert "As the best of 3 means, trial 1's is probably too good" in " ".join(verdict.sentences())
