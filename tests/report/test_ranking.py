"""The answer of a study: the ranking, the Pareto front, the chosen trial, whose checkpoints stay, the target."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path
from typing import Any

import optuna
import pytest

from sweepkit.report.answer import Answer, write_test
from sweepkit.report.verdict import Candidate, Verdict, judge, read_verdict, write_verdict
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import Ending, Trial

GOALS = [{"metric": "eval_f1", "direction": "maximize"}, {"metric": "eval_loss", "direction": "minimize"}]
DOWN = {"metric": "eval_loss", "direction": "minimize"}


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
    bare = {"status": "done", "reason": "budget", "best": 1, "value": 0.75, "baseline": 0.5}
    assert Answer.read(study, rows).record(reason="budget") == bare
    confirmed = verdict({0: 0.8, 1: 0.7}, best=1)
    write_verdict(study.place, confirmed)
    write_test(study.place, {"trial": 0, "metrics": {"test_f1": 0.4}})
    assert Answer.read(study, rows).record(reason="budget") == {
        **bare,
        "best": 0,
        "value": 0.5,
        "confirm": confirmed.to_json(),
        "test": {"trial": 0, "metrics": {"test_f1": 0.4}},
    }


def test_a_verdict_is_read_as_it_was_written(project: Path) -> None:
    place = study_of(project).place
    assert read_verdict(place) is None
    for means, keys in itertools.product(({0: 0.5, 1: 0.6}, {1: 0.6}, {}), ({}, {"baseline": True, "lost": 2})):
        written = verdict(means, 1, **keys)
        write_verdict(place, written)
        assert read_verdict(place) == written
