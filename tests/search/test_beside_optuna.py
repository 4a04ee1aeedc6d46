"""Plain Optuna on the same storage: what it adds is trained as written or left out in words, and what it reads is true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from making import toy_study
from sweepkit.check import known_values
from sweepkit.search.proposer import Proposer
from sweepkit.search.search import Search
from sweepkit.study.objective import Objective
from sweepkit.trial.events import Evaluated, Finished

SPACE = {
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "optim": {"choices": {"adamw_torch": {"adam_beta2": {"low": 0.9, "high": 0.99}}, "sgd": {}}},
}


@pytest.fixture
def search(project: Path) -> Search:
    study = toy_study(project, space=SPACE, baseline=None, budget={"trials": 3}, pruner={"type": "median"})
    return Search(study, optuna.storages.InMemoryStorage(), Proposer(study, known_values(study)))


def train(search: Search, *curve: float) -> dict[str, Any]:
    """Run the next trial with these evaluations; return its hyperparameters."""
    asked = search.ask()
    assert asked is not None
    for number, value in enumerate(curve, start=1):
        metrics = {"eval_score": value}
        event = Evaluated(
            trial=asked.number, at=0, number=number, step=number, epoch=number, metrics=metrics, values=(value,)
        )
        assert search.report(event) == "continue"
    search.tell(Finished(trial=asked.number, at=0, ending="complete", values=(max(curve),)))
    return dict(asked.params)


def plain(search: Search) -> optuna.Study:
    search.records.create()
    return search.records.study()


def test_a_trial_of_study_ask_is_left_out_and_said(search: Search) -> None:
    train(search, 0.5)
    asked = plain(search).ask({"learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)})
    train(search, 0.6)
    assert [row.number for row in search.trials()] == [0, 2]
    (said,) = search.news()
    assert said.startswith(f"trial {asked.number} is left out: it was made by plain Optuna")
    assert search.news() == []
    assert search.take_over() == [], "it is not taken for a trial that a dead driver left"


def test_a_better_value_of_study_optimize_is_not_this_studys_best_and_counts_in_no_budget(search: Search) -> None:
    plain(search).optimize(lambda trial: 100.0 + trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True), n_trials=4)
    for value in (0.1, 0.2, 0.3):
        train(search, value)
    assert search.ask() is None
    assert [row.value for row in search.trials()] == [0.1, 0.2, 0.3]
    assert len(search.news()) == 4


def test_what_study_enqueue_trial_adds_is_trained_as_written(search: Search) -> None:
    plain(search).enqueue_trial({"learning_rate": 3e-3, "optim": "adamw_torch", "adam_beta2": 0.95})
    assert train(search, 0.5) == {"learning_rate": 3e-3, "optim": "adamw_torch", "adam_beta2": 0.95}
    assert search.row(0).origin == "enqueued"


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"learning_rate": 0.5}, "learning_rate"),
        ({"momentum": 0.9}, "momentum"),
        ({"optim": "sgd", "adam_beta2": 0.95}, "adam_beta2"),
    ],
    ids=["outside", "unknown", "impossible"],
)
def test_what_the_space_does_not_contain_is_refused_in_words(search: Search, params: dict[str, Any], why: str) -> None:
    plain(search).enqueue_trial(params)
    train(search, 0.5)
    (said,) = search.news()
    assert said.startswith("trial 0 is left out: plain Optuna enqueued it with") and why in said
    assert [row.number for row in search.trials()] == [1]
    assert search.records.all()[0].state == TrialState.FAIL


def test_optuna_reads_what_was_evaluated_and_the_metrics_name(search: Search) -> None:
    train(search, 0.5, 0.7, 0.2)
    assert plain(search).trials[0].intermediate_values == {1: 0.5, 2: 0.7, 3: 0.2}
    assert plain(search).metric_names == ["eval_score"]


@pytest.mark.parametrize(
    ("rule", "course"),
    [("best", {1: 0.5, 2: 0.7, 3: 0.7, 5: 0.7}), ("last", {1: 0.5, 2: 0.7, 3: 0.2, 5: 0.4}), ("mean(2)", None)],
)
def test_pruners_see_the_objectives_rule(rule: str, course: dict[int, float] | None) -> None:
    objective = Objective(metric="eval_score", direction="maximize", value=rule)
    expected = course or {1: 0.5, 2: 0.6, 3: 0.45, 5: 0.3}
    assert objective.course({1: 0.5, 2: 0.7, 3: 0.2, 5: 0.4}) == pytest.approx(expected)
