"""The budgets other than the number of trials: driver time summed over resumes, GPU time, the target."""

from __future__ import annotations

import json
import time

from filelock import FileLock

from sweepkit.study.files import write_whole
from sweepkit.study.paths import Place
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import Trial


class Spent:
    """Driver seconds and slot seconds (driver seconds times slots) of a study, summed over resumes and drivers.

    Stored in the study's folder; several drivers add to the same file.
    """

    def __init__(self, place: Place, *, slots: int = 0) -> None:
        self._path, self._lock = place.spent_json, place.spent_lock
        self._slots = slots
        self._known = self._read()
        self._since = time.monotonic()

    @property
    def seconds(self) -> float:
        """Driver seconds so far."""
        return self._known["seconds"] + time.monotonic() - self._since

    def save(self, *, at_least_every: float = 0.0) -> None:
        """Write the sums, unless they were written less than ``at_least_every`` seconds ago."""
        now = time.monotonic()
        if now - self._since < at_least_every:
            return
        with FileLock(self._lock):
            known = self._read()
            known["seconds"] += now - self._since
            known["slot_seconds"] += (now - self._since) * self._slots
            write_whole(self._path, json.dumps(known))
        self._known, self._since = known, now

    def _read(self) -> dict[str, float]:
        found = json.loads(self._path.read_text()) if self._path.exists() else {}
        return {"seconds": 0.0, "slot_seconds": 0.0, **found}


def reached(study: StudyData, *, seconds: float, gpu_seconds: float, target: Trial | None) -> str:
    """Return in words which budget is used up; an empty string while none is.

    ``target`` is the trial that reached ``budget.target``.
    """
    budget = study.budget
    if budget.hours is not None and seconds >= budget.hours * 3600:
        return f"budget.hours: {budget.hours:g} h used up"
    if budget.gpu_hours is not None and gpu_seconds >= budget.gpu_hours * 3600:
        return f"budget.gpu_hours: {budget.gpu_hours:g} GPU-hours used up"
    return f"budget.target: trial {target.number} reached {target.value:g}" if target else ""
