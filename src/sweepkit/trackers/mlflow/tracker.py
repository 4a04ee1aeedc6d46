"""MLflow as a tracker: what the state file alone answers; everything else is the writer's, which imports mlflow."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepkit.study.paths import Place
from sweepkit.trackers import Tracker, Ui
from sweepkit.trackers.mlflow.address import sqlite_file, tracking_uri, ui_of
from sweepkit.trackers.mlflow.state import State

if TYPE_CHECKING:
    from sweepkit.trackers.mlflow.writer import Writer

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
"""Read by mlflow when it is imported or used; the user's own settings win. No retries: the courier repeats a delivery, so
that an unreachable store is noticed at once."""


class MLflowTracker(Tracker):
    """Records a study in MLflow."""

    name = "MLflow"

    @cached_property
    def _writer(self) -> Writer:
        """Raises InputError for an impossible URI."""
        return _import_writer()(self._study, self._rows, place=self._place, data=self._data, shared=self._shared)

    def prepare(self) -> None:
        """Import mlflow (0.5 s of CPU) and create an SQLite file's tables (1 s) on a thread, while nothing trains yet.

        The thread is not a daemon: if the study is refused meanwhile, the process waits until the tables are complete. mlflow
        is imported before the thread starts, because some of its modules cannot be imported while the interpreter shuts
        down. Errors of the store are reported by the first delivery. Raises InputError for an impossible URI.
        """
        uri = tracking_uri(self._study)
        _import_writer()
        if sqlite_file(uri):
            threading.Thread(target=_create_tables, args=(uri, self._place), name="sweepkit-store").start()

    def open(self) -> None:
        """Create the tables, the experiment and the parent run, or find them; describe the study."""
        self._writer.open()

    def sync(self) -> None:
        """Deliver what is new in the trials' logs and endings; one refused trial does not hold up the others."""
        self._writer.sync()

    def keep(self, number: int) -> None:
        """Make the trial's ``best/`` a logged model, stored once; without ``best/`` or a run do nothing."""
        self._writer.keep(number)

    def drop(self, number: int) -> None:
        """Delete the trial's logged model with its files, and ``best/``."""
        self._writer.drop(number)

    def close(self, answer: Mapping[str, Any]) -> None:
        """End the parent run with the study's answer, which becomes ``answer.json``; register the winner if asked to."""
        self._writer.close(answer)

    def behind(self) -> int:
        """Return how many trials have something undelivered."""
        return self._state.behind(self._place, self._rows())

    def attach(self, file: Path) -> bool:
        """Put a file among the artifacts of the parent run; False while there is no run. Safe while a driver runs."""
        return self._writer.attach(file)

    def runs(self) -> Mapping[int, str]:
        """Return the run id of each trial that has a run."""
        return {number: done.run_id for number, done in self._state.trials.items() if done.run_id}

    def registered(self) -> frozenset[int]:
        """Return the trials whose model is a registered version."""
        return frozenset(number for number, done in self._state.trials.items() if done.model == "registered")

    def link(self, address: str) -> str:
        """Return the address of the compare view: this study's runs, searched values and objective.

        The view is saved in the experiment, where MLflow's own "Share" puts it. Raises StudyNotFound while there is no
        run.
        """
        return self._writer.link(address)

    def open_ui(self, port: int) -> Ui:
        """Return the study's tracking server, or an MLflow server for its store on this machine only."""
        return ui_of(self._study, port)

    @property
    def _state(self) -> State:
        return State.load(self._place.mlflow_json)


def _import_writer() -> type[Writer]:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from sweepkit.trackers.mlflow.writer import Writer

    return Writer


def _create_tables(uri: str, place: Place) -> None:
    from sweepkit.trackers.mlflow.store import Store

    with suppress(Exception):
        Store(uri, place)
