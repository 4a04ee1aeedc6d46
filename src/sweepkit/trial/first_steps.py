"""What a trial's first steps show before the search: whether they work (inspect), and what they cost (measure)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """What building, training, evaluating and saving one configuration showed."""

    problems: tuple[tuple[str, str], ...] = ()
    """(path in the study, message); the study cannot run with any of them."""
    notes: tuple[str, ...] = ()
    """Messages about failures that other configurations need not share."""
    facts: tuple[str, ...] = ()
    """What is to be known of the data and of how evaluations are read; nothing went wrong."""
    peak_memory_mb: float = 0.0
    """0 when unknown."""
    model_mb: float = 0.0
    """Size of the parameters; 0 when unknown."""
    model_folder: str = ""
    """Folder on this machine that the model was read from; empty where there is none."""
    micro_batch_matters: bool = True
    """The task's own word on whether the loss depends on the micro-batch."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the first steps of one configuration cost, and how long its whole trial is."""

    overhead_seconds: float = 0.0
    """From the fork to the first step, and from the last to the end of the process."""
    busy_seconds: float = 0.0
    """Wall time of the measurement in between."""
    step_seconds: float
    """Mean time of one optimizer step."""
    evaluation_seconds: float
    """One evaluation of all rows."""
    saving_seconds: float
    """Both checkpoints that an evaluation may write."""
    steps: int
    """Optimizer steps of a whole trial."""
    evaluations: int
    """Evaluations of a whole trial."""
    measured_steps: int
    """Optimizer steps behind ``step_seconds``."""
    best_bytes: int
    """Size of the model's checkpoint."""
    last_bytes: int
    """Size of a resumable checkpoint; 0 where none was written."""
    log_bytes: float = 0.0
    """Size of a whole trial's log."""
    peak_memory_mb: float = 0.0
    busy: float | None = None
    """Part of the time in which its GPU was busy; None when unknown."""

    @property
    def seconds(self) -> float:
        """Duration of a trial that is trained to its end."""
        return self.until(self.evaluations)

    def until(self, evaluation: int) -> float:
        """Return the duration of a trial up to and including an evaluation (from 1)."""
        each = self.steps * self.step_seconds / self.evaluations + self.evaluation_seconds + self.saving_seconds
        return self.overhead_seconds + evaluation * each
