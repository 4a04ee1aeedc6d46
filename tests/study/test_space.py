"""The space: which dimensions a sampler sees, what a configuration holds, and what can be derived from it."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from pydantic import TypeAdapter

from sweepkit.study.formulas import FormulaError, derive, evaluate, expressions, holds
from sweepkit.study.parameters import Choice, Float, Int, Scalar, contains
from sweepkit.study.space import Dimension, Space, axes, branch_of, dimensions, draw, labels, visit

CONDITIONAL = {
    "learning_rate": {"low": 1e-6, "high": 1e-3, "log": True},
    "optim": {
        "choices": {
            "adamw_torch": {
                "adam_beta2": {"low": 0.9, "high": 0.999},
                "lr_scheduler_type": {"choices": {"linear": {}, "cosine": {"warmup_steps": {"low": 1, "high": 9}}}},
            },
            "adafactor": {"weight_decay": 0.0, "adam_epsilon": {"expression": "learning_rate / 10"}},
        }
    },
}


def space(data: dict[str, Any]) -> Space:
    return TypeAdapter(Space).validate_python(data)


def first(dimension: Dimension) -> Scalar:
    """Answer with the lowest number or the first label."""
    return dimension.parameter.at(0)


def last(dimension: Dimension) -> Scalar:
    """Answer with the highest number or the last label."""
    return dimension.parameter.at(1)


def test_a_child_exists_exactly_where_its_parents_branch_is_chosen() -> None:
    assert draw(space(CONDITIONAL), first) == {
        "learning_rate": 1e-6,
        "optim": "adamw_torch",
        "adam_beta2": 0.9,
        "lr_scheduler_type": "linear",
    }
    assert draw(space(CONDITIONAL), last) == {"learning_rate": 1e-3, "optim": "adafactor", "weight_decay": 0.0}


def test_dimensions_name_their_conditions_parents_first() -> None:
    found = {
        key: tuple((condition.name, condition.branch) for condition in dimension.conditions)
        for key, dimension in dimensions(space(CONDITIONAL)).items()
    }
    assert found == {
        "learning_rate": (),
        "optim": (),
        "adam_beta2": (("optim", "adamw_torch"),),
        "lr_scheduler_type": (("optim", "adamw_torch"),),
        "warmup_steps": (("optim", "adamw_torch"), ("lr_scheduler_type", "cosine")),
    }


def test_a_name_with_different_domains_in_two_branches_is_two_dimensions() -> None:
    branches = {
        "adamw_torch": {"weight_decay": {"low": 0.0, "high": 0.1}},
        "sgd": {"weight_decay": {"low": 0.0, "high": 1.0}},
    }
    found = axes(space({"optim": {"choices": branches}}))
    assert [dimension.key for dimension in found.values()] == [
        "optim",
        "optim=adamw_torch/weight_decay",
        "optim=sgd/weight_decay",
    ]


def test_a_name_with_one_domain_in_two_branches_is_one_dimension() -> None:
    same = {"weight_decay": {"low": 0.0, "high": 0.1}}
    assert list(dimensions(space({"optim": {"choices": {"adamw_torch": same, "sgd": same}}}))) == [
        "optim",
        "weight_decay",
    ]


def test_every_occurrence_is_visited_with_its_path() -> None:
    assert [each.path for each in visit(space(CONDITIONAL))] == [
        "space.learning_rate",
        "space.optim",
        "space.optim.adamw_torch.adam_beta2",
        "space.optim.adamw_torch.lr_scheduler_type",
        "space.optim.adamw_torch.lr_scheduler_type.cosine.warmup_steps",
        "space.optim.adafactor.weight_decay",
        "space.optim.adafactor.adam_epsilon",
    ]


def test_derived_values_exist_where_their_branch_does_and_may_use_each_other() -> None:
    given_space = space(CONDITIONAL)
    assert expressions(given_space, {"optim": "adamw_torch", "lr_scheduler_type": "linear"}) == {}
    values = {"learning_rate": 1e-3, "optim": "adafactor"}
    assert derive(given_space, values, {}) == {**values, "adam_epsilon": 1e-4}
    chain = space({"peft.lora_alpha": {"expression": "2 * peft.r"}, "peft.r": {"expression": "task.size // 8"}})
    assert derive(chain, {"task.size": 64}, {}) == {"task.size": 64, "peft.r": 8, "peft.lora_alpha": 16}


def test_a_circle_of_expressions_is_an_error_and_not_an_endless_loop() -> None:
    circle = space({"a": {"expression": "b + 1"}, "b": {"expression": "a + 1"}})
    with pytest.raises(ValueError, match="cannot be computed"):
        derive(circle, {}, {"a": 1})


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2 * peft.r", 16),
        ("min(peft.r, 4) + max(1, 2) - round(2.4)", 4),
        ("peft.r ** 2 // 3 % 5", 1),
        ("batch * steps <= 64", True),
        ("abs(-1.5) + int(2.9) + float(1)", 4.5),
    ],
)
def test_arithmetic_is_computed(expression: str, value: Any) -> None:
    assert evaluate(expression, {"peft.r": 8, "peft.alpha": 1, "batch": 16, "steps": 4}) == value


@pytest.mark.parametrize(
    "expression", ["__import__('os')", "peft.r.__class__", "9 ** 9 ** 9", "nothing", "2 *", "open('x')"]
)
def test_nothing_but_arithmetic_is_computed(expression: str) -> None:
    with pytest.raises(ValueError, match="cannot be computed"):
        evaluate(expression, {"peft.r": 8})


def test_a_constraint_says_nothing_about_a_configuration_without_its_names() -> None:
    assert holds("batch * steps <= 64", {"batch": 8, "steps": 8})
    assert not holds("batch * steps <= 64", {"batch": 16, "steps": 8})
    assert holds("batch * steps <= 64", {"batch": 128})
    with pytest.raises(FormulaError, match="cannot be computed"):
        holds("batch * steps <= 64", {"batch": None, "steps": 8})


@pytest.mark.parametrize(
    ("parameter", "inside", "outside"),
    [
        (Float(low=0.0, high=1.0), [0, 0.5, 1.0], [-0.1, 1.1, True, "0.5", None]),
        (Float(low=0.0, high=1.0, step=0.25), [0.0, 0.75], [0.3]),
        (Int(low=1, high=9, step=2), [1, 3, 9], [2, 3.5, 10]),
        (Choice(choices=["a", None, [1]]), ["a", None, [1]], ["b", 1]),
        (Choice(choices={"a": {}, "b": {"x": 1}}), ["a", "b"], ["x"]),
        (0.1, [0.1], [0.2]),
    ],
)
def test_a_value_lies_in_its_domain_or_not(parameter: Any, inside: list[Any], outside: list[Any]) -> None:
    assert [contains(parameter, value) for value in inside] == [True] * len(inside)
    assert [contains(parameter, value) for value in outside] == [False] * len(outside)


@given(some.integers(-1000, 1000), some.integers(1, 1000), some.integers(1, 50))
def test_every_step_lies_in_the_domain(low: int, step: int, steps: int) -> None:
    parameter = Float(low=low / 100, high=(low + step * steps) / 100, step=step / 100)
    assert all(contains(parameter, (low + step * n) / 100) for n in range(steps + 1))
    assert not contains(parameter, (low + step / 2) / 100)


def test_choices_that_are_no_scalars_have_their_json_as_label() -> None:
    parameter = Choice(choices=[{"b": 1, "a": [2]}, None, True, "x"])
    assert parameter.labels == ['{"a": [2], "b": 1}', None, True, "x"]
    assert [parameter.value(label) for label in parameter.labels] == [{"b": 1, "a": [2]}, None, True, "x"]


@given(some.floats(0, 1), some.booleans())
def test_a_share_of_a_range_and_the_value_there_are_inverse(share: float, log: bool) -> None:
    for parameter in (Float(low=1e-5, high=1e-1, log=log), Float(low=0.5, high=4.5, step=0.25), Int(low=1, high=900)):
        value = parameter.at(share)
        assert parameter.contains(value)
        assert parameter.at(parameter.share(value)) == pytest.approx(value)
    choice = Choice(choices=["a", "b", "c", "d"])
    assert [choice.at(choice.share(label)) for label in choice.labels] == choice.labels


@given(some.randoms(use_true_random=False))
def test_a_random_value_lies_in_the_domain(dice: Random) -> None:
    for parameter in (
        Float(low=1e-5, high=1e-1, log=True),
        Float(low=0.0, high=1.0, step=0.3),
        Int(low=1, high=9, step=3),
    ):
        assert parameter.contains(parameter.random(dice))
    assert Choice(choices=[{"a": 1}, None]).random(dice) in ('{"a": 1}', None)


LINKED = {
    "size": {
        "choices": {
            "small": {"model.layers": 2, "learning_rate": {"low": 1e-4, "high": 1e-3}},
            "large": {"model.layers": 8, "learning_rate": {"low": 1e-6, "high": 1e-5}},
        }
    }
}


@pytest.mark.parametrize(
    ("values", "branch"),
    [
        ({"size": "large"}, "large"),
        ({"size": "huge"}, None),
        ({"model.layers": 8, "learning_rate": 2e-6}, "large"),
        ({"model.layers": 8, "learning_rate": 1.0}, "large"),
        ({"model.layers": 4, "learning_rate": 2e-6}, None),
        ({}, None),
    ],
)
def test_a_group_s_branch_follows_from_its_members_values(values: dict[str, Any], branch: str | None) -> None:
    group = next(visit(space(LINKED)))
    assert branch_of(group, values) == branch


@given(some.randoms(use_true_random=False))
def test_the_labels_of_a_drawn_configuration_are_those_it_was_drawn_with(dice: Random) -> None:
    for each in (space(CONDITIONAL), space(LINKED)):
        drawn: dict[str, Scalar] = {}

        def suggest(dimension: Dimension, drawn: dict[str, Scalar] = drawn) -> Scalar:
            return drawn.setdefault(dimension.key, dimension.parameter.random(dice))

        values = draw(each, suggest)
        assert labels(each, values) == drawn
        assert labels(each, {name: value for name, value in values.items() if name != "size"}) == drawn
