"""A search that is no better than chance, or wastes what trials have trained, is noticed: on made-up curves, in seconds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from quality.tasks import Late, MadeUp, Plateau
from quality.virtual import Course, Terms, run
from sweepkit.driver.session import StudySession
from sweepkit.search import freeze_thaw
from sweepkit.search.strategy import Strategy
from sweepkit.study import samplers
from sweepkit.study.samplers import SAMPLERS

pytestmark = pytest.mark.real  # seconds of computing

STRATEGY = {
    "sampler": {"type": "tpe", "n_startup_trials": 6},
    "pruner": {"type": "asha", "min_resource": 1, "reduction_factor": 3, "promote": True},
}
TERMS = Terms(budget=120)


def complaints() -> list[str]:
    """Return what is wrong with the search."""
    tasks = [MadeUp(seed, 5) for seed in (0, 1)]
    found: list[tuple[MadeUp, Course]] = [(task, run(task, STRATEGY, TERMS, seed)) for task in tasks for seed in (0, 1)]
    regret = float(np.mean([course.regret(task, TERMS.budget) for task, course in found]))
    started = float(np.mean([course.trials for _, course in found]))
    repeated = sum(course.repeated for _, course in found)
    wrong = [f"regret {regret:.3f}"] if regret > 0.05 else []
    wrong += [f"{started:g} trials, most of them trained to their end"] if started < 38 else []
    return wrong + ([f"{repeated} evaluations were repeated"] if repeated else [])


def test_the_search_is_better_than_chance_and_wastes_no_training() -> None:
    assert complaints() == []


def test_freeze_thaw_finds_what_chance_does_not() -> None:
    task, terms = MadeUp(0, 5), Terms(budget=90)
    auto, chance = run(task, {"search": "auto"}, terms, 0), run(task, {"sampler": {"type": "random"}}, terms, 0)
    assert auto.regret(task, 90) <= 0.02 < 0.1 < chance.regret(task, 90)
    assert auto.repeated == 0 and len(auto.complete) >= 3


def late_regret(strategy: dict[str, object]) -> float:
    """Return the regret where few configurations learn, and late."""
    task = Plateau(2, 50)
    return run(task, strategy, Terms(budget=600), 2).regret(task, 600)


def test_freeze_thaw_finds_the_few_that_learn_late() -> None:
    assert late_regret({"search": "auto"}) <= 0.25 < 0.5 < late_regret({"sampler": {"type": "random"}})


def test_a_pause_before_curves_say_anything_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freeze_thaw, "SHARES", (0.02, *freeze_thaw.SHARES))
    monkeypatch.setattr(freeze_thaw, "LEFT", -np.inf)  # else the best complete trial tells how early is too early
    assert late_regret({"search": "auto"}) > 0.25


def regret_where_beginnings_say_nothing() -> float:
    """Return the mean regret after twelve trainings, two at a time."""
    found = [
        (task, run(task, {"search": "auto"}, Terms(60, workers=2), 0)) for task in (Late(seed, 5) for seed in (0, 1, 2))
    ]
    return float(np.mean([course.regret(task, 60) for task, course in found]))


def test_trials_pause_where_curves_say_something(monkeypatch: pytest.MonkeyPatch) -> None:
    assert regret_where_beginnings_say_nothing() <= 0.35
    monkeypatch.setattr(freeze_thaw, "LEFT", -np.inf)
    assert regret_where_beginnings_say_nothing() > 0.45


@pytest.mark.parametrize("pruner", [{**STRATEGY["pruner"], "promote": promote} for promote in (False, True)])
def test_as_many_trials_are_trained_to_their_end_as_are_to_be_confirmed(pruner: dict[str, object]) -> None:
    for seed in range(3):
        strategy = {"pruner": pruner, "budget": {"trials": 20}, "confirm": {"top": 6, "seeds": 3}}
        course = run(MadeUp(1, 5), strategy, Terms(budget=1000), seed)
        assert course.trials == 20 and 1 + 6 <= len(course.complete) <= 12


def complete(strategy: dict[str, object], budget: float) -> list[int]:
    """Return how many trials are trained to their end in so many evaluations, of which the study knows when they end."""
    keys, terms = {**strategy, "confirm": {"top": 3, "seeds": 2}}, Terms(budget, workers=2, known_end=True)
    return [len(run(MadeUp(1, 5), keys, terms, seed).complete) for seed in range(3)]


AUTO, PROMOTION, HALVING = (
    {"search": "auto"},
    STRATEGY,
    {**STRATEGY, "pruner": {**STRATEGY["pruner"], "promote": False}},
)


@pytest.mark.parametrize(("strategy", "budget"), [(AUTO, 80), (PROMOTION, 80), (HALVING, 80), (HALVING, 120)])
def test_a_study_of_some_hours_trains_as_many_to_their_end_as_are_to_be_confirmed(
    strategy: dict[str, object], budget: float
) -> None:
    assert min(complete(strategy, budget)) >= 1 + 3


def test_a_search_that_does_not_know_when_it_ends_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweepkit.driver.limits.Limits.left", lambda *_: None)
    assert min(complete(AUTO, 80)) < 1 + 3


def test_a_sampler_that_is_not_asked_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    blind = replace(SAMPLERS["random"], ignored=frozenset({"n_startup_trials"}))
    monkeypatch.setitem(samplers.SAMPLERS, "tpe", blind)
    assert any(each.startswith("regret") for each in complaints())


def test_a_pruner_that_never_fires_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweepkit.search.strategies.Promotion", lambda options, least: Strategy())
    assert any("trained to their end" in each for each in complaints())


def test_trials_that_go_on_from_zero_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = StudySession._spec
    monkeypatch.setattr(StudySession, "_spec", lambda self, trial: replace(spec(self, trial), evaluations=()))
    assert any("repeated" in each for each in complaints())
