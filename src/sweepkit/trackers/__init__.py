"""Trackers mirror a study somewhere people look: the protocol, the table of trackers, and the factory.

A tracker reads what it delivers from the trials' own logs, so it may come late, fail and be asked again. What it keeps
on disk is its own: everybody else asks it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Protocol, cast

from sweepkit.study.paths import Place
from sweepkit.study.study import StudyData
from sweepkit.trackers.courier import Courier
from sweepkit.trackers.ui import Ui
from sweepkit.trial.trial import Trial

__all__ = ["TRACKERS", "Courier", "Tracker", "Ui", "tracker_of"]

MLFLOW = "sweepkit.trackers.mlflow.tracker:MLflowTracker"
TRACKERS = {"none": "sweepkit.trackers.silent:Silent"}
"""Scheme of ``tracking.uri`` → the tracker's class; any other address is MLflow's."""


class Tracker(Protocol):
    """Where a study is recorded. Methods may raise and may be called again: none does anything twice.

    ``behind``, ``runs`` and ``registered`` read the disk of this machine only, and import nothing heavy.
    """

    name: str
    """What people call it; empty where nothing is recorded."""

    def prepare(self) -> None:
        """Import what is needed and start what takes time. Raises InputError for an address that cannot be."""

    def open(self) -> None:
        """Find or create the study's place in the store."""

    def sync(self) -> None:
        """Deliver what is new in the trials' logs and endings."""

    def keep(self, number: int) -> None:
        """Make a trial's ``best/`` a model of the store; without ``best/`` there is nothing to do."""

    def drop(self, number: int) -> None:
        """Take a trial's model out of the store, with its files and ``best/``."""

    def close(self, answer: Mapping[str, Any]) -> None:
        """End the study's own run with its answer: ``best`` (trial number), ``value``, ``baseline``, ``status``, …"""

    def behind(self) -> int:
        """Return how many trials have something undelivered."""

    def attach(self, file: Path) -> bool:
        """Put a file beside the study's record; False while there is none. Disturbs no driver."""

    def runs(self) -> Mapping[int, str]:
        """Return the store's id of each trial's run, for the trials that have one."""

    def registered(self) -> frozenset[int]:
        """Return the trials whose best checkpoint the store needs for good, so that its files must stay."""

    def link(self, address: str) -> str:
        """Return where a server at ``address`` shows the study. Raises StudyNotFound while it has no record."""

    def open_ui(self, port: int) -> Ui:
        """Return the server that shows the record; where it has to be started, on this port or the next free one."""


def tracker_of(
    study: StudyData,
    rows: Callable[[], list[Trial]] = list,
    *,
    place: Place | None = None,
    data: Path | None = None,
    shared: bool = False,
) -> Tracker:
    """Return the tracker that ``tracking.uri`` names.

    ``rows`` gives the study's trials as they are now; it is asked at every ``sync``. ``place`` is where the trials lie, if
    not in the study's own folder: confirmation runs have a place of their own and share the study's record. ``data`` is
    the folder of the prepared data. ``shared``: other drivers deliver from the same folder.
    """
    scheme = study.tracking.uri.partition(":")[0].lower()
    made = resolve_name(TRACKERS.get(scheme, MLFLOW))(study, rows, place=place, data=data, shared=shared)
    return cast("Tracker", made)
