"""Length and number of trials that fit into a time, by hand-computed arithmetic; nothing is trained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sweepkit.driver.tuning import ENOUGH, FEWEST, MOST, Plan, Room, TooLittle, fit
from sweepkit.trial.first_steps import Measured

SECOND = Measured(  # 3 epochs of 100 steps of 10 ms: a second per epoch
    overhead_seconds=1.0,
    step_seconds=0.01,
    evaluation_seconds=0.25,
    saving_seconds=0.25,
    steps=300,
    evaluations=4,
    measured_steps=10,
    best_bytes=0,
    last_bytes=0,
)


def room(seconds: float = 600.0, **changes: Any) -> Room:
    measured = replace(SECOND, **{name: changes.pop(name) for name in list(changes) if hasattr(SECOND, name)})
    values = {"start_seconds": 10.0, "slots": 2, "measured": [measured], "epochs": 3, "eval_rows": 100, **changes}
    return Room(seconds=seconds, **values)


def test_a_trial_is_overhead_epochs_and_four_evaluations() -> None:
    plan = room().plan_for(3)
    assert plan.trial_seconds == 1 + 3 * 1.0 + 4 * 0.5
    assert plan.confirm_seconds == 5 * 6  # nine runs, two at a time
    assert plan.search_seconds == 0.9 * 600 - 10 - 30 - 6
    assert plan.seconds == 0.9 * 600 - 10


def test_the_baseline_counts_whole_and_the_others_half() -> None:
    plan = room(100).plan_for(3)
    assert plan.search_seconds == 44
    assert plan.trials == int(1 + (44 * 2 / 6 - 1) / 0.5) == 28


@pytest.mark.parametrize("seconds", [90, 200, 400, 3600, 36000])
def test_what_is_planned_fits_into_the_time(seconds: float) -> None:
    one = room(seconds)
    plan = fit(one)
    assert FEWEST <= plan.trials <= MOST
    assert one.seconds_for(plan.epochs, plan.trials) <= seconds * 1.02
    assert one.start_seconds + plan.seconds <= 0.9 * seconds + 1e-6


def test_more_time_makes_trials_longer_before_it_makes_them_more_than_enough() -> None:
    lengths = [fit(room(seconds, steps=300, step_seconds=1.0)).epochs for seconds in (900, 2000, 3600, 9000, 90000)]
    assert lengths == sorted(lengths) and lengths[0] < 1 and lengths[-1] == 3
    assert all(fit(room(s, step_seconds=1.0)).trials >= ENOUGH for s in (2000, 3600, 9000))


@pytest.mark.parametrize(("steps", "epochs"), [(30, 10), (150, 6), (300, 3), (30000, 3)])
def test_small_data_is_seen_more_often(steps: int, epochs: int) -> None:
    assert fit(room(1e6, steps=steps)).epochs == epochs


def test_part_of_an_epoch_has_some_steps_or_none_is_trained() -> None:
    assert min(room(steps=300).lengths()) == 0.5
    assert min(room(steps=60).lengths()) == 1
    assert min(room(steps=30000).lengths()) == 0.02


def test_a_length_that_was_said_stays() -> None:
    assert fit(room(100), epochs=2.0).epochs == 2.0


def test_long_evaluations_see_fewer_rows() -> None:
    plan = room(eval_rows=10_000, evaluation_seconds=6.0).plan_for(3)
    assert plan.eval_rows == 625  # 1.5 of 24 seconds, half of the training
    assert plan.trial_seconds == pytest.approx(1 + 3 + 1.5 + 4 * 0.25)
    assert room(eval_rows=300, evaluation_seconds=600.0).plan_for(3).eval_rows == 256
    assert room(eval_rows=200, evaluation_seconds=600.0).plan_for(3).eval_rows is None


@pytest.mark.parametrize("seconds", [-5.0, 0.0, 20.0, 60.0])
def test_what_cannot_fit_says_what_it_takes(seconds: float) -> None:
    one = room(seconds, steps=60, step_seconds=0.2)
    with pytest.raises(TooLittle, match="8 trials with 9 runs to confirm the best, 2 at a time") as caught:
        fit(one)
    assert isinstance(fit(replace(one, seconds=caught.value.needed)), Plan)
