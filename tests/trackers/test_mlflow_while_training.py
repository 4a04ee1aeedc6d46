"""Real trials that log every step, eight at a time, recorded in SQLite and on a real server that may go away."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from making import sweep, toy_study, wait_until
from mlflow_server import Server
from sweepkit.check.study_file import to_yaml
from sweepkit.report.rows import read
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Logged
from sweepkit.trial.log import TrialLog

pytestmark = pytest.mark.real


QUESTION = (
    "select r.run_uuid, m.key, m.step from runs r join metrics m on m.run_uuid = r.run_uuid "
    "join experiments e on e.experiment_id = r.experiment_id "
    "where e.name = '{}' and m.key not like 'system/%' and m.key not in ('epoch', 'objective')"
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


def study_of(project: Path, uri: str, **keys: object) -> StudyData:
    """Write and return a study of eight trials of 40 steps, all at once, every step logged."""
    whole = {
        "training": {"use_cpu": True, "logging_steps": 1, "num_train_epochs": 10},
        "budget": {"trials": 8},
        "backend": {"parallel": 8},
        **keys,
    }
    study = toy_study(project, tracking={"uri": uri}, **whole)
    (project / "study.yaml").write_text(to_yaml(study))
    return study


def logged(study: StudyData) -> Counter[tuple[str | None, str, int]]:
    """Return (run, metric, step) of everything the trials themselves wrote down."""
    return Counter(
        (row.mlflow_run, name, event.step)
        for row in read(study)
        for event in TrialLog(study.place.trial(row.number)).refresh()
        if isinstance(event, (Logged, Evaluated))
        for name in event.metrics
        if name != "epoch"
    )


def run_whole(project: Path) -> str:
    process = sweep("run", "study.yaml", cwd=project)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return said


@pytest.mark.slow
def test_eight_trials_at_once_lose_and_double_no_metric_in_sqlite(project: Path) -> None:
    study = study_of(project, "sqlite:///mlflow.db")
    assert "tracking:" not in run_whole(project)
    database = sqlite3.connect(project / "mlflow.db")
    found = Counter(database.execute(QUESTION.format(study.name)).fetchall())
    database.close()
    assert found == logged(study)
    assert len({run for run, _, _ in found}) == 8
    assert found.total() >= 8 * 40 * 3


@pytest.mark.slow
def test_eight_trials_at_once_lose_and_double_no_metric_on_a_server(project: Path, server: Server) -> None:
    study = study_of(project, server.uri)
    assert "tracking:" not in run_whole(project)
    found = Counter(map(tuple, server.ask(QUESTION.format(study.name))))
    assert found == logged(study)
    assert len({run for run, _, _ in found}) == 8
    assert found.total() >= 8 * 40 * 3


OUTAGE_SECONDS = 20.0


@pytest.mark.slow
def test_a_server_away_for_twenty_seconds_of_a_study_has_everything_once_in_the_end(
    project: Path, server: Server, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    study = study_of(
        project,
        server.uri,
        training={"use_cpu": True, "logging_steps": 1, "num_train_epochs": 40},
        task={"step_seconds": 0.2, "wait_at_step": 150, "wait_for": str(go)},
        budget={"trials": 4},
        backend={"parallel": 4},
    )
    process = sweep("run", "study.yaml", cwd=project)
    wait_until(lambda: len(server.ask(QUESTION.format(study.name))) > 100, 300, "metrics of the first steps are there")
    server.kill()
    killed, there = time.monotonic(), len(server.ask(QUESTION.format(study.name)))
    wait_until(lambda: time.monotonic() - killed > OUTAGE_SECONDS, OUTAGE_SECONDS + 5, "the outage is over")
    assert len(list(tmp_path.glob("go.here-*"))) < 4, "some trial trained all the while"
    server.start()
    wait_until(lambda: len(list(tmp_path.glob("go.here-*"))) == 4, 300, "all trials have ten steps to go")
    go.touch()
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert said.count("training continues, and the rest is delivered later") == 1
    found = Counter(map(tuple, server.ask(QUESTION.format(study.name))))
    assert found == logged(study)
    assert found.total() >= 4 * 160 * 3 > there
    statuses = server.ask(
        f"select status from runs where name like '000%' and experiment_id in "
        f"(select experiment_id from experiments where name = '{study.name}')"
    )
    assert statuses == [("FINISHED",)] * 4
