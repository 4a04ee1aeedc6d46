"""Each health check with a study that shows what it looks for, and one that does not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from making import toy_study
from sweepkit.report.classes import Labels
from sweepkit.report.evidence import Course, Evidence, Stint
from sweepkit.report.health import UNCHECKED, checks_without_data, findings
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
    evidence = Evidence(study, rows, verdict, confirmed=confirmed)
    return {found.check: found.advice for found in findings(evidence) if found.check != UNCHECKED}


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
    return checks_without_data(Evidence(study, rows))


def test_checks_without_enough_data_are_listed_with_what_they_need(project: Path) -> None:
    assert lacking(project, []) == [
        "trials that go wrong (3 ended trials)",
        "gain over the baseline (a baseline that was trained to its end)",
        "differences between trials (3 complete trials)",
        "noise between seeds (2 complete trials)",
        "wasted hours (3 ended trials)",
        "edges of the space (10 complete trials)",
        "length of training (1 complete trial)",
        "convergence of the search (10 ended trials)",
        "hyperparameters without effect (20 complete trials)",
        "repeated configurations (3 ended trials)",
    ]
    rows = [trial(0, 0.5, curve=(0.1, 0.2, 0.5), origin="baseline"), *spread(25)[1:]]
    assert lacking(project, rows) == [
        "noise between seeds (confirm or seed_per_trial)",
        "wasted hours (recorded times)",
        "length of training (3 evaluations per trial)",
    ]


def test_few_complete_trials_are_not_taken_for_a_healthy_study(project: Path) -> None:
    rows = [*spread()[:3], *(trial(n, 0.1, rate=1e-2, ending=Ending.pruned) for n in range(3, 8))]
    last = findings(Evidence(toy_study(project, space=RATE), rows))[-1]
    assert last.check == UNCHECKED and last.message.startswith(
        "3 of 8 trials complete: 3 of 10 checks had enough data. Not checked: "
    )
    assert "edges of the space (10 complete trials)" in last.message
    assert "hyperparameters without effect (20 complete trials)" in last.message


def test_checks_that_do_not_apply_are_not_said_to_lack_data(project: Path) -> None:
    goals = [{"metric": name, "direction": "maximize"} for name in ("eval_score", "eval_cost")]
    assert lacking(project, [], objective={"metrics": goals}, seed_per_trial=True) == [
        "trials that go wrong (3 ended trials)",
        "wasted hours (3 ended trials)",
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
    failed = [trial(n, ending=Ending.failed, cause=f"RuntimeError: broken at {n}") for n in range(12, 18)]
    found = next(
        f for f in findings(Evidence(toy_study(project, space=RATE), [*spread(), *failed])) if f.check == "went_wrong"
    )
    assert (
        "6 of them like trial 12: RuntimeError: broken at 12." in found.message and "0012/console.log" in found.advice
    )
    assert "went_wrong" not in said(project, [*spread(), failed[0]])


@pytest.mark.parametrize(("best", "there"), [(0.95, True), (0.2, False)])
def test_nothing_better_than_the_baseline_is_said(project: Path, best: float, there: bool) -> None:
    rows = [trial(0, best, rate=9e-4, origin="baseline"), *spread()[1:]]
    assert ("no_gain" in said(project, rows)) == there


def messages(project: Path, rows: Sequence[Trial], *, labels: Labels | None = None, **keys: Any) -> dict[str, str]:
    """Return check → what was found, of a study with these trials."""
    study = toy_study(project, **{"space": RATE, "budget": {"trials": len(rows)}, **keys})
    return {found.check: found.message for found in findings(Evidence(study, rows, labels=labels or Labels()))}


def test_only_trials_that_were_trained_to_their_end_are_counted_as_not_better(project: Path) -> None:
    crashed = [trial(n, ending=Ending.failed, cause="x") for n in (1, 2, 3)]
    rows = [trial(0, 0.9, origin="baseline"), *crashed, trial(4, 0.5), trial(5, 0.6)]
    assert (
        messages(project, rows)["no_gain"]
        == "None of the 2 other complete trials beat the baseline; incomplete: 3 failed."
    )
    assert "no_gain" not in messages(project, [*rows[:4], replace(crashed[0], number=4)]), (
        "no other was trained to its end"
    )


def test_the_baselines_retry_is_the_baseline(project: Path) -> None:
    first = trial(0, ending=Ending.failed, origin="baseline")
    rows = [
        first,
        *(trial(n, 0.1 * n, rate=n / 1e4) for n in range(1, 5)),
        trial(5, 0.9, origin="retry of 0", retry_of=0),
    ]
    assert "no_gain" in messages(project, rows)


@pytest.mark.parametrize(
    ("metric", "value", "why"),
    [
        ("eval_f1", 0.0, "eval_f1 is 0"),
        ("eval_f1_macro", 0.0, "eval_f1_macro is 0"),
        ("eval_matthews_correlation", 0.0, "eval_matthews_correlation is 0"),
        ("eval_accuracy", 0.75, "eval_accuracy is 0.7500, the share of the most frequent class"),
        ("eval_f1", 0.01, ""),
        ("eval_accuracy", 0.76, ""),
        ("eval_accuracy", 0.0, ""),
        ("eval_loss", 0.0, ""),
    ],
)
def test_a_model_that_predicts_the_same_only_is_found(project: Path, metric: str, value: float, why: str) -> None:
    rows = [
        trial(0, 0.5, origin="baseline", metrics={metric: value}),
        *(trial(n, 0.5 + n / 100, rate=n / 1e4, metrics={metric: 0.9}) for n in range(1, 6)),
    ]
    found = messages(project, rows, labels=Labels([10, 30])).get("predicts_the_same", "")
    assert found == (f"Trial 0 seems to predict one class only: {why}." if why else "")
    others = [replace(row, origin="sampled") for row in rows]
    again = messages(project, [*others, replace(others[0], number=6)], labels=Labels([10, 30])).get(
        "predicts_the_same", ""
    )
    assert again == (f"Trials 0 and 6 seem to predict one class only: {why} in trial 0." if why else "")


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        ("eval_rmse", 3.0, "3.0000"),
        ("eval_mse", 9.05, "9.0000"),
        ("eval_rmse", 2.9, ""),
        ("eval_rmse", 9.0, ""),
        ("eval_mse", 3.0, ""),
        ("eval_loss", 9.0, ""),
    ],
)
def test_a_model_that_predicts_nothing_but_the_labels_mean_is_found(
    project: Path, metric: str, value: float, shown: str
) -> None:
    rows = [trial(n, 0.5 + n / 100, rate=n / 1e4, metrics={metric: value if n == 2 else 0.1}) for n in range(5)]
    found = messages(project, rows, labels=Labels(deviation=3.0)).get("predicts_the_same", "")
    why = f"{metric} is {value:.4f}, where predicting their mean for every row gives {shown}"
    assert found == (f"Trial 2 seems to predict nothing but the mean of the labels: {why}." if shown else "")
    assert (
        "models that predict the same for every row (the labels of the validation rows)" in lacking(project, rows)
        or metric == "eval_loss"
    )


def test_accuracy_alone_shows_nothing_where_the_classes_are_not_known(project: Path) -> None:
    goal = {"metric": "eval_accuracy", "direction": "maximize"}
    rows = [trial(n, 0.75 + n / 100) for n in range(4)]
    assert "models that predict the same for every row (the labels of the validation rows)" in lacking(
        project, rows, objective=goal
    )
    assert messages(project, rows, objective=goal, labels=Labels([1, 3]))["predicts_the_same"].startswith(
        "Trial 0 seems"
    )
    assert "predict the same" not in " ".join(lacking(project, rows)), "eval_score is no metric of classes"


def test_equal_values_are_called_equal(project: Path) -> None:
    rows = [trial(n, 0.5, rate=n / 1e4 + 1e-4) for n in range(12)]
    assert messages(project, rows)["all_the_same"] == "All 12 complete trials have the same value, 0.5000."
    assert "all_the_same" not in messages(project, [*rows, trial(12, 0.4)])


HOUR = 3600.0


@pytest.mark.parametrize(
    ("wasted", "says"),
    [
        ({"ending": Ending.failed}, "2 h 00 min of 6 h 00 min of slot time produced no result: failed 2 h 00 min."),
        (
            {"ending": Ending.stopped},
            "2 h 00 min of 6 h 00 min of slot time produced no result: interrupted 2 h 00 min.",
        ),
        (
            {"ending": Ending.pruned, "curve": (0.1, 0.1, 0.1)},
            "2 h 00 min of 6 h 00 min of slot time produced no result: pruned after 75% of the evaluations or more 2 h 00 min.",
        ),
        ({"ending": Ending.pruned, "curve": (0.1, 0.1)}, ""),
        ({"ending": Ending.complete}, ""),
    ],
)
def test_hours_that_led_to_no_result_are_found(project: Path, wasted: dict[str, Any], says: str) -> None:
    curve = (0.1, 0.2, 0.3, 0.4)
    rows = [trial(n, 0.4, rate=n / 1e4 + 1e-4, seconds=HOUR, curve=curve) for n in range(4)]
    rows += [trial(n, 0.1, rate=n / 1e4, seconds=HOUR, **{"curve": curve, **wasted}) for n in (4, 5)]
    assert messages(project, rows).get("wasted_hours", "") == says


@pytest.mark.parametrize(("resumed", "there"), [(0, True), (40, False)])
def test_attempts_that_started_over_are_wasted_hours(project: Path, resumed: int, there: bool) -> None:
    rows = [trial(n, 0.4, seconds=2 * HOUR) for n in range(3)]
    stints = tuple(
        Stint(host="a", device="cpu", start=n * HOUR, end=(n + 1) * HOUR, resumed=resumed * n) for n in range(2)
    )
    study = toy_study(project, space=RATE, budget={"trials": 3})
    found = findings(Evidence(study, rows, courses={n: Course(stints=stints) for n in range(3)}))
    said = [finding.message for finding in found if finding.check == "wasted_hours"]
    text = "3 h 00 min of 6 h 00 min of slot time produced no result: attempts that started over 3 h 00 min."
    assert said == [text] * there


@pytest.mark.parametrize(("noise", "there"), [(0.5, True), (1e-6, False)])
def test_seed_noise_above_the_gap_between_the_top_trials_is_said(project: Path, noise: float, there: bool) -> None:
    confirmed = [trial(n, 0.9 + sign * noise, confirm_of=2) for n, sign in enumerate((-1, 0, 1))]
    assert ("seed_noise" in said(project, spread(), confirmed=confirmed)) == there


def test_noise_between_seeds_is_the_pooled_standard_deviation_of_complete_runs(project: Path) -> None:
    runs = {1e-3: (1.0, 3.0), 2e-3: (10.0, 11.0, 12.0), 3e-3: (5.0,)}
    confirmed = [trial(0, value, rate=rate) for rate, values in runs.items() for value in values]
    pruned = trial(0, 99.0, rate=1e-3, ending=Ending.pruned)
    evidence = Evidence(toy_study(project, space=RATE), [], confirmed=[*confirmed, pruned])
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
            "Over new seeds trials 9 and 2 are not distinguishable either; trial 9 has the best mean. For a clearer answer, "
            "confirm with more seeds: confirm: {seeds: 6}.",
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
