"""What a study takes in all, computed from what a few of its configurations took for their first steps."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

from sweepkit.search.samplers import combinations
from sweepkit.study import words
from sweepkit.study.study import StudyData
from sweepkit.trial.first_steps import Measured

PER_LOGGED_BYTE = 8
"""Bytes on disk per byte of a trial's log: the console's log, Optuna's journal and MLflow's tables grow with it."""
EMPTY_STORE = 1e6
"""Bytes of an MLflow database that has its tables and nothing in them."""


@dataclass(frozen=True, kw_only=True)
class Largest:
    """The configuration that needs most memory: the upper ends of every batch, model and input size."""

    hyperparameters: Mapping[str, Any]
    """Its sizes; what takes no memory is left out."""
    peak_memory_mb: float
    out_of_memory: str = ""
    """How it ran out of memory; empty where it fits."""
    busy: float | None = None
    """Part of the time in which it kept its GPU busy; None when unknown."""
    fits: int = 0
    """Where it does not fit: a micro-batch that does; 0 where none was found."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """What the machine offers, and what the study takes whatever its trials are."""

    slots: int
    start_seconds: float
    """From the command to the first trial."""
    data_bytes: float
    """Prepared data, one data set for each combination of searched task options."""
    free_memory_mb: float = math.inf
    """Memory for trials and what they share; infinite where they train in the memory of GPUs."""
    shared_memory_mb: float = 0.0
    """Part of each trial's peak that exists once: the libraries and data of the warm process."""
    sharing: str = ""
    """How many trials share a GPU, and why, in words; empty where the study says it."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a study takes if every trial is trained to its end: with a pruner, upper bounds of time."""

    largest: Largest
    host: Host
    measured: tuple[Measured, ...]
    trials: int | None
    """Trials of the search; None where the budget gives no number."""
    search_seconds: float | None
    confirm_seconds: float
    prunes: bool
    """Whether a pruner may end trials early, so that the study takes less time than said here."""
    kept_models: int
    kept_bytes: float
    """Their checkpoints, which stay when the study is done."""
    record_bytes: float
    """Logs, MLflow's database and the report."""
    running_bytes: float
    """Checkpoints of running and paused trials, at most, besides the kept ones."""

    @property
    def trial_seconds(self) -> float:
        """Mean seconds of a trial that is trained to its end."""
        return fmean(one.seconds for one in self.measured)

    @property
    def seconds(self) -> float | None:
        """Seconds from the command to the end of the study; None where the budget gives no number of trials."""
        if self.search_seconds is None:
            return None
        return self.host.start_seconds + self.search_seconds + self.confirm_seconds

    def trials_in(self, hours: float) -> int:
        """Return how many trials of the search fit into so many hours."""
        return max(0, int((3600 * hours - self.host.start_seconds) * self.host.slots / self.trial_seconds))

    @property
    def disk_bytes(self) -> float:
        """Bytes on disk when the study is done."""
        return self.host.data_bytes + self.kept_bytes + self.record_bytes

    @property
    def memory_mb(self) -> float:
        """Peak memory of all trials that run at a time, if each is the largest."""
        return self.host.shared_memory_mb + self.host.slots * self._own_memory_mb

    @property
    def _own_memory_mb(self) -> float:
        return max(0.0, self.largest.peak_memory_mb - self.host.shared_memory_mb)

    def objections(self, study: StudyData) -> list[str]:
        """Return the reasons not to run the study as it is, each with what to do."""
        return [*self._memory_objections(), *self._budget_objections(study)]

    def plain(self) -> dict[str, Any]:
        """Return everything as plain JSON data."""
        sums = ("trial_seconds", "seconds", "disk_bytes", "memory_mb")
        plain = {**asdict(self), **{name: getattr(self, name) for name in sums}}
        return {name: None if value == math.inf else value for name, value in {**plain, **plain.pop("host")}.items()}

    def _memory_objections(self) -> Iterator[str]:
        largest, host = self.largest, self.host
        if largest.out_of_memory:
            where = words.settings(largest.hyperparameters) or "every trial"
            fits = "smaller micro-batches do not fit either"
            fits = f"a micro-batch of {largest.fits} fits" if largest.fits else fits
            advice = "lower the upper ends of the space, or set gradient_checkpointing or a 16-bit type in training"
            yield f"out of memory at {where}: {largest.out_of_memory}; {fits}; {advice}"
        elif self.memory_mb > host.free_memory_mb:
            room = (host.free_memory_mb - host.shared_memory_mb) / max(1.0, self._own_memory_mb)
            yield (
                f"memory: {words.plural(host.slots, 'trial')} at a time need up to {words.size(1e6 * self.memory_mb)}, "
                f"and {words.size(1e6 * host.free_memory_mb)} are free; set backend.parallel: {max(1, int(room))}"
            )

    def _budget_objections(self, study: StudyData) -> Iterator[str]:
        budget, slowest = study.budget, max(one.seconds for one in self.measured)
        if budget.trial_hours is not None and slowest > 3600 * budget.trial_hours:
            took = f"the slowest trial measured takes {words.span(slowest)}"
            yield f"budget.trial_hours: {took}, and after {budget.trial_hours:g} h it ends as failed; raise the limit"
        over = budget.hours is not None and self.seconds is not None and self.seconds > 3600 * budget.hours
        if over and budget.hours is not None and not self.prunes:
            done = f"about {words.plural(self.trials_in(budget.hours), 'trial')} of {self.trials}"
            yield f"budget.hours: {budget.hours:g} h is enough for {done}; raise it, or lower budget.trials"
        model = max(one.best_bytes for one in self.measured)
        if budget.disk_gb is not None and model > 1e9 * budget.disk_gb:
            yield f"budget.disk_gb: a model takes {words.size(model)}, more than {budget.disk_gb:g} GB; raise it"


def forecast(study: StudyData, largest: Largest, measured: Sequence[Measured], host: Host) -> Forecast:
    """Return what a study takes whose trials are like the measured ones."""
    trials, seconds, confirm = trials_of(study), [one.seconds for one in measured], study.confirm
    confirmed = 0 if confirm is None else min(confirm.top, trials or confirm.top) + (study.baseline is not None)
    runs = confirmed * (confirm.seeds if confirm else 0)
    kept = min(study.checkpoints.keep, trials or study.checkpoints.keep)
    # A checkpoint is complete before the one it replaces is removed: for a moment there are two of one kind.
    running = max(one.best_bytes + one.last_bytes + max(one.best_bytes, one.last_bytes) for one in measured)
    return Forecast(
        largest=largest,
        host=host,
        measured=tuple(measured),
        trials=trials,
        search_seconds=None if trials is None else makespan(seconds, trials, host.slots),
        confirm_seconds=makespan(seconds, runs, host.slots),
        prunes=study.pruner.stops,
        kept_models=kept,
        kept_bytes=kept * fmean(one.best_bytes for one in measured),
        record_bytes=_record_bytes(study, (trials or 0) + runs, fmean(one.log_bytes for one in measured)),
        running_bytes=host.slots * running + _paused_bytes(study, (trials or 0) - host.slots, measured),
    )


def trials_of(study: StudyData) -> int | None:
    """Return the number of the search's trials, None where neither the budget nor the space limits it."""
    if not study.sampler.kind.enumerates:
        return study.budget.trials
    count = len(combinations(study))
    return count if study.budget.trials is None else min(count, study.budget.trials)


def makespan(seconds: Sequence[float], runs: int, slots: int) -> float:
    """Return how long ``runs`` runs take on so many slots, each as long as one of ``seconds``, in turns.

    >>> makespan([2.0], 5, 2)
    6.0
    """
    free = [0.0] * slots
    for number in range(runs):
        heapq.heapreplace(free, free[0] + seconds[number % len(seconds)])
    return max(free)


def _paused_bytes(study: StudyData, trials: int, measured: Sequence[Measured]) -> float:
    """Return what so many paused trials hold at most, within the study's limit."""
    if not study.pruner.pauses or trials < 1:
        return 0.0
    resumable, limit = trials * max(one.last_bytes for one in measured), study.checkpoints.paused_gb
    return trials * max(one.best_bytes for one in measured) + min(resumable, 1e9 * limit if limit else math.inf)


def _record_bytes(study: StudyData, trials: int, log_bytes: float) -> float:
    """Return the bytes of logs, MLflow's database and the report, which is mostly plotly's script and copied to MLflow."""
    plotly = find_spec("plotly")
    script = Path(plotly.origin).parent / "package_data" / "plotly.min.js" if plotly and plotly.origin else None
    report = script.stat().st_size if script and script.exists() else 0
    store = study.tracking.uri.startswith("sqlite")
    return PER_LOGGED_BYTE * log_bytes * trials + (EMPTY_STORE + 2 * report if store else report)
