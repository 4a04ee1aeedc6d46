"""Each health check with a study that shows what it looks for, and one that does not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from making import toy_study
from sweepkit.report.evidence import Evidence
from sweepkit.report.health import findings, unchecked
from sweepkit.report.verdict import Candidate, Verdict, judge
from sweepkit.trial.trial import Ending, Trial

RATE = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}


def trial(number: int, value: float | None = None, *, rate: float = 1e-3, **more: Any) -> Trial:
    """Return a complete trial of this value at its only evaluation, unless said otherwise."""
    params = {"learning_rate": rate, **more.pop("params", {})}
    values = () if value is None else (value,)
    curve = more.pop("curve", values)
    intermediate = dict(enumerate(curve, start=1))
    return Trial(
        number=number, params=params, values=values, intermediate=intermediate, **{"ending": Ending.complete, **more}
    )


def said(
    project: Path,
    rows: Sequence[Trial],
    *,
    confirmed: Sequence[Trial] = (),
    verdict: Verdict | None = None,
    **keys: Any,
) -> dict[str, str]:
    """Return check → what to do, of a study with these trials."""
    study = toy_study(project, **{"space": RATE, "budget": {"trials": len(rows)}, **keys})
    evidence = Evidence(study=study, rows=rows, confirmed=confirmed, verdict=verdict)
    return {found.check: found.advice for found in findings(evidence)}


def spread(count: int = 12) -> list[Trial]:
    """Return trials over the whole range, the best (the third) in its middle."""
    rates = [10 ** (-4 + 2 * ((7 * number + 4) % count) / (count - 1)) for number in range(count)]
    order = sorted(range(count), key=lambda n: abs(math.log10(rates[n]) + 3))
    rates[2], rates[order[0]] = rates[order[0]], rates[2]
    return [trial(n, 0.9 - 0.1 * (math.log10(rate) + 3) ** 2, rate=rate) for n, rate in enumerate(rates)]


def test_a_study_in_good_health_has_no_finding(project: Path) -> None:
    assert said(project, spread()) == {}


def lacking(project: Path, rows: Sequence[Trial], **keys: Any) -> list[str]:
    """Return the checks that lack data in a study with these trials, and what each needs."""
    study = toy_study(project, **{"space": RATE, "budget": {"trials": len(rows) or 1}, **keys})
    return unchecked(Evidence(study=study, rows=rows))


def test_checks_without_enough_data_are_listed_with_what_they_need(project: Path) -> None:
    assert lacking(project, []) == [
        "trials that go wrong (3 ended trials)",
        "gain over the baseline (a baseline)",
        "noise between seeds (2 complete trials)",
        "edges of the space (5 ended trials)",
        "length of training (1 complete trial)",
        "convergence of the search (10 ended trials)",
        "hyperparameters without effect (20 trials with a value)",
        "repeated configurations (3 ended trials)",
    ]
    rows = [trial(0, 0.5, curve=(0.1, 0.2, 0.5), origin="baseline"), *spread(25)[1:]]
    assert lacking(project, rows) == [
        "noise between seeds (confirm or seed_per_trial)",
        "length of training (3 evaluations per trial)",
    ]


def test_checks_that_do_not_apply_are_not_said_to_lack_data(project: Path) -> None:
    goals = [{"metric": name, "direction": "maximize"} for name in ("eval_score", "eval_cost")]
    assert lacking(project, [], objective={"metrics": goals}, seed_per_trial=True) == [
        "trials that go wrong (3 ended trials)"
    ]
    assert "pruning of good trials (1 complete trial)" in lacking(project, [], pruner={"type": "median"})


@pytest.mark.parametrize(
    ("ending", "says"), [("diverged", "learning_rate: {high"), ("infeasible", "learning_rate: {high")]
)
def test_many_that_went_wrong_are_said_with_where_they_lie(project: Path, ending: str, says: str) -> None:
    wrong = [trial(n, rate=5e-3 + n / 1e4, ending=Ending(ending)) for n in range(12, 18)]
    fine = [row for row in spread() if row.params["learning_rate"] < 5e-3]
    assert says in said(project, [*fine, *wrong])["went_wrong"]
    assert "went_wrong" not in said(project, [*spread(), *wrong[:2]])


def test_many_that_failed_point_to_their_log(project: Path) -> None:
    failed = [trial(n, ending=Ending.failed, cause="RuntimeError: broken") for n in range(12, 18)]
    assert "console.log" in said(project, [*spread(), *failed])["went_wrong"]
    assert "went_wrong" not in said(project, [*spread(), failed[0]])


@pytest.mark.parametrize(("best", "there"), [(0.95, True), (0.2, False)])
def test_nothing_better_than_the_baseline_is_said(project: Path, best: float, there: bool) -> None:
    rows = [trial(0, best, rate=9e-4, origin="baseline"), *spread()[1:]]
    assert ("no_gain" in said(project, rows)) == there


@pytest.mark.parametrize(("noise", "there"), [(0.5, True), (1e-6, False)])
def test_seed_noise_above_the_gap_between_the_top_trials_is_said(project: Path, noise: float, there: bool) -> None:
    confirmed = [trial(n, 0.9 + sign * noise, confirm_of=2) for n, sign in enumerate((-1, 0, 1))]
    assert ("seed_noise" in said(project, spread(), confirmed=confirmed)) == there


def test_noise_between_seeds_is_the_pooled_standard_deviation_of_complete_runs(project: Path) -> None:
    runs = {1e-3: (1.0, 3.0), 2e-3: (10.0, 11.0, 12.0), 3e-3: (5.0,)}
    confirmed = [trial(0, value, rate=rate) for rate, values in runs.items() for value in values]
    pruned = trial(0, 99.0, rate=1e-3, ending=Ending.pruned)
    evidence = Evidence(study=toy_study(project, space=RATE), rows=[], confirmed=[*confirmed, pruned])
    assert evidence.seed_spread == pytest.approx(((2.0 * 1 + 1.0 * 2) / 3) ** 0.5)


def verdict(means: Mapping[int, float], *, baseline: int | None = None) -> Verdict:
    """Return what a confirmation says whose seeds differ by 0.01."""
    found = [
        Candidate(number=n, values=(mean - 0.01, mean, mean + 0.01), baseline=n == baseline, searched=0.9)
        for n, mean in means.items()
    ]
    return judge(found, metric="eval_score", direction="maximize", best=2)


@pytest.mark.parametrize(
    ("third", "do"),
    [
        (0.8, "Go by the means over new seeds, not by the order of the search: trial 9 is better than trial 2."),
        (
            0.899,
            "The confirmation does not distinguish them either; trial 9 has the best mean. For a clearer answer, confirm with "
            "more seeds: confirm: {seeds: 6}.",
        ),
    ],
)
def test_top_trials_within_seed_noise_are_as_good_as_the_confirmation_says(
    project: Path, third: float, do: str
) -> None:
    rows = [row for row in spread() if row.number in (0, 2, 9)]
    noisy = [trial(n, 0.9 + sign / 2, confirm_of=2) for n, sign in enumerate((-1, 0, 1))]
    found = said(project, rows, confirmed=noisy, verdict=verdict({9: 0.9, 2: third}))
    assert found["seed_noise"].startswith(do)


def test_a_baseline_that_is_best_over_new_seeds_is_no_gain_whatever_the_search_saw(project: Path) -> None:
    rows = [trial(0, 0.85, rate=9e-4, origin="baseline"), *spread()[1:]]
    assert "no_gain" in said(project, rows, verdict=verdict({0: 0.9, 2: 0.8}, baseline=0))
    assert "no_gain" not in said(project, rows, verdict=verdict({0: 0.8, 2: 0.9}, baseline=0))


@pytest.mark.parametrize(("first", "there"), [(0.01, True), (0.9, False)])
def test_a_winner_that_pruning_would_have_killed_is_said(project: Path, first: float, there: bool) -> None:
    others = [
        trial(n, row.value, rate=row.params["learning_rate"], curve=(0.5, row.value)) for n, row in enumerate(spread())
    ]
    winner = trial(12, 0.99, rate=1.1e-3, curve=(first, 0.99))
    pruner = {"type": "median", "n_startup_trials": 3, "n_warmup_steps": 0}
    assert ("pruned_winner" in said(project, [*others, winner], pruner=pruner)) == there


@pytest.mark.parametrize(("sign", "end"), [(1, "high"), (-1, "low")])
def test_a_best_value_at_either_edge_is_said_with_a_wider_range(project: Path, sign: int, end: str) -> None:
    rows = [
        trial(n, sign * math.log10(row.params["learning_rate"]), rate=row.params["learning_rate"])
        for n, row in enumerate(spread())
    ]
    assert f"learning_rate: {{{end}:" in said(project, rows)["at_an_edge"]


@pytest.mark.parametrize(("last", "there"), [(0.9, True), (0.701, False)])
def test_training_cut_off_while_it_improved_is_said(project: Path, last: float, there: bool) -> None:
    rows = [
        trial(n, last - n / 100, rate=1e-3 * (1 + n / 100), curve=(0.1, 0.7 - n / 100, last - n / 100))
        for n in range(12)
    ]
    assert ("training_still_improving" in said(project, rows)) == there


@pytest.mark.parametrize(("late", "there"), [(True, True), (False, False)])
def test_a_search_cut_off_while_it_improved_is_said(project: Path, late: bool, there: bool) -> None:
    values = [0.1 + n / 100 for n in range(12)]
    values[11 if late else 3] = 0.9
    rows = [trial(n, value, rate=1e-3 * (1 + n / 100)) for n, value in enumerate(values)]
    assert ("search_still_improving" in said(project, rows)) == there


@pytest.mark.parametrize(("weight", "there"), [(0.0, True), (2.0, False)])
def test_a_parameter_without_effect_is_said(project: Path, weight: float, there: bool) -> None:
    space = {**RATE, "task.x": {"low": 0.0, "high": 1.0}}
    rows = []
    for n in range(60):
        rate, x = 10 ** (-4 + 2 * ((17 * n) % 60) / 59), ((23 * n) % 60) / 59
        rows.append(trial(n, -((math.log10(rate) + 3) ** 2) - weight * (x - 0.5) ** 2, rate=rate, params={"task.x": x}))
    assert ("no_effect" in said(project, rows, space=space)) == there


def test_a_choice_that_the_search_soon_left_for_a_better_one_is_not_said_to_have_no_effect(project: Path) -> None:
    space = {**RATE, "task.x": {"choices": ["good", "bad"]}}
    rows = []
    for n in range(60):
        rate, x = 10 ** (-4 + 2 * ((17 * n) % 60) / 59), "bad" if n in (2, 8, 11) else "good"
        rows.append(trial(n, -((math.log10(rate) + 3) ** 2) - (x == "bad"), rate=rate, params={"task.x": x}))
    assert "no_effect" not in said(project, rows, space=space)


@pytest.mark.parametrize(("again", "there"), [(6, True), (1, False)])
def test_configurations_trained_again_and_again_are_said(project: Path, again: int, there: bool) -> None:
    rows = [*spread(), *(trial(12 + n, 0.5, rate=2e-3) for n in range(again + 1))]
    assert ("duplicates" in said(project, rows)) == there
