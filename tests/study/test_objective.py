"""The rule that makes one value of a trial's evaluations, by itself."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from sweepkit.study.objective import Objective

SECOND_IS_BEST = [(0.5,), (0.9,), (0.1,)]
GOALS = [{"metric": "eval_f1", "direction": "maximize"}, {"metric": "eval_loss", "direction": "minimize"}]


def objective(value: str = "best", direction: str = "maximize", **keys: Any) -> Objective:
    goal = {} if "metrics" in keys else {"metric": "eval_f1", "direction": direction}
    return Objective.model_validate({**goal, "value": value, **keys})


@pytest.mark.parametrize(
    ("value", "direction", "found", "decisive"),
    [
        ("best", "maximize", 0.9, 1),
        ("best", "minimize", 0.1, 2),
        ("last", "maximize", 0.1, 2),
        ("mean(2)", "maximize", 0.5, 2),
        ("mean(9)", "minimize", 0.5, 2),
    ],
)
def test_a_value_and_the_evaluation_that_stands_for_it(value: str, direction: str, found: float, decisive: int) -> None:
    mine = objective(value, direction)
    assert mine.values_of(SECOND_IS_BEST) == pytest.approx((found,))
    assert mine.decisive(SECOND_IS_BEST) == decisive


def test_without_evaluations_there_is_no_value() -> None:
    assert objective().values_of([]) == () and not objective().improves([])


def test_of_equal_evaluations_the_first_is_kept() -> None:
    assert not objective().improves([(0.9,), (0.9,)])


def test_several_values_come_from_the_one_evaluation_that_decides() -> None:
    evaluations = [(0.5, 0.2), (0.9, 0.4), (0.7, 0.1)]
    assert objective(metrics=GOALS).values_of(evaluations) == (0.9, 0.4)
    assert objective(metrics=GOALS, prune_on="eval_loss").values_of(evaluations) == (0.7, 0.1)
    assert objective("mean(2)", metrics=GOALS).values_of(evaluations) == pytest.approx((0.8, 0.25))


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_nan_is_worse_than_any_number(direction: str) -> None:
    assert objective(direction=direction).values_of([(math.nan,), (-3.0,), (math.nan,)]) == (-3.0,)


@given(some.lists(some.floats(-10, 10), min_size=1), some.sampled_from(["maximize", "minimize"]))
def test_the_kept_checkpoint_is_the_one_whose_value_is_told(numbers: list[float], direction: str) -> None:
    mine = objective(direction=direction)
    evaluations = [(number,) for number in numbers]
    kept = [n for n in range(1, len(numbers) + 1) if mine.improves(evaluations[:n])][-1] - 1
    assert mine.values_of(evaluations) == evaluations[kept]


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ((math.inf, -math.inf), math.nan),
        ((math.inf, 1.0), math.inf),
        ((1e308, 1e308), 1e308),
        ((math.nan, 1.0), math.nan),
    ],
)
def test_a_mean_of_values_beyond_all_bounds_is_none_or_what_it_is(values: tuple[float, float], mean: float) -> None:
    mine = objective("mean(2)")
    assert mine.values_of([(value,) for value in values]) == pytest.approx((mean,), nan_ok=True)
    assert mine.course(dict(enumerate(values)))[1] == pytest.approx(mean, nan_ok=True)
