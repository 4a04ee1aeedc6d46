"""Whether a study has spent enough: driver time kept over resumes, GPU time, the target. Knows no trial's story."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from sweepkit.study import Study
from sweepkit.trial import Trial


class Spent:
    """Driver seconds of a study, summed over resumes and kept in its folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = float(json.loads(path.read_text())["seconds"]) if path.exists() else 0.0
        self._began = time.monotonic()
        self._saved = 0.0

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self._before + time.monotonic() - self._began

    def save(self, *, at_least_every: float = 0.0) -> None:
        """Write the sum, unless that was done less than so many seconds ago."""
        if time.monotonic() - self._saved >= at_least_every:
            temporary = self._path.with_suffix(".new")
            temporary.write_text(json.dumps({"seconds": self.seconds}))
            os.replace(temporary, self._path)
            self._saved = time.monotonic()


def reached(study: Study, *, seconds: float, gpu_seconds: float, best: Trial | None) -> str:
    """Return which budget other than the number of trials is reached, in words; nothing while none is."""
    budget = study.budget
    if budget.hours is not None and seconds >= budget.hours * 3600:
        return f"budget.hours: {budget.hours:g} h are used"
    if budget.gpu_hours is not None and gpu_seconds >= budget.gpu_hours * 3600:
        return f"budget.gpu_hours: {budget.gpu_hours:g} GPU-hours are used"
    if budget.target is not None and best is not None and best.value is not None:
        up = study.objective.goals[0].direction == "maximize"
        if (best.value >= budget.target) if up else (best.value <= budget.target):
            return f"budget.target: trial {best.number} reached {best.value:g}"
    return ""
