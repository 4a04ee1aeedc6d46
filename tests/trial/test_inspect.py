"""What is found out about a task before anything of its study is recorded: what ends the study, what is only said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from making import spec, toy_study
from sweepkit.check.study_file import load_study
from sweepkit.trial.inspect import MULTIPLIED, inspect
from trained import study_file, written

pytestmark = pytest.mark.real

SPLITS = ("train", "validation")


@pytest.mark.parametrize(
    ("task", "problems", "notes"),
    [
        ({}, [], []),
        ({"broken": "model"}, [("task", "a trial cannot be built: RuntimeError: toy model is broken")], []),
        (
            {"fail_at_step": 1},
            [("task", "a step and an evaluation failed: RuntimeError: toy failure at step 1")],
            [],
        ),
        (
            {"broken": "save"},
            [],
            ["the model cannot be saved (RuntimeError: toy model cannot be written); trials may fail alike"],
        ),
    ],
    ids=["sound", "cannot be built", "fails in its first step", "cannot be saved"],
)
def test_what_a_task_cannot_do_is_known_before_its_first_trial(
    project: Path, task: dict[str, Any], problems: list[tuple[str, str]], notes: list[str]
) -> None:
    found = inspect(toy_study(project, task=task), spec(project, 0))
    assert (list(found.problems), list(found.notes)) == (problems, notes)


@pytest.mark.parametrize(("ranks", "average", "said"), [(1, True, False), (2, True, True), (2, False, False)])
def test_a_loss_that_several_ranks_would_multiply_is_said(
    project: Path, tiny_bert: Path, ranks: int, average: bool, said: bool
) -> None:
    written(project, {split: [{"text": word, "label": word} for word in ("free", "bus") * 8] for split in SPLITS})
    file = study_file(
        project,
        "text-classification",
        tiny_bert,
        training={"average_tokens_across_devices": average},
        backend={"parallel": 1, "ranks_per_trial": ranks},
    )
    found = inspect(load_study(file).study, spec(project, 0))
    assert found.problems == ()
    assert (MULTIPLIED.format(ranks=ranks) in found.facts) is said
