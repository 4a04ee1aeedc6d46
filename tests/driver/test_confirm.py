"""The verdict's statistics over simulated studies whose truth is known, and its words."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from sweepkit.report.verdict import Candidate, Verdict, judge

STUDIES = 60
SEEDS = 5


def simulated(dice: random.Random, truths: Sequence[float], noise: float, *, searched: int = 1) -> Verdict:
    """Return the verdict of one study: each truth seen once (the best of ``searched`` tries) and over new seeds."""
    candidates = [
        Candidate(
            number=number,
            baseline=number == 0,
            searched=max(dice.gauss(truth, noise) for _ in range(searched)),
            values=tuple(dice.gauss(truth, noise) for _ in range(SEEDS)),
        )
        for number, truth in enumerate(truths)
    ]
    best = max(candidates, key=lambda candidate: candidate.searched or 0.0)
    return judge(candidates, metric="eval_score", direction="maximize", best=best.number)


@pytest.fixture(scope="module")
def alike() -> list[Verdict]:
    """Verdicts of studies in which tuning changed nothing: four configurations of equal truth 0.8, noise 0.02."""
    dice = random.Random(1)
    return [simulated(dice, [0.8] * 4, 0.02, searched=20) for _ in range(STUDIES)]


@pytest.fixture(scope="module")
def apart() -> list[Verdict]:
    """Verdicts of studies with a baseline far behind three equal configurations."""
    dice = random.Random(2)
    return [simulated(dice, [0.6, 0.8, 0.8, 0.8], 0.02) for _ in range(STUDIES)]


def test_intervals_cover_the_truth_at_the_rate_they_state(alike: list[Verdict], apart: list[Verdict]) -> None:
    covered = [e.low <= 0.8 <= e.high for verdict in alike for e in verdict.estimates]
    covered += [e.low <= (0.6 if e.baseline else 0.8) <= e.high for verdict in apart for e in verdict.estimates]
    # 480 intervals at 95 %: the rate's own standard error is 1 %, and this allows three of them.
    assert 0.92 <= sum(covered) / len(covered) <= 0.98


def test_intervals_of_a_gain_cover_the_truth_at_the_rate_they_state(apart: list[Verdict]) -> None:
    covered = [
        pair.low <= (0.2 if pair.worse == 0 else 0.0) <= pair.high
        for verdict in apart
        for pair in verdict.comparisons
        if pair.worse == 0
    ]
    assert sum(covered) / len(covered) >= 0.90


def test_not_distinguishable_is_said_when_it_is_true(alike: list[Verdict]) -> None:
    wrong = [verdict for verdict in alike if any(pair.distinguishable for pair in verdict.comparisons)]
    said = [verdict for verdict in alike if "not distinguishable" in " ".join(verdict.sentences())]
    assert len(wrong) <= 0.05 * STUDIES + 3 * (STUDIES * 0.05 * 0.95) ** 0.5
    assert len(said) == STUDIES


def test_a_real_gain_is_found(apart: list[Verdict]) -> None:
    found = [
        verdict
        for verdict in apart
        if all(pair.distinguishable for pair in verdict.comparisons if pair.worse == 0) and verdict.chosen != 0
    ]
    assert len(found) >= 0.95 * STUDIES


def test_equal_ones_are_not_told_apart_beside_a_real_gain(apart: list[Verdict]) -> None:
    wrong = [v for v in apart if any(pair.distinguishable for pair in v.comparisons if pair.worse != 0)]
    assert len(wrong) <= 0.05 * STUDIES + 3 * (STUDIES * 0.05 * 0.95) ** 0.5


def test_luck_of_the_best_of_many_is_what_it_is(alike: list[Verdict]) -> None:
    amounts = [verdict.luck.amount for verdict in alike if verdict.luck]
    # The expected maximum of 80 draws (20 tries of 4 configurations) is 2.43 standard deviations above the truth.
    assert sum(amounts) / len(amounts) == pytest.approx(2.43 * 0.02, rel=0.1)
    covered = [v.luck.low <= v.luck.searched - 0.8 <= v.luck.high for v in alike if v.luck]
    assert sum(covered) / STUDIES >= 0.88


def test_with_less_being_better_everything_turns_round() -> None:
    up = judge(
        [
            Candidate(number=0, baseline=True, searched=0.5, values=(0.5, 0.51, 0.49)),
            Candidate(number=3, searched=0.9, values=(0.8, 0.81, 0.79)),
        ],
        metric="eval_score",
        direction="maximize",
        best=3,
    )
    down = judge(
        [
            Candidate(number=0, baseline=True, searched=-0.5, values=(-0.5, -0.51, -0.49)),
            Candidate(number=3, searched=-0.9, values=(-0.8, -0.81, -0.79)),
        ],
        metric="eval_loss",
        direction="minimize",
        best=3,
    )
    assert up.chosen == down.chosen == 3
    assert up.comparisons == down.comparisons
    assert up.luck is not None and down.luck is not None
    assert (up.luck.amount, up.luck.promised, up.luck.confirmed) == pytest.approx((0.1, 0.4, 0.3))
    assert (down.luck.amount, down.luck.low, down.luck.high) == pytest.approx((0.1, up.luck.low, up.luck.high))


def test_a_verdict_in_words() -> None:
    verdict = judge(
        [
            Candidate(number=0, baseline=True, searched=0.70, values=(0.70, 0.71, 0.69, 0.70, 0.70)),
            Candidate(number=4, searched=0.80, values=(0.79, 0.80, 0.78, 0.79, 0.79), lost=1),
            Candidate(number=7, searched=0.83, values=(0.80, 0.81, 0.79, 0.80, 0.80)),
            Candidate(number=9, searched=0.79, values=(0.5,), lost=4),
        ],
        metric="eval_f1",
        direction="maximize",
        best=7,
    )
    assert verdict.sentences() == [
        "Take trial 7: over new seeds it is better than the baseline by 0.1000 "
        "(95 % interval 0.0888 to 0.1112, p < 0.0001).",
        "eval_f1 as mean ± standard deviation (95 % interval of the mean):",
        "  trial 7: 0.8000 ± 0.0071 over 5 new seeds (0.7925 to 0.8069), 0.8300 in the search",
        "  trial 4: 0.7900 ± 0.0071 over 5 new seeds (0.7831 to 0.7969), 0.8000 in the search, 1 seed without a value",
        "  trial 0 (the baseline): 0.7000 ± 0.0071 over 5 new seeds (0.6931 to 0.7069), 0.7000 in the search",
        "Trial 9 cannot be judged: fewer than two of its seeds have a value.",
        "Trial 7 is not distinguishable from trial 4 (p = 0.056).",
        "Trial 4 is better than the baseline (trial 0) by 0.0900 (95 % interval 0.0788 to 0.1012, p < 0.0001).",
        "Of the 0.8300 that trial 7 reached in the search, 0.0300 was luck (95 % interval 0.0231 to 0.0375).",
        "In the search it gained +0.1300 over the baseline; over new seeds it is +0.1000.",
        "As the best of 3 means, trial 7's is probably too good: expect 0.7998 from further seeds.",
        "Test: Dunnett's test of each against the baseline; among the others Welch's t-test, with Holm's correction; "
        "two-sided, at 5 %.",
    ]


def conclusion(*candidates: Candidate, metric: str = "eval_score") -> str:
    return judge(candidates, metric=metric, direction="maximize", best=candidates[-1].number).conclusion()


def near(mean: float) -> tuple[float, ...]:
    return (mean - 0.01, mean, mean + 0.01)


def test_a_conclusion_says_what_to_do_and_never_more_than_was_shown() -> None:
    baseline = Candidate(number=0, baseline=True, searched=0.5, values=near(0.5))
    better, same = Candidate(number=1, searched=0.6, values=near(0.6)), Candidate(number=2, values=near(0.501))
    assert conclusion(baseline, better).startswith(
        "Take trial 1: over new seeds it is better than the baseline by 0.1000"
    )
    assert conclusion(baseline, same) == (
        "Keep the baseline, or compare with more seeds, for example confirm: {seeds: 6}: trial 2 has the best mean, but it is "
        "not distinguishable from the baseline (p = 0.91)."
    )
    worse = Candidate(number=3, values=near(0.4))
    assert conclusion(baseline, worse) == (
        "Keep the baseline (trial 0): no other configuration has a better mean over new seeds."
    )
    assert (
        conclusion(better)
        == "Trial 1 has 0.6000 ± 0.0100 over 3 new seeds; there is no other configuration to compare it with."
    )
    assert conclusion(better, same) == "Take trial 1: over new seeds it is better than every other that was judged."
    third = Candidate(number=4, values=near(0.599))
    assert conclusion(better, third).startswith("Take the cheapest of trials 1 and 4, or compare with more seeds")
    lost = Candidate(number=5, values=(0.5,), lost=2)
    assert conclusion(lost) == "Nothing can be concluded from new seeds: no configuration has a value for two of them."
    for known in ([baseline, same], [better, third]):
        assert "confirmed" not in " ".join(judge(known, metric="m", direction="maximize").sentences()).lower()


@pytest.mark.parametrize(
    ("metric", "values", "low", "high"),
    [
        ("eval_f1", (0.9, 0.99, 1.0), None, 1.0),
        ("eval_accuracy", (0.0, 0.01, 0.1), 0.0, None),
        ("eval_matthews_correlation", (-0.9, -1.0, -0.99), -1.0, None),
        ("eval_matthews_correlation", (0.0, 0.01, 0.1), None, None),
        ("eval_loss", (0.0, 0.01, 0.1), 0.0, None),
        ("eval_perplexity", (1.0, 1.5, 9.0), 0.0, None),
        ("eval_news_f1_macro", (0.9, 0.99, 1.0), None, 1.0),
        ("eval_accuracy", (99.0, 99.9, 100.0), None, None),
        ("eval_score", (0.9, 0.99, 1.0), None, None),
        ("eval_f1_gain", (0.0, 0.01, 0.1), None, None),
        ("eval_neg_loss", (0.0, 0.01, 0.1), None, None),
    ],
)
def test_intervals_stay_within_the_range_of_a_known_metric(
    metric: str, values: tuple[float, ...], low: float | None, high: float | None
) -> None:
    found = judge([Candidate(number=1, values=values)], metric=metric, direction="maximize").estimates[0]
    wide = judge([Candidate(number=1, values=values)], metric="unknown", direction="maximize").estimates[0]
    assert (found.low, found.high) == (wide.low if low is None else low, wide.high if high is None else high)


def test_the_interval_of_a_gain_stays_within_the_range_of_the_metric() -> None:
    far = [Candidate(number=1, values=(1.0, 1.0, 0.8)), Candidate(number=2, values=(0.0, 0.0, 0.3))]
    (pair,) = judge(far, metric="eval_accuracy", direction="maximize").comparisons
    (wide,) = judge(far, metric="eval_score", direction="maximize").comparisons
    assert pair.high == 1.0 and wide.high is not None and wide.high > 1.0


def test_values_that_do_not_vary_have_no_interval_and_are_said_to_be_the_same() -> None:
    found = [
        Candidate(number=0, baseline=True, searched=0.9, values=(0.9, 0.9, 0.9)),
        Candidate(number=1, searched=0.97, values=(0.95, 0.95, 0.95)),
    ]
    verdict = judge(found, metric="eval_f1", direction="maximize", best=1)
    assert [(e.std, e.low, e.high) for e in verdict.estimates] == [(0.0, None, None)] * 2
    (pair,) = verdict.comparisons
    assert (pair.low, pair.high, pair.distinguishable) == (None, None, False)
    assert verdict.sentences()[:5] == [
        "Keep the baseline, or compare with more seeds, for example confirm: {seeds: 6}: trial 1 has the best mean, but it is "
        "not distinguishable from the baseline (p = 0.1).",
        "eval_f1 as mean ± standard deviation (95 % interval of the mean):",
        "  trial 1: 0.9500 with each of 3 new seeds, 0.9700 in the search",
        "  trial 0 (the baseline): 0.9000 with each of 3 new seeds, 0.9000 in the search",
        "The 0.9700 that trial 1 reached in the search is 0.0200 better than the value of each new seed.",
    ]
    assert Verdict.from_json(verdict.to_json()) == verdict


def test_luck_that_cannot_be_told_is_not_denied() -> None:
    found = [Candidate(number=1, searched=0.9, values=(0.4, 0.8)), Candidate(number=2, values=(0.5, 0.6))]
    verdict = judge(found, metric="eval_score", direction="maximize", best=1)
    assert (
        "The 0.9000 that trial 1 reached in the search may owe nothing to luck (95 % interval -2.2412 to 2.8412); "
        "more seeds would narrow this."
    ) in verdict.sentences()


def test_without_noise_the_number_of_seeds_decides_what_can_be_told_apart() -> None:
    def pairs(seeds: int) -> dict[tuple[int, int], bool]:
        found = [Candidate(number=number, values=(value,) * seeds) for number, value in ((1, 0.5), (2, 0.5), (3, 0.6))]
        verdict = judge(found, metric="eval_score", direction="maximize")
        return {(pair.better, pair.worse): pair.distinguishable for pair in verdict.comparisons}

    assert pairs(5) == {(3, 1): True, (3, 2): True, (1, 2): False}
    assert pairs(2) == {(3, 1): False, (3, 2): False, (1, 2): False}


def test_nothing_is_said_where_no_seed_gave_a_value() -> None:
    verdict = judge([Candidate(number=2, values=(), lost=5)], metric="eval_score", direction="maximize", best=2)
    assert (verdict.chosen, verdict.lost, verdict.luck) == (None, (2,), None)
    assert verdict.sentences() == [
        "Nothing can be concluded from new seeds: no configuration has a value for two of them."
    ]
