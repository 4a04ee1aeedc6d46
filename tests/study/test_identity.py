"""Whose study it is, and which changes of a study file it may go on with."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from making import toy_study
from sweepkit.study.errors import DamagedFile, StudyChanged, StudyLocked
from sweepkit.study.identity import archive, changes, identify, plain_study, wider
from sweepkit.study.locks import StudyLock, lock_owner

RATE = {"low": 1e-4, "high": 1e-2, "log": True}
BATCH = {"choices": [4, 8]}
OPTIM = {"choices": {"adamw_torch": {"adam_beta2": {"low": 0.9, "high": 0.99}}, "sgd": {}}}
SPACE: dict[str, Any] = {"learning_rate": RATE, "per_device_train_batch_size": BATCH, "optim": OPTIM}


def test_a_damaged_time_is_named_like_any_other_damage(project: Path) -> None:
    study = toy_study(project)
    identify(study.place, study)
    known = json.loads(study.place.study_json.read_text())
    assert identify(study.place, study).created.isoformat() == known["created"]
    study.place.study_json.write_text(json.dumps({**known, "created": "yesterday"}))
    with pytest.raises(DamagedFile, match=r"study\.json is damaged: created: "):
        identify(study.place, study)


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


def test_keys_that_the_version_which_ran_the_study_did_not_have_are_no_change(project: Path) -> None:
    study = toy_study(project, confirm={"top": 2})
    identify(study.place, study)
    known = json.loads(study.place.study_json.read_text())
    for section, key in ((None, "duplicates"), ("sampler", "path"), ("objective", "nan"), ("backend", "address")):
        del (known["study"][section] if section else known["study"])[key]
    study.place.study_json.write_text(json.dumps(known))
    with pytest.raises(StudyChanged, match=r"\n  duplicates: redraw → train\n(?!  )"):
        identify(study.place, toy_study(project, confirm={"top": 2}, duplicates="train"))
    assert json.loads(study.place.study_json.read_text()) == known
    identify(study.place, study)
    assert json.loads(study.place.study_json.read_text())["study"]["duplicates"] == "redraw"


@pytest.mark.parametrize(
    ("old", "new", "embedded", "allowed"),
    [
        ({"choices": [4, 8]}, {"choices": [8, 4]}, False, True),
        ({"choices": [4, 8]}, {"choices": [4, 8, 16]}, False, False),
        ({"choices": [4, 8]}, {"choices": [4.0, 8, 16]}, True, False),
        ({"choices": {"a": {"x": 1}}}, {"choices": {"a": {"x": 1}, "b": {}}}, True, True),
        ({"choices": {"a": {"x": 1}}}, {"choices": {"a": {"x": 2}}}, True, False),
        ({"choices": {"a": {"x": 1}}}, {"choices": ["a"]}, True, False),
        ({"low": 2, "high": 8, "step": 2, "log": False}, {"low": 0, "high": 8, "step": 2, "log": False}, True, True),
        ({"low": 2, "high": 8, "step": 2, "log": False}, {"low": 1, "high": 9, "step": 2, "log": False}, True, False),
        ({"expression": "2 * x"}, {"expression": "3 * x"}, True, False),
    ],
    ids=str,
)
def test_a_parameter_is_wider_when_it_has_every_earlier_value(
    old: dict[str, Any], new: dict[str, Any], embedded: bool, allowed: bool
) -> None:
    assert wider(old, new, embedded=embedded) == allowed


def test_passwords_are_not_recorded_and_a_new_one_is_no_change(project: Path) -> None:
    first, second = (
        plain_study(toy_study(project, storage=f"postgresql://ann:{word}@host/db")) for word in ("one/1", "two")
    )
    assert first["storage"] == "postgresql://ann:***@host/db"
    assert changes(first, second) == []


def test_the_archived_study_keeps_its_files_and_the_lock_stays_held(project: Path) -> None:
    place = toy_study(project).place
    with StudyLock(place):
        place.journal.write_text("trials")
        target = archive(place)
        assert target is not None and (target / "optuna.journal").read_text() == "trials"
        assert [path.name for path in place.folder.iterdir()] == ["lock"]
        assert lock_owner(place) == (os.getpid(), socket.gethostname())
        with pytest.raises(StudyLocked):
            StudyLock(place).__enter__()
