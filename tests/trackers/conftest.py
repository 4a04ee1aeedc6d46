"""An SQLite store for the tests of trackers: MLflow's tables, which take seconds to make, are made once and copied."""

from __future__ import annotations

from pathlib import Path

import pytest

import written_trials as trials
from sweepkit.trackers.mlflow.address import tracking_uri


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an SQLite file with MLflow's tables."""
    from sweepkit.trackers.mlflow.store import Store

    folder = tmp_path_factory.mktemp("store")
    (folder / "pyproject.toml").write_text("")
    study = trials.toy_study(folder)
    Store(tracking_uri(study), study.place)
    return folder / "mlflow.db"


@pytest.fixture
def home(project: Path, empty_store: Path) -> Path:
    """Return a project folder with a store in it."""
    (project / "mlflow.db").write_bytes(empty_store.read_bytes())
    return project
