"""Trials as rows: hours by ending, JSON keys, the data frame, and reading without disturbing a driver."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import optuna
import pytest

from sweepkit.report.rows import frame, hours_by_ending, join, read, slot_hours, to_json, trial_json
from sweepkit.report.rows import rows as searched
from sweepkit.search.proposer import Proposer
from sweepkit.search.search import Search
from sweepkit.search.storage import open_storage
from sweepkit.study.locks import StudyLock
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Finished
from sweepkit.trial.trial import Ending, Reason, Trial

Value = float | tuple[float, ...] | None


def study_of(home: Path, **changes: Any) -> StudyData:
    """Return a small study whose file would lie in ``home``."""
    data: dict[str, Any] = {
        "name": "toy",
        "task": {"path": "task.py:Toy"},
        "objective": {"metric": "eval_f1", "direction": "maximize"},
        "space": {"learning_rate": {"low": 1e-6, "high": 1e-1, "log": True}},
        "budget": {"trials": 10},
        "tracking": {"uri": "none"},
    }
    return StudyData.model_validate({**data, **changes}).at(home)


def trial(number: int, value: Value, ending: Ending = Ending.complete, **facts: Any) -> Trial:
    """Return a trial with this value."""
    values = () if value is None else value if isinstance(value, tuple) else (value,)
    return Trial(number=number, ending=ending, values=values, **facts)


def record(study: StudyData, ends: list[tuple[float, str | None, str]]) -> Search:
    """Run these trials (learning rate, ending or None for one that is never told, cause) through a real search."""
    search = Search(study, open_storage(study.place, study), Proposer(study, {}))
    for rate, ending, cause in ends:
        search.enqueue({"learning_rate": rate})
        asked = search.ask()
        assert asked is not None
        search.report(Evaluated(trial=asked.number, at=0, number=1, step=5, epoch=1, metrics={}, values=(rate,)))
        if ending:
            search.tell(Finished(trial=asked.number, at=0, ending=ending, cause=cause, seconds=2.0))
    return search


def test_the_ledger_counts_hours_by_ending_of_confirmation_runs_and_the_idle_rest() -> None:
    rows = [
        trial(0, 0.5, seconds=3600.0),
        trial(1, 0.1, Ending.pruned, seconds=1800.0),
        trial(2, None, Ending.failed, seconds=900.0),
        trial(3, None, Ending.waiting),
    ]
    again = [trial(0, 0.5, seconds=360.0)]
    assert hours_by_ending(rows, confirmed=again, slot_hours=2.0) == {
        "won": 1.0,
        "pruned": 0.5,
        "infeasible": 0.0,
        "diverged": 0.0,
        "failed": 0.25,
        "confirmation": 0.1,
        "idle": pytest.approx(0.15),
    }


def test_json_has_exactly_the_promised_keys_and_no_nan(tmp_path: Path) -> None:
    rows = [
        trial(
            7,
            math.nan,
            Ending.diverged,
            reason=Reason.not_finite,
            cause="nan",
            params={"learning_rate": 3e-5},
            checkpoint=Path("best"),
        )
    ]
    plain = to_json(study_of(tmp_path), rows)
    assert plain == {
        "study": "toy",
        "trials": [
            {
                "number": 7,
                "ending": "diverged",
                "reason": "not_finite",
                "cause": "nan",
                "params": {"learning_rate": 3e-5},
                "value": None,
                "metrics": {},
                "started": None,
                "seconds": None,
                "checkpoint": "best",
                "mlflow_run": None,
            }
        ],
    }
    json.dumps(plain, allow_nan=False)


def test_the_frame_has_a_column_per_goal_and_parameter(tmp_path: Path) -> None:
    rows = [trial(0, 0.5, params={"learning_rate": 1e-3}), trial(1, None, Ending.failed, params={"optim": "sgd"})]
    found = frame(study_of(tmp_path), rows)
    assert list(found["number"]) == [0, 1]
    assert found["eval_f1"].isna().tolist() == [False, True]
    assert {"params.learning_rate", "params.optim", "ending", "seconds", "origin"} <= set(found.columns)


def test_params_have_fixed_values_too_and_all_metrics_are_told(tmp_path: Path) -> None:
    task = {"path": "task.py:Toy", "max_length": 64, "data": {"name": "toy"}, "hub_token": "hf_0123456789abcdef"}
    study = study_of(tmp_path, training={"num_train_epochs": 2}, task=task)
    row = trial(0, 0.5, params={"learning_rate": 1e-3}, metrics={"eval_f1": 0.4, "eval_loss": 1.5})
    told = trial_json(study, row)
    assert told["params"] == {
        "num_train_epochs": 2,
        "task.max_length": 64,
        "task.hub_token": "***",
        "learning_rate": 1e-3,
    }
    assert told["metrics"] == {"eval_f1": 0.4, "eval_loss": 1.5}
    found = frame(study, [row]).iloc[0]
    assert (found["eval_f1"], found["eval_loss"]) == (0.5, 1.5), "of the objective's metric, the objective's value"
    assert (found["params.num_train_epochs"], found["params.task.max_length"]) == (2, 64)


def test_checkpoints_and_mlflow_runs_are_joined_where_they_are(project: Path) -> None:
    study = study_of(project, tracking={})
    (study.place.trial(1) / "best").mkdir(parents=True)
    study.place.trial(2).mkdir()
    (study.place.trial(2) / "best").symlink_to(project / "gone")
    sent = {"study_id": "toy", "trials": {"1": {"run_id": "abc"}, "2": {"run_id": ""}}}
    study.place.mlflow_json.write_text(json.dumps(sent))
    rows = join(study, study.place, [trial(1, 0.5), trial(2, 0.6)])
    assert [(row.checkpoint, row.mlflow_run) for row in rows] == [(study.place.trial(1) / "best", "abc"), (None, None)]


def test_a_study_that_never_ran_has_no_rows_and_leaves_no_file(project: Path) -> None:
    assert read(study_of(project)) == []
    assert [path.name for path in project.iterdir()] == ["pyproject.toml"]


def test_reading_gives_what_the_search_has(project: Path) -> None:
    study = study_of(project)
    search = record(study, [(1e-3, "complete", ""), (2e-3, "pruned", ""), (3e-3, "failed", "signal 9")])
    rows = read(study)
    assert rows == searched(study, search)
    assert [(row.ending, row.cause, row.seconds) for row in rows] == [
        (Ending.complete, "", 2.0),
        (Ending.pruned, "", 2.0),
        (Ending.failed, "signal 9", 2.0),
    ]


def test_a_running_trial_counts_as_stopped_once_its_driver_is_gone(project: Path) -> None:
    study = study_of(project)
    record(study, [(1e-3, None, "")])
    with StudyLock(study.place):
        assert [row.ending for row in read(study)] == [Ending.running]
    assert [row.ending for row in read(study)] == [Ending.stopped]


def test_reading_writes_nothing_and_survives_a_torn_last_record(project: Path) -> None:
    study = study_of(project)
    record(study, [(1e-3, "complete", "")])
    with study.place.journal.open("ab") as journal:
        journal.write(b'{"op_code":8,"wor')
    before = study.place.journal.read_bytes()
    assert [row.ending for row in read(study)] == [Ending.complete]
    assert study.place.journal.read_bytes() == before


def test_a_study_renamed_by_hand_has_no_rows_instead_of_an_error(project: Path) -> None:
    study = study_of(project)
    study.place.folder.mkdir(parents=True)
    optuna.create_study(
        study_name="other",
        storage=optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(study.place.journal)),
        ),
    )
    assert read(study) == []


@pytest.mark.parametrize("seconds", [None, 7200.0])
def test_slot_hours_come_from_what_the_driver_wrote(project: Path, seconds: float | None) -> None:
    place = study_of(project).place
    assert slot_hours(place) is None
    place.folder.mkdir(parents=True)
    (place.folder / "spent.json").write_text(json.dumps({"seconds": 1.0, "slot_seconds": seconds}))
    assert slot_hours(place) == (None if seconds is None else 2.0)
