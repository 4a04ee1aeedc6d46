"""The MLflow store is made whole or not at all; one that an earlier kill left broken is set aside and delivered anew."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import pytest

import written_trials as trials
from making import wait_until
from sweepkit.trackers.mlflow import private
from sweepkit.trackers.mlflow.store import Store
from sweepkit.trackers.mlflow.tracker import MLflowTracker
from sweepkit.trial.trial import Ending

MAKING = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from pathlib import Path
import written_trials as trials
from sweepkit.trackers.mlflow.address import tracking_uri
from sweepkit.trackers.mlflow import private
from sweepkit.trackers.mlflow.store import Store
study = trials.toy_study(Path.cwd())
Store(tracking_uri(study), study.place)
"""


@pytest.mark.real
def test_a_process_killed_while_it_makes_the_store_leaves_none(project: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", MAKING], cwd=project)
    drafts = lambda: [file for file in project.glob(".mlflow.db-*/draft.db") if file.stat().st_size]  # noqa: E731
    wait_until(drafts, 300, "the tables are being made")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (project / "mlflow.db").exists()
    study = trials.toy_study(project)
    store = Store(f"sqlite:///{project}/mlflow.db", study.place)
    assert (store.note, store.experiment("toy")) == ("", "1")
    assert not list(project.glob(".mlflow.db-*")), "what the killed process left is removed"


def without_experiments(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute("delete from experiments")
        database.commit()


def half_migrated(file: Path) -> None:
    file.unlink()
    with closing(sqlite3.connect(file)) as database:
        database.executescript("create table alembic_version (v text); create table metrics (key text);")


BREAK: dict[str, Callable[[Path], object]] = {
    "without experiments": without_experiments,
    "half migrated": half_migrated,
    "truncated": lambda file: os.truncate(file, 5000),
    "zeros": lambda file: file.write_bytes(bytes(100_000)),
    "garbage": lambda file: file.write_bytes(b"no database at all " * 500),
}


@pytest.mark.real
@pytest.mark.parametrize("how", BREAK)
def test_a_broken_store_is_set_aside_and_everything_delivered_again(home: Path, how: str) -> None:
    study = trials.toy_study(home)
    row = trials.whole(study, 0)
    BREAK[how](home / "mlflow.db")
    tracker = MLflowTracker(study, lambda: [row])
    tracker.open()
    tracker.sync()
    assert tracker.behind() == 0
    (aside,) = [file.name for file in home.glob("mlflow.db.broken-*")]
    assert tracker.note == (
        f"mlflow.db was not a whole database; it is now {aside}, and everything is delivered to a new one"
    )
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        assert database.execute("select count(*) from runs").fetchone() == (2,)


@pytest.mark.real
def test_a_database_of_another_program_is_left_where_it_is(home: Path) -> None:
    with closing(sqlite3.connect(home / "other.db")) as database:
        database.executescript("create table mine (x); insert into mine values (7);")
    study = trials.toy_study(home, tracking={"uri": "sqlite:///other.db"})
    tracker = MLflowTracker(study, lambda: [trials.row(0, Ending.failed)])
    tracker.open()
    assert tracker.note == ""
    with closing(sqlite3.connect(home / "other.db")) as database:
        assert database.execute("select x from mine").fetchone() == (7,)


@pytest.mark.real
@pytest.mark.parametrize("goes", ["removed", "set aside"])
def test_a_process_writes_to_the_store_of_now_where_the_one_it_knew_is_gone(project: Path, goes: str) -> None:
    study, file = trials.toy_study(project), project / "mlflow.db"
    Store(f"sqlite:///{file}", study.place).experiment("before")
    file.unlink() if goes == "removed" else file.rename(project / "aside.db")
    Store(f"sqlite:///{file}", study.place).experiment("after")
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("select name from experiments").fetchall() == [("Default",), ("after",)]


@pytest.mark.parametrize("store", private.NAMES)
def test_mlflow_still_has_the_private_name(store: str) -> None:
    owner, name = private.NAMES[store]
    there = isinstance(getattr(owner, name, None), dict)
    assert there, (
        f"mlflow {version('mlflow')}: {owner.__name__} has no {name} any more; see sweepkit.trackers.mlflow.private"
    )
