"""MLflow as a tracker: what is known from the state file alone; the rest is the writer's, which imports mlflow."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepkit.study.paths import Place
from sweepkit.study.study import StudyData
from sweepkit.trackers.mlflow.address import sqlite_file, tracking_uri, ui_of
from sweepkit.trackers.mlflow.state import State
from sweepkit.trackers.ui import Ui
from sweepkit.trial.trial import Trial

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
"""Read by mlflow when it is imported or used; what the user has set wins. No retries: the courier repeats a delivery, so
that a store that is away is noticed at once."""


class MLflowTracker:
    """Records a study in MLflow; the arguments are those of :func:`sweepkit.trackers.tracker_of`."""

    name = "MLflow"

    def __init__(
        self,
        study: StudyData,
        rows: Callable[[], list[Trial]] = list,
        *,
        place: Place | None = None,
        data: Path | None = None,
        shared: bool = False,
    ) -> None:
        self._study = study
        self._rows = rows
        self._place = place or study.place
        self._data = data
        self._shared = shared

    @cached_property
    def _writer(self) -> Writer:
        """Raises InputError for an impossible URI."""
        return _import_writer()(self._study, self._rows, place=self._place, data=self._data, shared=self._shared)

    def prepare(self) -> None:
        """Import mlflow, and give an SQLite file its tables on a thread of its own, while nothing trains yet.

        The first costs 0.5 s of CPU, the second another second. The thread is no daemon: a process that ends meanwhile,
        because the study is refused, waits until the tables are whole. mlflow is imported before the thread starts, for
        an interpreter that shuts down lets some of its modules no longer be imported. Trouble with the store is reported
        by the first delivery. Raises InputError for an impossible URI.
        """
        uri = tracking_uri(self._study)
        _import_writer()
        if sqlite_file(uri):
            threading.Thread(target=_make_tables, args=(uri, self._place), name="sweepkit-store").start()

    def open(self) -> None:
        """Make the store's tables, the experiment and the parent run, or find them; describe the study."""
        self._writer.open()

    def sync(self) -> None:
        """Deliver what is new in the trials' logs and endings; a trial that is refused does not hold up the others."""
        self._writer.sync()

    def keep(self, number: int) -> None:
        """Make the trial's ``best/`` a logged model, stored once; does nothing without ``best/`` or a run."""
        self._writer.keep(number)

    def drop(self, number: int) -> None:
        """Delete the trial's logged model with its files, and ``best/``."""
        self._writer.drop(number)

    def close(self, answer: Mapping[str, Any]) -> None:
        """End the parent run with the study's answer, and register the winner where the study asks for it.

        Keys of ``answer``: ``best`` (trial number), ``value``, ``baseline`` (their values), ``status`` (``done``,
        ``failed`` or ``interrupted``; done by default; only done registers), ``reason``. All becomes ``answer.json``.
        """
        self._writer.close(answer)

    def behind(self) -> int:
        """Return how many trials have something undelivered."""
        state = State.load(self._place.mlflow_json)
        return state.behind(self._place, self._rows())

    def attach(self, file: Path) -> bool:
        """Put a file among the artifacts of the study's own run; False while there is no run. Disturbs no driver."""
        return self._writer.attach(file)

    def runs(self) -> Mapping[int, str]:
        """Return the id of each trial's run."""
        trials = State.load(self._place.mlflow_json).trials
        return {number: done.run_id for number, done in trials.items() if done.run_id}

    def registered(self) -> frozenset[int]:
        """Return the trials whose model is a registered version."""
        trials = State.load(self._place.mlflow_json).trials
        return frozenset(number for number, done in trials.items() if done.model == "registered")

    def link(self, address: str) -> str:
        """Return the address of the compare view: this study's runs, what was searched, and the objective.

        The view is saved in the experiment, where MLflow's own "Share" puts it. Raises StudyNotFound while there is no
        run.
        """
        return self._writer.link(address)

    def open_ui(self, port: int) -> Ui:
        """Return the study's tracking server, or MLflow's own page for the store, on this machine only."""
        return ui_of(self._study, port)


def _import_writer() -> type[Writer]:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from sweepkit.trackers.mlflow.writer import Writer

    return Writer


def _make_tables(uri: str, place: Place) -> None:
    from sweepkit.trackers.mlflow.store import Store

    with suppress(Exception):
        Store(uri, place)
