"""Whose study it is, and which changes of a study file it may go on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from making import toy_study
from sweepkit.study.errors import InputError, StudyChanged
from sweepkit.study.identity import changes, identify, plain_study
from sweepkit.study.locks import StudyLock

RATE = {"low": 1e-4, "high": 1e-2, "log": True}
BATCH = {"choices": [4, 8]}
OPTIM = {"choices": {"adamw_torch": {"adam_beta2": {"low": 0.9, "high": 0.99}}, "sgd": {}}}
SPACE: dict[str, Any] = {"learning_rate": RATE, "per_device_train_batch_size": BATCH, "optim": OPTIM}


def what_is_refused(project: Path, **keys: Any) -> list[str]:
    """Return what ``identify`` would not go on with, key by key, when a study changes from SPACE to these keys."""
    old = plain_study(toy_study(project, space=SPACE))
    new = plain_study(toy_study(project, **{"space": SPACE, **keys}))
    return [str(change) for change in changes(old, new) if not change.allowed]


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"budget": {"trials": 9, "hours": 2}},
        {"backend": {"parallel": 1}},
        {"backend": {"type": "ray"}},
        {"checkpoints": {"keep": 1}},
        {"retries": {"crash": 0}},
        {"question": "Another one?"},
        {"confirm": {"top": 2, "seeds": 3}},
        {"tracking": {"uri": "sqlite:///elsewhere.db"}},
        {"space": {**SPACE, "learning_rate": {**RATE, "low": 1e-5, "high": 1e-1}}},
        {"space": {**SPACE, "learning_rate": {**RATE, "role": "nuisance"}}},
        {"space": {**SPACE, "per_device_train_batch_size": {"choices": [4, 8, 16]}}},
        {"space": {**SPACE, "optim": {"choices": {**OPTIM["choices"], "adafactor": {}}}}},
        {
            "space": {
                **SPACE,
                "optim": {"choices": {"adamw_torch": {"adam_beta2": {"low": 0.8, "high": 0.999}}, "sgd": {}}},
            }
        },
    ],
    ids=str,
)
def test_a_study_goes_on_with_more_of_what_it_had(project: Path, keys: dict[str, Any]) -> None:
    assert what_is_refused(project, **keys) == []


@pytest.mark.parametrize(
    ("keys", "refused"),
    [
        ({"training": {"weight_decay": 0.1}}, ["training.weight_decay: (nothing) → 0.1"]),
        ({"task": {"x": 0.25}}, ["task.x: (nothing) → 0.25"]),
        ({"sampler": {"type": "random", "seed": 2}}, ["sampler.seed: 1 → 2"]),
        (
            {"objective": {"metric": "eval_cost", "direction": "minimize"}},
            ["objective.metric: eval_score → eval_cost", "objective.direction: maximize → minimize"],
        ),
        ({"space": {**SPACE, "learning_rate": {**RATE, "high": 5e-3}}}, ["space.learning_rate.high: 0.01 → 0.005"]),
        ({"space": {**SPACE, "learning_rate": {**RATE, "log": False}}}, ["space.learning_rate.log: true → false"]),
        (
            {"space": {**SPACE, "per_device_train_batch_size": {"choices": [4]}}},
            ["space.per_device_train_batch_size.choices: [4, 8] → [4]"],
        ),
    ],
    ids=str,
)
def test_what_would_make_earlier_trials_answers_to_another_question_is_refused(
    project: Path, keys: dict[str, Any], refused: list[str]
) -> None:
    assert what_is_refused(project, **keys) == refused


def test_the_refusal_lists_what_changed_and_what_to_do_and_changes_nothing(project: Path) -> None:
    study = toy_study(project)
    study.place.folder.mkdir(parents=True)
    first = identify(study.place, study)
    other = toy_study(project, budget={"trials": 9}, training={"weight_decay": 0.1})
    with pytest.raises(StudyChanged) as error:
        identify(study.place, other)
    assert str(error.value).splitlines() == [
        "study toy changed since its trials were run:",
        "  training.weight_decay: (nothing) → 0.1",
        "run it with --fresh (the earlier trials are archived, not deleted) or give it a new name",
    ]
    assert identify(study.place, study) == first


def test_a_folder_that_cannot_be_written_is_said_with_what_was_to_lie_there(project: Path) -> None:
    (project / "runs").touch()
    with pytest.raises(InputError, match=r"runs/toy cannot be written \(Not a directory\); it is where the results of"):
        StudyLock(toy_study(project, name="toy").place).__enter__()
