"""Trackers record a study where people look at it: the base class, the table of trackers and the factory.

A tracker reads what it delivers from the trials' own logs, so it may be late, fail and be called again. The files it keeps
are its own; other packages ask it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from sweepkit.study.errors import InputError
from sweepkit.study.paths import Place
from sweepkit.study.study import StudyData
from sweepkit.trackers.ui import Ui
from sweepkit.trial.trial import Trial

__all__ = ["TRACKERS", "Tracker", "Ui", "tracker_of"]

MLFLOW = "sweepkit.trackers.mlflow.tracker:MLflowTracker"
TRACKERS = {"none": "sweepkit.trackers:Tracker"}
"""Scheme of ``tracking.uri`` → the tracker's class; any other address is MLflow's."""

Rows = Callable[[], list[Trial]]
"""Returns a study's trials as they are now."""


class Tracker:
    """Where a study is recorded. The base class records nothing (``tracking.uri: none``); trackers override its methods.

    Methods may raise, and calling one again must not record anything twice. ``behind``, ``delivered``, ``runs``, ``page`` and
    ``registered`` read only this machine's disk and import nothing heavy.
    """

    name = ""
    """What users call it; empty where nothing is recorded."""

    note = ""
    """A sentence about what was found wrong in the store when it was opened, and mended."""

    def __init__(
        self, study: StudyData, rows: Rows = list, *, place: Place | None = None, data: Path | None = None
    ) -> None:
        """See :func:`tracker_of`."""
        self._study = study
        self._rows = rows
        self._place = place or study.place
        self._data = data

    def prepare(self) -> None:
        """Import what is needed and start what takes time. Raises InputError for an impossible address."""

    def open(self) -> None:
        """Find or create the study's place in the store."""

    def sync(self) -> None:
        """Deliver what is new in the trials' logs and endings."""

    def keep(self, number: int) -> None:
        """Make a trial's ``best/`` a model of the store; without ``best/`` do nothing."""

    def drop(self, number: int) -> None:
        """Delete a trial's model with its files, and ``best/``."""

    def close(self, answer: Mapping[str, Any]) -> None:
        """End the study's own run with its answer.

        Keys: ``best`` (trial number), ``value``, ``baseline`` (their values), ``gain`` (positive: better than the baseline),
        ``searched`` (the best value in the search), ``trials`` (ending → how many ended so), ``says`` (the answer in
        sentences), ``verdict`` (the conclusion of a confirmation), ``status`` (``done``, the default, ``failed`` or
        ``interrupted``) and ``reason``. A winner is registered only when the status is ``done``.
        """

    def behind(self) -> int:
        """Return how many trials have something undelivered."""
        return 0

    def delivered(self, answer: Mapping[str, Any] | None) -> bool:
        """Whether the store has everything, so that it need not be opened: what the trials' logs hold and, unless None, the
        study's end with this answer. False also where that cannot be told without opening it.
        """
        return False

    def attach(self, file: Path) -> bool:
        """Put a file beside the study's record; False while there is none. Safe while a driver runs."""
        return False

    def runs(self) -> Mapping[int, str]:
        """Return the store's id of each trial's run, for the trials that have one."""
        return {}

    def finished(self, experiment: str) -> list[tuple[str, Mapping[str, str], Mapping[str, float]]]:
        """Return the finished trials of an experiment: a run's name, its parameters and its last metrics.

        Raises InputError where there is no such experiment.
        """
        raise self._unrecorded()

    def registered(self) -> frozenset[int]:
        """Return the trials whose best checkpoint the store needs for good, so that its files must stay."""
        return frozenset()

    def page(self) -> str:
        """Return the address of the study's own page; on this machine it needs ``sweep ui``. Empty while it has none."""
        return ""

    def link(self, address: str) -> str:
        """Return where a server at ``address`` shows the study. Raises StudyNotFound while it has no record."""
        raise self._unrecorded()

    def open_ui(self, port: int) -> Ui:
        """Return the server that shows the record; one that has to be started gets this port or the next free one."""
        raise self._unrecorded()

    def _unrecorded(self) -> InputError:
        return InputError(f"{self._study.name} is not tracked (tracking.uri: none), so there is nothing to show")


def tracker_of(study: StudyData, rows: Rows = list, *, place: Place | None = None, data: Path | None = None) -> Tracker:
    """Return the tracker that ``tracking.uri`` names.

    ``rows`` returns the study's trials as they are now; it is called at every ``sync``. ``place`` is where the trials lie, if
    not in the study's own folder: confirmation runs have a place of their own and share the study's record. ``data`` is
    the folder of the prepared data.
    """
    scheme = study.tracking.uri.partition(":")[0].lower()
    kind: type[Tracker] = resolve_name(TRACKERS.get(scheme, MLFLOW))
    return kind(study, rows, place=place, data=data)
