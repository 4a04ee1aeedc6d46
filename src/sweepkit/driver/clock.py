"""The time that a study has taken, summed over its drivers."""

from __future__ import annotations

import json
import time
from dataclasses import asdict

from filelock import FileLock

from sweepkit.report.rows import Spent, read_spent
from sweepkit.study.damage import note
from sweepkit.study.files import write_whole
from sweepkit.study.paths import EVENTS, Place
from sweepkit.trial.log import TrialLog


class Clock:
    """Driver seconds and slot seconds (driver seconds times slots) of a study, summed over resumes and drivers.

    Stored in the study's folder; several drivers add to the same file. Where it was lost, the time in which trials ran, by
    their logs, stands for the driver's, and slot seconds are not known any more.
    """

    def __init__(self, place: Place, *, slots: int = 0) -> None:
        self._place = place
        self._slots = slots
        self._known = self._read()
        self._since = time.monotonic()
        self.save()

    @property
    def seconds(self) -> float:
        """Driver seconds so far."""
        return self._known.seconds + time.monotonic() - self._since

    def save(self, *, at_least_every: float = 0.0) -> None:
        """Write the sums, unless they were written less than ``at_least_every`` seconds ago."""
        now = time.monotonic()
        if now - self._since < at_least_every:
            return
        with FileLock(self._place.spent_lock):
            known = self._read()
            more, slots = now - self._since, known.slot_seconds
            known = Spent(known.seconds + more, None if slots is None else slots + more * self._slots)
            write_whole(self._place.spent_json, json.dumps(asdict(known)))
        self._known, self._since = known, now

    def _read(self) -> Spent:
        if found := read_spent(self._place):
            return found
        spans = sorted(s for path in self._place.folder.rglob(EVENTS) for s in TrialLog(path.parent).spans)
        if not spans:
            return Spent(0.0, 0.0)
        note(f"{self._place.spent_json} is lost; the time that trials ran, by their logs, is counted instead")
        total, until = 0.0, 0.0
        for begin, end in spans:
            total, until = total + max(0.0, end - max(begin, until)), max(until, end)
        return Spent(total)
