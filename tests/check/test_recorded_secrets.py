"""A study that ran is found with its secrets, which its record lacks, or says which of them are missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sweepkit.check.find import find_run, find_study, read_study
from sweepkit.search.storage import open_storage
from sweepkit.study.errors import InputError
from sweepkit.study.identity import identify, refuse_changed
from sweepkit.study.study import StudyData
from sweepkit.tasks.load import load_task
from sweepkit.trackers.mlflow.address import tracking_uri
from toys import TOY_TASKS

STUDY = f"""
name: secretive
task: {{path: {TOY_TASKS}:Quadratic, label: "https://ann:pw-12345@host", note: false}}
objective: {{metric: eval_score, direction: maximize}}
space:
  learning_rate: {{low: 1e-4, high: 1e-2, log: true}}
budget: {{trials: 3}}
storage: postgresql+psycopg://ann:a/b@127.0.0.1:1/optuna
tracking: {{uri: "http://ann:pw-12345@127.0.0.1:1"}}
"""


@pytest.fixture
def study(project: Path) -> StudyData:
    """Return a study whose record has no secrets, as it is written in its file."""
    (project / "study.yaml").write_text(STUDY)
    study = read_study("study.yaml")
    study.task.__pydantic_extra__["api_key"] = "k3y"
    identify(study.place, study)
    return study


def test_the_record_has_no_secrets(study: StudyData) -> None:
    recorded = study.place.study_json.read_text()
    assert [secret for secret in ("pw-12345", "a/b", "k3y") if secret in recorded] == []
    assert json.loads(recorded)["study"]["task"]["api_key"] == "***"


def test_by_name_secrets_come_from_the_file_in_its_folder(study: StudyData) -> None:
    found = find_run("secretive")
    assert (found.storage, found.tracking.uri) == (study.storage, study.tracking.uri)
    assert found.task.options["label"] == "https://ann:pw-12345@host"
    with pytest.raises(
        InputError, match=r"^task.api_key: a secret is not recorded with the study; give the study's file"
    ):
        find_study("secretive")
    with pytest.raises(InputError, match=r"^task.api_key: a secret is not recorded"):
        load_task(found.task, found.home)


def test_without_the_file_passwords_come_from_the_environment(
    study: StudyData, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "study.yaml").unlink()
    lost = find_run("secretive")
    with pytest.raises(InputError, match=r"^storage: .*\(postgresql\+psycopg://ann:\*\*\*@.*set PGPASSWORD, or give"):
        open_storage(lost.place, lost)
    with pytest.raises(InputError, match=r"^tracking.uri: .*set MLFLOW_TRACKING_PASSWORD, or give the study's file"):
        tracking_uri(lost)
    monkeypatch.setenv("PGPASSWORD", "a/b c")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "pw-12345")
    found = find_run("secretive")
    assert found.storage == "postgresql+psycopg://ann:a%2Fb%20c@127.0.0.1:1/optuna"
    assert tracking_uri(found) == "http://ann:pw-12345@127.0.0.1:1"


def test_another_secret_is_no_other_study_and_a_record_of_an_earlier_version_is_cleaned(study: StudyData) -> None:
    study.task.__pydantic_extra__["api_key"] = "another"
    assert refuse_changed(study.place, study) is not None
    record = json.loads(study.place.study_json.read_text())
    record["study"]["task"]["api_key"] = "as earlier versions wrote it"
    study.place.study_json.write_text(json.dumps(record))
    identify(study.place, study)
    assert "earlier" not in study.place.study_json.read_text()
    study.task.__pydantic_extra__["label"] = "https://ann:pw-12345@elsewhere"
    with pytest.raises(InputError, match=r"task.label: https://ann:\*\*\*@host → https://ann:\*\*\*@elsewhere"):
        refuse_changed(study.place, study)
