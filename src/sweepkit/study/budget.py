"""Sections of a study about what may be spent, kept, repeated and confirmed."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from sweepkit.study.parameters import Section


def _per_hour(given: Any) -> Any:
    """Return the number in ``0.002 per hour``; anything else as it is."""
    number = given.removesuffix("per hour").strip() if isinstance(given, str) else ""
    return float(number) if re.fullmatch(r"[\d.]+(e-?\d+)?", number) else given


class Budget(Section):
    """How much may be spent; the first limit reached ends the study."""

    trials: int | None = Field(default=None, ge=1)
    """Total number of trials, over all resumes; a paused trial counts as one."""
    hours: float | None = Field(default=None, gt=0)
    """Hours that the study runs, summed over resumes. Up to half of them are kept for ``confirm``: as many as it needs,
    judged by the trials trained to their end so far. With ``search: auto`` or ``promote: true``, what paused is finished in
    time, and no trial starts that could not be."""
    gpu_hours: float | None = Field(default=None, gt=0)
    """GPU-hours of all trials together."""
    trial_hours: float | None = Field(default=None, gt=0)
    """Hours after which a single trial is ended and counts as failed."""
    worth: Annotated[float, BeforeValidator(_per_hour, json_schema_input_type=float | str)] | None = Field(
        default=None, gt=0
    )
    """End when ``search: auto`` expects less improvement of the objective per hour of training than this, for example
    ``0.002 per hour``; not before as many trials were trained to their end as ``confirm.top`` says."""
    target: float | None = None
    """Stop as soon as a trial reaches this value of the objective."""
    disk_gb: float | None = Field(default=None, gt=0)
    """Gigabytes (10^9 bytes) that all checkpoints together may take, copies of models in MLflow aside."""
    grace_minutes: float = Field(default=5.0, ge=0)
    """Minutes that running trials may continue after hours, gpu_hours or target is reached; then they checkpoint and stop."""


class Checkpoints(Section):
    """Which checkpoints are kept."""

    keep: int = Field(default=3, ge=1)
    """Number of best trials whose best checkpoint is kept; with several goals, at least all of the Pareto front."""
    every: Literal["evaluation", "never"] = "evaluation"
    """When a checkpoint to resume from is written: at each evaluation, or never (an interrupted trial then starts over)."""
    paused_gb: float | None = Field(default=None, gt=0)
    """Gigabytes (10^9 bytes) that the resumable checkpoints of paused trials may take; beyond it the paused trial with the
    fewest evaluations, among these the worst, is pruned. They also count in ``budget.disk_gb``."""


class Retries(Section):
    """How often a trial is restarted, by cause."""

    crash: int = Field(default=0, ge=0)
    """After an exception, an exit or a signal; the trial resumes from its last checkpoint."""
    out_of_memory: int = Field(default=1, ge=0)
    """After running out of memory alone on its GPU; each time with half the micro-batch and twice the gradient accumulation."""


class Confirm(Section):
    """Train the best trials again with new seeds, to see how much of their lead was luck."""

    top: int = Field(default=3, ge=1)
    """Number of best trials to train again, in addition to the baseline."""
    seeds: int = Field(default=5, ge=2, json_schema_extra={"minimum": 3})  # earlier versions' studies may have 2
    """New seeds per trial, at least 3."""
    test: Literal["never", "once"] = "never"
    """``once``: evaluate the chosen model on the test split, and never evaluate another one on it."""
