"""Studies of one trial that train in this process, from the file to the exported script; shared by tests of kinds of task."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sweepkit.check.study_file import load_study
from sweepkit.driver.run import Replacements, run_checked
from sweepkit.report.export import export
from sweepkit.report.rows import read
from sweepkit.study.errors import InputError, StudyFileError
from sweepkit.study.study import StudyData, TaskSpec
from sweepkit.tasks.load import load_task, task_class
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Trial

TRAINING = {"num_train_epochs": 2, "per_device_train_batch_size": 8, "use_cpu": True, "seed": 3}
RATE = 3e-3
Rows = Mapping[str, Sequence[Mapping[str, Any]]]


def written(folder: Path, rows: Rows) -> None:
    """Write the rows of each split."""
    for split, part in rows.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in part))


def study_file(folder: Path, kind: str, model: Path, metric: str = "eval_loss", **keys: Any) -> Path:
    """Write a study of one configuration, of the rows that :func:`written` wrote."""
    task = {
        "type": kind,
        "model": str(model),
        "data": {"train": "train.jsonl", "validation": "validation.jsonl"},
        **keys.pop("task", {}),
    }
    space = {"learning_rate": {"choices": [RATE]}, **keys.pop("space", {})}
    study = {
        "name": "toy",
        "task": task,
        "training": {**TRAINING, **keys.pop("training", {})},
        "objective": {
            "metric": metric,
            "direction": "minimize" if metric == "eval_loss" else "maximize",
            "value": "last",
        },
        "space": space,
        "sampler": {"type": "random"},
        "budget": {"trials": 1},
        "tracking": {"uri": "none"},
        **keys,
    }
    file = folder / "study.yaml"
    file.write_text(json.dumps(study))
    return file


def ran(file: Path) -> tuple[StudyData, Trial, TrialLog]:
    """Check and run a study of one trial, in this process."""
    checked = load_study(file)
    [row] = run_checked(checked, instead=Replacements(task=task_class(checked.study.task, checked.study.home))).rows
    log = TrialLog(checked.study.place.trial(0))
    assert row.ending == "complete", log.finished
    return checked.study, row, log


def last(log: TrialLog) -> dict[str, float]:
    """Return what the last evaluation reported."""
    return dict(log.evaluations[-1].metrics)


def retrained(study: StudyData, row: Trial, folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What the exported script prints when it has trained the trial again."""
    export(study, read(study), row, folder)
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", "--output", str(folder / "retrained")])
        runpy.run_path(str(folder / "train.py"), run_name="__main__")
    return dict(json.loads(capsys.readouterr().out.strip().splitlines()[-1]))


def refused(folder: Path, kind: str, model: Path, rows: Sequence[Mapping[str, Any]], **keys: Any) -> str:
    """Why a study of these rows is refused: by its check, else when its data is prepared."""
    written(folder, {"train": rows, "validation": rows})
    try:
        load_study(study_file(folder, kind, model, **keys))
    except StudyFileError as error:
        return "\n".join(f"{each.path} {each.message}" for each in error.problems)
    task = {"model": str(model), "data": {"path": "train.jsonl"}, **keys.get("task", {})}
    with pytest.raises(InputError) as failed:
        load_task(TaskSpec(type=kind, **task), folder).data()
    return str(failed.value)
