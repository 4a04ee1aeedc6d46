"""The tracker of a study with ``tracking.uri: none``; also a base for trackers that need only some of the methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sweepkit.study.errors import InputError
from sweepkit.study.paths import Place
from sweepkit.study.study import StudyData
from sweepkit.trackers.ui import Ui
from sweepkit.trial.trial import Trial


class Silent:
    """Records nothing."""

    name = ""

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

    def prepare(self) -> None:
        """Do nothing."""

    def open(self) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Do nothing."""

    def keep(self, number: int) -> None:
        """Do nothing: ``best/`` stays where it is."""

    def drop(self, number: int) -> None:
        """Do nothing: the study's own retention removes ``best/``."""

    def close(self, answer: Mapping[str, Any]) -> None:
        """Do nothing."""

    def behind(self) -> int:
        """Return 0."""
        return 0

    def attach(self, file: Path) -> bool:
        """Return False."""
        return False

    def runs(self) -> Mapping[int, str]:
        """Return no runs."""
        return {}

    def registered(self) -> frozenset[int]:
        """Return no trials."""
        return frozenset()

    def link(self, address: str) -> str:
        """Raise InputError: there is nothing to see."""
        raise InputError(f"{self._study.name} is recorded nowhere (tracking.uri: none); there is nothing to see")

    def open_ui(self, port: int) -> Ui:
        """Raise InputError: there is nothing to see."""
        raise InputError(f"{self._study.name} is recorded nowhere (tracking.uri: none); there is nothing to see")
