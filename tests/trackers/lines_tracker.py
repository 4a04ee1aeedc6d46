"""A tracker of one file: JSON lines at ``jsonl:PATH``, to prove that a tracker is one class and one line in the table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweepkit.study.errors import InputError, StudyNotFound
from sweepkit.trackers import Tracker
from sweepkit.trial.log import TrialLog


class Lines(Tracker):
    """Writes a line per ended trial, and one for the study's end."""

    name = "JSON lines"

    @property
    def _path(self) -> Path:
        return self._study.place.root / self._study.tracking.uri.removeprefix("jsonl:")

    def prepare(self) -> None:
        """Refuse an address without a path."""
        if self._path == self._study.place.root:
            raise InputError("tracking.uri: jsonl needs a file, for example jsonl:record.jsonl")

    def open(self) -> None:
        """Make the file."""
        self._path.touch()

    def sync(self) -> None:
        """Append the ended trials that are not in the file."""
        for row in self._missing():
            end = TrialLog(self._place.trial(row.number)).finished
            self._append({"trial": row.number, "run": f"run-{row.number}", "seconds": end.seconds if end else None})

    def close(self, answer: Mapping[str, Any]) -> None:
        """Append the answer."""
        if not any("answer" in line for line in self._read()):
            self._append({"answer": dict(answer), "registered": [answer["best"]]})

    def behind(self) -> int:
        """Count the trials that are not in the file."""
        return len(self._missing())

    def attach(self, file: Path) -> bool:
        """Append the file's name."""
        known = self._path.exists()
        if known:
            self._append({"file": file.name})
        return known

    def runs(self) -> Mapping[int, str]:
        """Return what the file has."""
        return {line["trial"]: line["run"] for line in self._read() if "trial" in line}

    def registered(self) -> frozenset[int]:
        """Return the winner."""
        return frozenset(number for line in self._read() for number in line.get("registered", ()))

    def link(self, address: str) -> str:
        """Return the file's address."""
        if not self._path.exists():
            raise StudyNotFound("no file yet")
        return self._path.as_uri()

    def _missing(self) -> list[Any]:
        runs = self.runs()
        return [row for row in self._rows() if row.ending.counts and row.number not in runs]

    def _read(self) -> list[Any]:
        return [json.loads(line) for line in self._path.read_text().splitlines()] if self._path.exists() else []

    def _append(self, line: Mapping[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
