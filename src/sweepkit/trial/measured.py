"""What the first steps of a trial took, as the measuring process writes it and the probe reads it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the first steps of one configuration took, and how long its trial is."""

    overhead_seconds: float = 0.0
    """From the fork to the first step, and from the last to the process's end."""
    busy_seconds: float = 0.0
    """What was measured in between, as long as it took."""
    step_seconds: float
    evaluation_seconds: float
    """One evaluation of all rows."""
    saving_seconds: float
    """Both checkpoints that an evaluation may write."""
    steps: int
    """Optimizer steps of a whole trial."""
    evaluations: int
    """Evaluations of a whole trial."""
    measured_steps: int
    best_bytes: int
    """Size of the model's checkpoint."""
    last_bytes: int
    """Size of a resumable checkpoint; 0 where none was written."""
    log_bytes: float = 0.0
    """Size of a whole trial's log."""
    peak_memory_mb: float = 0.0

    @property
    def seconds(self) -> float:
        """What a trial takes that is trained to its end."""
        return self.until(self.evaluations)

    def until(self, evaluation: int) -> float:
        """What a trial takes up to an evaluation (from 1), with it."""
        each = self.steps * self.step_seconds / self.evaluations + self.evaluation_seconds + self.saving_seconds
        return self.overhead_seconds + evaluation * each
