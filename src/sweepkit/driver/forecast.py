"""From what a few measured configurations took to what the whole study will take. Arithmetic only; knows no process."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

from sweepkit.driver.rehearsal import PLAYED_TRIALS, makespan, play, trials_of
from sweepkit.study import words
from sweepkit.study.study import StudyData
from sweepkit.trial.measured import Measured

PER_LOGGED = 8
"""A byte of a trial's log comes with so many: its console's, those of Optuna's journal and of MLflow's tables."""
EMPTY_STORE = 1e6
"""An MLflow database with its tables and nothing in them."""


@dataclass(frozen=True, kw_only=True)
class Corner:
    """The configuration that needs the most memory, as far as it was looked for."""

    hyperparameters: Mapping[str, Any]
    """Those of its values on which memory may depend."""
    peak_memory_mb: float
    out_of_memory: str = ""
    """How it ran out of memory; empty where it fits."""
    fits: int = 0
    """Where it does not: the micro-batch with which it does; 0 where none was found."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What a study stands on, whatever its trials are."""

    slots: int
    start_seconds: float
    """From the command to the first trial."""
    data_bytes: float
    """Prepared data, for all sets of the task's options that trials will ask for."""
    free_memory_mb: float = math.inf
    """What the machine has for trials and what they share; infinite where they train in the memory of GPUs."""
    shared_memory_mb: float = 0.0
    """Part of each trial's peak that is there once: the libraries and the data that the warm process holds."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a study is going to take. Seconds are of the wall clock, from the command to its end."""

    corner: Corner
    ground: Ground
    measured: tuple[Measured, ...]
    trials: int | None
    """Trials of the search; None where the budget does not say."""
    evaluations: float
    """Evaluations of a trial on average, as far as the pruner lets it go on."""
    trial_seconds: float
    """What a trial takes on average, with what the pruner saves."""
    search_seconds: float | None
    unpruned_seconds: float | None
    """The search's seconds should its pruner stop nothing; None where the budget does not say."""
    confirm_seconds: float
    kept_models: int
    kept_bytes: float
    """Their checkpoints, which stay when the study is done."""
    record_bytes: float
    """Logs, MLflow's database and the report."""
    running_bytes: float
    """Checkpoints at most, beyond those, while trials run."""

    @property
    def whole_trial_seconds(self) -> float:
        """What a trial takes on average that is trained to its end."""
        return fmean(one.seconds for one in self.measured)

    @property
    def whole_evaluations(self) -> float:
        """Evaluations of a trial on average that is trained to its end."""
        return fmean(one.evaluations for one in self.measured)

    @property
    def seconds(self) -> float | None:
        """What the whole study takes; None where the budget does not say when it ends."""
        return self._whole(self.search_seconds)

    @property
    def most_seconds(self) -> float | None:
        """What the whole study takes should its pruner stop nothing."""
        return self._whole(self.unpruned_seconds)

    def _whole(self, search: float | None) -> float | None:
        return None if search is None else self.ground.start_seconds + search + self.confirm_seconds

    def trials_in(self, hours: float) -> int:
        """Return how many trials of the search so many hours are enough for."""
        return max(0, int((3600 * hours - self.ground.start_seconds) * self.ground.slots / self.trial_seconds))

    @property
    def disk_bytes(self) -> float:
        """What stays on disk when the study is done."""
        return self.ground.data_bytes + self.kept_bytes + self.record_bytes

    @property
    def memory_mb(self) -> float:
        """What trials need at most, all that run at a time together."""
        return self.ground.shared_memory_mb + self.ground.slots * self._own_memory_mb

    @property
    def _own_memory_mb(self) -> float:
        return max(0.0, self.corner.peak_memory_mb - self.ground.shared_memory_mb)

    def objections(self, study: StudyData) -> list[str]:
        """Return what stands against running the study as it is, each with what to do about it."""
        return [*_memory(self), *_limits(study, self)]

    def plain(self) -> dict[str, Any]:
        """Return everything as plain JSON data."""
        sums = ("whole_trial_seconds", "whole_evaluations", "seconds", "most_seconds", "disk_bytes", "memory_mb")
        found = {**asdict(self), **{name: getattr(self, name) for name in sums}}
        return {
            name: None if value == math.inf else value for name, value in ({**found, **found.pop("ground")}).items()
        }


def forecast(study: StudyData, corner: Corner, measured: Sequence[Measured], ground: Ground) -> Forecast:
    """Return what a study will take whose trials are as these measured ones are."""
    trials, slots = trials_of(study), ground.slots
    played = play(study, measured, trials or PLAYED_TRIALS, slots)
    confirm = study.confirm
    again = 0 if confirm is None else min(confirm.top, trials or confirm.top) + (study.baseline is not None)
    runs = again * (confirm.seeds if confirm else 0)
    seconds = [one.seconds for one in measured]
    kept = min(study.checkpoints.keep, trials or study.checkpoints.keep)
    # A checkpoint is whole before the one it replaces is removed: for a moment there are two of it.
    running = max(one.best_bytes + one.last_bytes + max(one.best_bytes, one.last_bytes) for one in measured)
    return Forecast(
        corner=corner,
        ground=ground,
        measured=tuple(measured),
        trials=trials,
        evaluations=played.evaluations,
        trial_seconds=played.trial_seconds,
        search_seconds=None if trials is None else played.seconds,
        unpruned_seconds=None if trials is None else makespan(seconds, trials, slots),
        confirm_seconds=makespan(seconds, runs, slots),
        kept_models=kept,
        kept_bytes=kept * fmean(one.best_bytes for one in measured),
        record_bytes=_records(study, (trials or 0) + runs, fmean(one.log_bytes for one in measured)),
        running_bytes=slots * running,
    )


def _records(study: StudyData, trials: int, log_bytes: float) -> float:
    """Bytes of what is written about trials: the report is mostly plotly's own file, and lies beside MLflow's run again."""
    plotly = find_spec("plotly")
    script = Path(plotly.origin).parent / "package_data" / "plotly.min.js" if plotly and plotly.origin else None
    report = script.stat().st_size if script and script.exists() else 0
    store = study.tracking.uri.startswith("sqlite")
    return PER_LOGGED * log_bytes * trials + (EMPTY_STORE + 2 * report if store else report)


def _memory(found: Forecast) -> Iterator[str]:
    corner = found.corner
    where = words.settings(corner.hyperparameters) or "every trial"
    if corner.out_of_memory:
        small = f"a micro-batch of {corner.fits} fits" if corner.fits else "smaller micro-batches do not fit either"
        advice = "lower the upper ends of the space, or set gradient_checkpointing or a 16-bit type in training"
        yield f"out of memory at {where}: {corner.out_of_memory}; {small}; {advice}"
    elif found.memory_mb > found.ground.free_memory_mb:
        free, fit = found.ground.free_memory_mb, _fitting(found)
        yield (
            f"memory: {words.plural(found.ground.slots, 'trial')} at a time need up to {words.size(1e6 * found.memory_mb)}, "
            f"and {words.size(1e6 * free)} are free; set backend.parallel: {fit}"
        )


def _fitting(found: Forecast) -> int:
    room = found.ground.free_memory_mb - found.ground.shared_memory_mb
    return max(1, int(room / max(1.0, found._own_memory_mb)))


def _limits(study: StudyData, found: Forecast) -> Iterator[str]:
    budget, slowest = study.budget, max(one.seconds for one in found.measured)
    if budget.trial_hours is not None and slowest > 3600 * budget.trial_hours:
        took = f"the slowest trial measured takes {words.span(slowest)}"
        yield f"budget.trial_hours: {took}, and {budget.trial_hours:g} h end it as failed; raise it"
    if budget.hours is not None and found.seconds is not None and found.seconds > 3600 * budget.hours:
        done = f"about {words.plural(found.trials_in(budget.hours), 'trial')} of {found.trials}"
        yield f"budget.hours: {budget.hours:g} h are over after {done}; raise it, or lower budget.trials"
    needs = max(one.best_bytes for one in found.measured)
    if budget.disk_gb is not None and needs > 1e9 * budget.disk_gb:
        yield f"budget.disk_gb: a model takes {words.size(needs)}, more than {budget.disk_gb:g} GB; raise it"
