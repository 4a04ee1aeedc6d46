"""A dotted name is a path: into a mapping and out of it again, and both spellings in a space are one parameter."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from sweepkit.study.formulas import evaluate
from sweepkit.study.names import UNSET, find, inner_names, nest
from sweepkit.study.parameters import Choice, Float, flatten
from sweepkit.study.study import StudyData

keys = some.text(alphabet="abc", min_size=1, max_size=3)
values = (
    some.none() | some.booleans() | some.integers() | some.text(max_size=3) | some.lists(some.integers(), max_size=2)
)
mappings = some.recursive(
    some.dictionaries(keys, values, min_size=1, max_size=3),
    lambda inner: some.dictionaries(keys, values | inner, min_size=1, max_size=3),
    max_leaves=12,
)
BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine draws slowly."""


def leaves(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return every innermost value by its dotted name."""
    names = [*tree, *inner_names(tree)]
    return {name: find(tree, name) for name in names if not isinstance(find(tree, name), Mapping)}


@BUSY
@given(mappings, some.integers())
def test_nesting_dotted_names_is_the_inverse_of_reading_them(tree: dict[str, Any], seed: int) -> None:
    flat = list(leaves(tree).items())
    Random(seed).shuffle(flat)
    assert nest(dict(flat)) == tree


@BUSY
@given(mappings, mappings)
def test_a_dotted_name_changes_its_key_alone_and_no_argument(base: dict[str, Any], other: dict[str, Any]) -> None:
    before, changed = repr(base), next(iter(leaves(other)))
    result = nest({"field": base, f"field.{changed}": 7})["field"]
    assert repr(base) == before
    assert find(result, changed) == 7
    untouched = {
        name: value
        for name, value in leaves(base).items()
        if not f"{name}.".startswith(f"{changed}.") and not f"{changed}.".startswith(f"{name}.")
    }
    assert {name: find(result, name) for name in untouched} == untouched


def study(space: dict[str, Any], **more: Any) -> StudyData:
    objective = {"metric": "eval_loss", "direction": "minimize"}
    return StudyData.model_validate(
        {"name": "toy", "task": {"type": "causal-lm"}, "objective": objective, "space": space, **more}
    )


RATE = {"low": 0.0, "high": 0.3}


@pytest.mark.parametrize(
    ("nested", "dotted"),
    [
        ({"lr_scheduler_kwargs": {"min_lr_rate": RATE}}, {"lr_scheduler_kwargs.min_lr_rate": RATE}),
        ({"deepspeed": {"a": {"b": RATE}, "c": RATE}}, {"deepspeed.a.b": RATE, "deepspeed.c": RATE}),
        ({"model": {"dropout": RATE}, "model.x": {"y": RATE}}, {"model.dropout": RATE, "model.x.y": RATE}),
        (
            {"lr_scheduler_type": {"choices": {"linear": {}, "cosine": {"lr_scheduler_kwargs": {"x": RATE, "y": 2}}}}},
            {
                "lr_scheduler_type": {
                    "choices": {
                        "linear": {},
                        "cosine": {"lr_scheduler_kwargs.x": RATE, "lr_scheduler_kwargs.y": 2},
                    }
                }
            },
        ),
        (
            {"peft.rank_pattern": {"encoder.layer.0": {"choices": [4, 8]}}},
            {"peft.rank_pattern.encoder.layer.0": {"choices": [4, 8]}},
        ),
    ],
)
def test_both_spellings_are_the_same_space(nested: dict[str, Any], dotted: dict[str, Any]) -> None:
    assert study(nested).space == study(dotted).space
    assert flatten(flatten(nested)) == flatten(nested) == dotted


def test_a_space_of_python_objects_may_be_nested_too() -> None:
    made = study({"lr_scheduler_kwargs": {"min_lr_rate": Float(low=0.0, high=0.3)}})
    assert list(made.space) == ["lr_scheduler_kwargs.min_lr_rate"]
    branch = Choice(choices={"cosine": {"lr_scheduler_kwargs": {"min_lr_rate": Float(low=0.0, high=0.3)}}})
    assert list(branch.branches["cosine"]) == ["lr_scheduler_kwargs.min_lr_rate"]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"lr_scheduler_kwargs": {"a": RATE}, "lr_scheduler_kwargs.a": RATE}, "given twice"),
        ({"lr_scheduler_kwargs": {"a.b": RATE}}, "a key of text without a dot"),
        ({"deepspeed": {1: RATE}}, "a key of text without a dot"),
        ({"lr_scheduler_kwargs": {"a": RATE, "b": 2}}, "lr_scheduler_kwargs.b needs low and high"),
    ],
)
def test_what_no_name_can_stand_for_is_refused(space: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        study(space)


def test_values_inside_a_mapping_leave_its_fixed_keys_as_they_are() -> None:
    fixed = {"lr_scheduler_kwargs": {"num_cycles": 0.5}, "model.rope": {"type": "yarn"}}
    made = study({"lr_scheduler_kwargs.min_lr_rate": RATE}, training=fixed)
    drawn = {"lr_scheduler_kwargs.min_lr_rate": 0.1, "model.rope.factor": 2.0, "model.other.x": 1, "task.data.y": 3}
    found = made.by_consumer({**drawn, "peft.rank_pattern.encoder.layer.0": 8})
    assert found.training == {"lr_scheduler_kwargs": {"num_cycles": 0.5, "min_lr_rate": 0.1}}
    assert found.model == {"rope": {"type": "yarn", "factor": 2.0}, "other.x": 1}
    assert found.task == {"data.y": 3}
    assert found.peft == {"rank_pattern": {"encoder.layer.0": 8}}
    assert made.training == {"lr_scheduler_kwargs": {"num_cycles": 0.5}, "model.rope": {"type": "yarn"}}


def test_the_baseline_and_queued_configurations_take_both_spellings() -> None:
    space = {"lr_scheduler_kwargs.min_lr_rate": RATE, "deepspeed": {"choices": [{"a": 1}, {"a": 2}]}}
    given = {"lr_scheduler_kwargs": {"min_lr_rate": 0.1}, "deepspeed": {"a": 1}}
    made = study(space, baseline=given, enqueue=[given])
    assert made.baseline == made.enqueue[0] == {"lr_scheduler_kwargs.min_lr_rate": 0.1, "deepspeed": {"a": 1}}


def test_formulas_read_inside_mappings() -> None:
    known = {"lr_scheduler_kwargs": {"num_cycles": 2, "min_lr_rate": 0.5}, "optim_args": None}
    assert evaluate("lr_scheduler_kwargs.num_cycles * 3", known) == 6
    drawn = {**known, "lr_scheduler_kwargs.min_lr_rate": 0.1, "optim_args.a": 4}
    assert evaluate("lr_scheduler_kwargs.min_lr_rate * optim_args.a", drawn) == 0.4
    assert find(known, "lr_scheduler_kwargs.other") is UNSET
