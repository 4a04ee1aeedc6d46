"""Two drivers on one PostgreSQL study, with a real server of the test's own: every trial once, both take part."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from making import processes_below, sweep, toy_study, wait_until
from postgres import postgres
from sweepkit.check.study_file import to_yaml
from sweepkit.report.rows import read
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import Ending

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Return the URL of a PostgreSQL server."""
    with postgres() as url:
        yield url


def written(project: Path, server: str, **keys: Any) -> tuple[StudyData, Path]:
    study = toy_study(project, storage=server, **keys)
    file = project / "study.yaml"
    file.write_text(to_yaml(study))
    return study, file


def drivers_of(study: StudyData, server: str) -> list[str]:
    """Return which driver ran each trial, by number."""
    import optuna
    import sqlalchemy

    storage = optuna.storages.RDBStorage(server, engine_kwargs={"poolclass": sqlalchemy.NullPool})
    trials = optuna.load_study(study_name=study.name, storage=storage).get_trials()
    return [trial.user_attrs["driver"] for trial in trials]


def test_two_drivers_share_a_study(project: Path, tmp_path: Path, server: str) -> None:
    trials = 30
    study, file = written(
        project,
        server,
        name="shared",
        task={"step_seconds": 0.1},
        budget={"trials": trials},
        backend={"parallel": 1},
        tracking={"uri": "sqlite:///mlflow.db"},
    )
    both = [sweep("run", str(file), cwd=tmp_path) for _ in range(2)]
    said = [process.communicate(timeout=600)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    rows = read(study)
    assert [(row.number, row.ending) for row in rows] == [(number, Ending.complete) for number in range(trials)]
    assert len({row.params["learning_rate"] for row in rows}) == trials, "no configuration was trained twice"
    assert {row.attempts for row in rows} == {1}
    assert len(set(drivers_of(study, server))) == 2, "both took part"
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    told = sorted(run.data.tags["sweepkit.trial"] for run in runs if "sweepkit.trial" in run.data.tags)
    assert told == sorted(map(str, range(trials)))
    assert len(runs) == trials + 1


def test_the_other_driver_takes_over_what_a_dead_one_left(project: Path, tmp_path: Path, server: str) -> None:
    study, file = written(
        project,
        server,
        name="taken-over",
        task={"wait_at_step": 6, "wait_for": str(tmp_path / "go")},
        budget={"trials": 2},
        backend={"parallel": 1},
    )
    first = sweep("run", str(file), cwd=tmp_path, env={**os.environ, "SWEEPKIT_TEST_MARK": str(tmp_path)})
    wait_until(lambda: list(tmp_path.glob("go.here-*")), 300, "the first trial waits after its checkpoint")
    second = sweep("run", str(file), cwd=tmp_path)
    wait_until(lambda: len(list(tmp_path.glob("go.here-*"))) == 2, 300, "so does the second's")
    first.send_signal(signal.SIGKILL)
    first.communicate()
    wait_until(lambda: not processes_below(str(tmp_path)), 5, "the first driver's trial is gone with it")
    (tmp_path / "go").touch()
    said, _ = second.communicate(timeout=600)
    assert second.returncode == 0, said
    assert [(row.ending, row.attempts) for row in read(study)] == [(Ending.complete, 2), (Ending.complete, 1)]
