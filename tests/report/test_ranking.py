"""The answer of a study: the ranking, the Pareto front, the chosen trial, whose checkpoints stay, the target."""

from __future__ import annotations

import itertools
import math
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from sweepkit.report.answer import Answer, FinalTest, write_test
from sweepkit.report.verdict import Candidate, Verdict, judge, read_verdict, write_verdict
from sweepkit.study import words
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import Ending, Trial, Turn

GOALS = [{"metric": "eval_f1", "direction": "maximize"}, {"metric": "eval_loss", "direction": "minimize"}]
DOWN = {"metric": "eval_loss", "direction": "minimize"}
TURN = Turn(evaluation=1, step=4, value=0.5, hyperparameters={"learning_rate": 1e-3}, donor=1)


def study_of(home: Path, **changes: Any) -> StudyData:
    """Return a small study whose file would lie in ``home``."""
    data: dict[str, Any] = {
        "name": "toy",
        "task": {"path": "task.py:Toy"},
        "objective": GOALS[0],
        "space": {"learning_rate": {"low": 1e-6, "high": 1e-1, "log": True}},
        "budget": {"trials": 10},
        "tracking": {"uri": "none"},
    }
    return StudyData.model_validate({**data, **changes}).at(home)


def trial(number: int, *values: float, ending: Ending = Ending.complete, **facts: Any) -> Trial:
    """Return a trial with these values."""
    return Trial(number=number, ending=ending, values=values, **facts)


def verdict(means: dict[int, float], best: int, **keys: Any) -> Verdict:
    """Return the verdict over trials of which three seeds gave nearly the same value."""
    able = [Candidate(number=n, values=(m - 0.01, m, m + 0.01), searched=0.9, **keys) for n, m in means.items()]
    return judge(able, metric="eval_f1", direction="maximize", best=best)


def numbers(rows: list[Trial]) -> list[int]:
    return [row.number for row in rows]


def test_only_complete_trials_with_finite_values_are_ranked(tmp_path: Path) -> None:
    rows = [
        trial(0, 0.5),
        trial(1, 0.9, ending=Ending.pruned),
        trial(2, 0.8),
        trial(3, 0.99, ending=Ending.infeasible),
        trial(4, math.nan),
        trial(5, 0.8),
        trial(6, ending=Ending.failed),
    ]
    answer = Answer(study_of(tmp_path), rows)
    assert numbers(answer.ranked) == [2, 5, 0]
    assert (answer.best, answer.chosen, answer.winners) == (rows[2], rows[2], [rows[2]])


@pytest.mark.parametrize("objective", [GOALS[0], DOWN, {"metrics": GOALS, "prune_on": "eval_f1"}])
def test_an_answer_joined_by_later_trials_is_that_of_all_without_ordering_the_others_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: dict[str, Any]
) -> None:
    dice, several = random.Random(0), "metrics" in objective
    values = [0.1, 0.2, 0.3, 0.4, math.nan, math.inf, -math.inf]
    rows = [
        trial(number, *dice.choices(values, k=1 + several), ending=dice.choice([Ending.complete, Ending.pruned]))
        for number in range(300)
    ]
    dice.shuffle(rows)  # in the order in which they ended
    keyed: list[int] = []
    plain = Answer._key
    monkeypatch.setattr(Answer, "_key", lambda self, row: keyed.append(row.number) or plain(self, row))
    answer = Answer(study_of(tmp_path, objective=objective), [])
    for row in rows:
        answer = answer.joined_by([row])
    assert len(keyed) <= 300 * math.ceil(math.log2(300) + 2)
    whole = Answer(answer.study, rows)
    assert answer.rows == rows and answer.ranked == whole.ranked and answer.front == whole.front


def test_a_study_without_a_complete_trial_has_no_answer(tmp_path: Path) -> None:
    answer = Answer(study_of(tmp_path), [trial(0, 0.5, ending=Ending.pruned)])
    assert (answer.ranked, answer.best, answer.chosen, answer.winners, answer.verdict) == ([], None, None, [], None)


def test_minimize_ranks_the_lowest_first(tmp_path: Path) -> None:
    answer = Answer(study_of(tmp_path, objective=DOWN), [trial(0, 0.5), trial(1, 0.2)])
    assert numbers(answer.ranked) == [1, 0]


@pytest.mark.parametrize(("objective", "gain"), [(GOALS[0], 0.25), (DOWN, -0.25)])
def test_a_gain_is_positive_where_a_trial_is_better_than_the_baseline(
    tmp_path: Path, objective: dict[str, str], gain: float
) -> None:
    rows = [trial(0, 0.5, origin="baseline"), trial(1, 0.75), trial(2, ending=Ending.failed)]
    answer = Answer(study_of(tmp_path, objective=objective), rows)
    assert list(map(answer.gain, rows)) == [0.0, gain, None]
    assert Answer(answer.study, rows[1:]).gain(rows[1]) is None


BASELINE = trial(0, 0.5, origin="baseline")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([BASELINE, trial(1, 0.75)], "0.2500 better than the baseline (trial 0: 0.5000)"),
        ([BASELINE, trial(1, 0.4)], "the baseline itself; no other is better"),
        ([BASELINE, trial(1, 0.5)], "the baseline itself; trial 1 reached the same value"),
        ([BASELINE, trial(1, ending=Ending.failed)], "the baseline itself; no other is complete"),
        ([trial(3, 0.5), replace(BASELINE, number=4)], "the same as the baseline (trial 4)"),
        ([trial(1, 0.75)], ""),
        ([BASELINE], "the baseline itself; no other is complete"),
        ([replace(BASELINE, ending=Ending.failed)], ""),
        *(
            (
                [replace(BASELINE, ending=ending), trial(1, 0.75)],
                f"no gain over the baseline (trial 0) can be stated, as it {why}",
            )
            for ending, why in (
                (Ending.pruned, "was pruned"),
                (Ending.failed, "failed"),
                (Ending.diverged, "diverged"),
                (Ending.infeasible, "ran out of memory"),
                (Ending.running, "is still running"),
                (Ending.stopped, "was interrupted"),
                (Ending.waiting, "has not started"),
            )
        ),
        (
            [replace(BASELINE, ending=Ending.failed), trial(1, 0.75), trial(2, 0.6, retry_of=0, origin="retry of 0")],
            "0.1500 better than the baseline (trial 2: 0.6000)",
        ),
        (
            [replace(BASELINE, schedule=(TURN,)), trial(1, 0.75)],
            "no gain over the baseline (trial 0) can be stated, as it took over other trials' weights or values",
        ),
    ],
)
def test_a_gain_is_stated_over_a_baseline_that_was_trained_to_its_end_and_no_other(
    tmp_path: Path, rows: list[Trial], says: str
) -> None:
    answer = Answer(study_of(tmp_path), rows)
    assert answer.versus() == says
    number = answer.record()["gain"]
    assert (number is not None) == ("better than the baseline" in says or "itself" in says or "same" in says)
    worse = Answer(study_of(tmp_path, objective=DOWN), [replace(r, values=tuple(-v for v in r.values)) for r in rows])
    assert worse.versus() == re.sub(r": (0\.)", r": -\1", says), "less is better"


def test_a_trial_that_was_pruned_has_no_gain(tmp_path: Path) -> None:
    pruned = trial(1, 0.75, ending=Ending.pruned)
    assert Answer(study_of(tmp_path), [BASELINE, pruned]).gain(pruned) is None


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([0.5, 0.5, 0.5], "All 3 complete trials have the same value, 0.5000."),
        ([0.5, 0.5], "Both complete trials have the same value, 0.5000."),
        ([0.4, 0.5, 0.5], "The best value is shared by trials 1 and 2; the first of them is listed as the best."),
        ([0.5], ""),
        ([0.4, 0.5], ""),
        ([], ""),
    ],
)
def test_ties_are_called_ties(tmp_path: Path, values: list[float], says: str) -> None:
    answer = Answer(study_of(tmp_path), [trial(number, value) for number, value in enumerate(values)])
    assert (answer.ties(), answer.notes()) == (says, [says] if says else [])


def test_over_new_seeds_the_gain_is_that_of_the_means(tmp_path: Path) -> None:
    rows = [BASELINE, trial(1, 0.75)]
    able = [
        Candidate(number=n, values=(m - 0.01, m, m + 0.01), searched=rows[n].value, baseline=not n)
        for n, m in enumerate((0.5, 0.501))
    ]
    close = judge(able, metric="eval_f1", direction="maximize", best=1)
    answer = Answer(study_of(tmp_path), rows, close)
    assert answer.versus() == "0.0010 better than the baseline (trial 0: 0.5000), a difference that may be chance"
    assert answer.record()["gain"] == pytest.approx(0.001)
    assert answer.record()["verdict"].startswith("Keep the baseline, or compare with more seeds")
    lost = judge(able[1:], metric="eval_f1", direction="maximize", best=1)
    answer = Answer(study_of(tmp_path), rows, lost)
    assert answer.versus() == "0.2500 better than the baseline (trial 0: 0.5000) in the search"
    assert answer.record()["gain"] is None, "the baseline has no mean over new seeds"


def test_a_best_trial_whose_seeds_were_all_lost_does_not_undo_the_verdict(tmp_path: Path) -> None:
    rows = [BASELINE, trial(1, 0.75), trial(2, 0.7)]
    able = [
        Candidate(number=0, values=(0.5, 0.51, 0.49), searched=0.5, baseline=True),
        Candidate(number=1, values=(), lost=3, searched=0.75),
        Candidate(number=2, values=(0.7, 0.71, 0.69), searched=0.7),
    ]
    answer = Answer(study_of(tmp_path), rows, judge(able, metric="eval_f1", direction="maximize", best=1))
    assert answer.verdict is not None and answer.chosen is rows[2]
    assert answer.versus() == "0.2000 better than the baseline (trial 0: 0.5000)"
    nothing = judge([replace(each, values=(), lost=3) for each in able], metric="eval_f1", direction="maximize", best=1)
    answer = Answer(study_of(tmp_path), rows, nothing)
    assert (answer.chosen, answer.versus()) == (
        rows[1],
        "0.2500 better than the baseline (trial 0: 0.5000) in the search",
    )
    assert answer.record()["verdict"].startswith("Nothing can be concluded from new seeds")


def test_a_baseline_that_learned_nothing_is_noted(tmp_path: Path) -> None:
    blind = replace(BASELINE, values=(0.0,))
    assert Answer(study_of(tmp_path), [trial(0, 0.0)]).notes() == [
        "Trial 0 seems to predict one class only (eval_f1 is 0)."
    ]
    assert Answer(study_of(tmp_path), [blind, trial(1, 0.9)]).notes() == [
        "The baseline seems to predict one class only (eval_f1 is 0); a gain over it says little."
    ]


def test_the_front_holds_what_is_pareto_optimal_and_ranks_first(tmp_path: Path) -> None:
    points = [(0.9, 0.5), (0.8, 0.4), (0.8, 0.6), (0.9, 0.5), (0.7, 0.4), (0.1, 0.1)]
    answer = Answer(
        study_of(tmp_path, objective={"metrics": GOALS}), [trial(number, *point) for number, point in enumerate(points)]
    )
    assert numbers(answer.front) == numbers(answer.winners) == [0, 3, 1, 5]
    assert numbers(answer.ranked) == [0, 3, 1, 5, 2, 4]
    assert (answer.best, numbers(answer.top(2))) == (None, [0, 3])


@pytest.mark.parametrize("goals", [2, 3])
def test_the_front_is_optunas(tmp_path: Path, goals: int) -> None:
    dice = random.Random(goals)
    objective = {
        "metrics": [{"metric": f"eval_{n}", "direction": ("maximize", "minimize")[n % 2]} for n in range(goals)]
    }
    study = optuna.create_study(directions=[goal["direction"] for goal in objective["metrics"]])
    rows = [trial(number, *(dice.randrange(8) / 8 for _ in range(goals))) for number in range(60)]
    for row in rows:
        study.add_trial(optuna.trial.create_trial(values=list(row.values)))
    found = numbers(Answer(study_of(tmp_path, objective=objective), rows).front)
    assert sorted(found) == [best.number for best in study.best_trials]


@pytest.mark.parametrize(("objective", "keep"), [(GOALS[0], [1, 2, 9]), ({"metrics": GOALS}, [4, 4, 9])])
def test_the_whole_front_keeps_its_checkpoints_and_else_as_many_as_asked(
    tmp_path: Path, objective: dict[str, Any], keep: list[int]
) -> None:
    points = [(0.1 * n, 0.1 * n) for n in range(4)] + [(0.0, 0.9)] * 3
    rows = [trial(n, *point[: 2 if "metrics" in objective else 1]) for n, point in enumerate(points)]
    answer = Answer(study_of(tmp_path, objective=objective), rows)
    assert [answer.keep(count) for count in (1, 2, 9)] == keep


def test_new_seeds_choose_and_only_while_their_best_is_still_the_searchs(tmp_path: Path) -> None:
    rows = [trial(0, 0.5, origin="baseline"), trial(1, 0.75), trial(2, 0.74)]
    confirmed = verdict({0: 0.5, 1: 0.6, 2: 0.7}, best=1)
    answer = Answer(study_of(tmp_path), rows, confirmed)
    assert (answer.best, answer.chosen, answer.winners, answer.verdict) == (rows[1], rows[2], [rows[2]], confirmed)
    later = Answer(answer.study, [*rows, trial(3, 0.76)], confirmed)
    assert later.verdict is None and later.chosen is not None and later.chosen.number == 3


@pytest.mark.parametrize(("target", "reached"), [(0.75, 1), (0.76, None), (None, None)])
def test_a_target_is_reached_from_its_very_value_on(tmp_path: Path, target: float | None, reached: int | None) -> None:
    for objective, sign in ((GOALS[0], 1), (DOWN, -1)):
        study = study_of(tmp_path, objective=objective, budget={"trials": 9, "target": target and sign * target})
        found = Answer(study, [trial(0, sign * 0.5), trial(1, sign * 0.75)]).target
        assert (found.number if found else None) == reached


def test_what_trackers_record_names_the_choice_the_baseline_the_confirmation_and_the_test(project: Path) -> None:
    rows = [trial(0, 0.5, origin="baseline"), trial(1, 0.75)]
    study = study_of(project)
    bare = {"status": "done", "reason": "budget", "best": 1, "value": 0.75, "baseline": 0.5, "gain": 0.25}
    bare |= {"searched": 0.75, "trials": {"complete": 2, "pruned": 0, "infeasible": 0, "diverged": 0, "failed": 0}}
    bare["says"] = "eval_f1 0.7500. Trial 1, the best of 2 trials: 0.2500 better than the baseline (trial 0: 0.5000)."
    assert Answer.read(study, rows).record(reason="budget") == bare
    confirmed = verdict({0: 0.8, 1: 0.7}, best=1)
    write_verdict(study.place, confirmed)
    mean = confirmed.estimates[0].mean
    write_test(study.place, FinalTest(0, "2026-01-01T00:00:00", 8, {"test_f1": 0.4}))
    assert Answer.read(study, rows).record(reason="budget") == {
        **bare,
        "best": 0,
        "value": mean,
        "baseline": mean,
        "gain": 0.0,
        "says": f"eval_f1 {words.value(mean)}. Trial 0, {confirmed.estimates[0].text}: the baseline itself; "
        "no other is better over new seeds.",
        "verdict": confirmed.conclusion(),
        "confirm": confirmed.to_json(),
        "test": {"trial": 0, "at": "2026-01-01T00:00:00", "rows": 8, "metrics": {"test_f1": 0.4}},
    }


def test_a_verdict_is_read_as_it_was_written(project: Path) -> None:
    place = study_of(project).place
    assert read_verdict(place) is None
    for means, keys in itertools.product(({0: 0.5, 1: 0.6}, {1: 0.6}, {}), ({}, {"baseline": True, "lost": 2})):
        written = verdict(means, 1, **keys)
        write_verdict(place, written)
        assert read_verdict(place) == written
