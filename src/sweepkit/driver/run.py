"""Runs a study: the one place that chooses backend and tracker, opens everything in order and closes it again."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from optuna.pruners import BasePruner

from sweepkit import report
from sweepkit.backends import Backend, Scheduler
from sweepkit.backends.local import OptunaBackend
from sweepkit.backends.local.executor import Executor
from sweepkit.backends.slots import Machine, Slot, plan
from sweepkit.check import Checked, check
from sweepkit.driver.conclusion import Means, conclude
from sweepkit.driver.prepare import executor_of, second_check
from sweepkit.driver.session import Driver, Given
from sweepkit.report.confirmation import Confirmation, answer
from sweepkit.report.rows import rows as result_rows
from sweepkit.report.watch import Outcome, Quiet, Status, Switch, Watcher
from sweepkit.search.configurations import Proposer
from sweepkit.search.search import Search
from sweepkit.search.storage import open_storage, set_aside, several_drivers
from sweepkit.study.errors import FULL_DISK, MissingExtra, StudyFailed
from sweepkit.study.identity import archive, identify, refuse_changed
from sweepkit.study.locks import StudyLock, lock_owners
from sweepkit.study.study import StudyData
from sweepkit.tasks import Task
from sweepkit.trackers import Courier, Tracker, tracker_of
from sweepkit.trackers.courier import prompt
from sweepkit.trial.trial import Trial

__all__ = ["Outcome", "Quiet", "Watcher", "run"]

REPORTED_SECONDS = 60.0
"""A run that took so long ends with the report, which takes two seconds; after a shorter one `sweep report` writes it."""


def run(
    study: StudyData, *, fresh: bool = False, watch: Watcher | None = None, switch: Switch | None = None
) -> Outcome:
    """Run a study until its budget is spent, going on where an earlier run stopped.

    ``fresh`` archives what was run under this name before; ``switch`` stops the run from another thread. Raises
    StudyFileError for a study that breaks rules, StudyChanged and StudyLocked; a study that cannot go on ends with status
    ``failed``.
    """
    return run_checked(check(study), fresh=fresh, watch=watch, switch=switch)


def run_checked(
    checked: Checked,
    *,
    fresh: bool = False,
    watch: Watcher | None = None,
    switch: Switch | None = None,
    proposer: Proposer | None = None,
    pruner: BasePruner | None = None,
    here: type[Task] | None = None,
) -> Outcome:
    """Run a study that was checked; ``proposer`` and ``pruner`` replace its own.

    ``here`` is a task that cannot be sent to another process: its trials run in this one, without the second check.
    """
    study, known = checked.study, checked.known
    watch, switch = watch or Quiet(), switch or Switch()
    place, began = study.place, time.monotonic()
    if study.backend.type == "optuna":
        plan(study.backend, Machine.here())
    with StudyLock(place, shared=several_drivers(study)), ExitStack() as stack:
        if fresh:
            archive(place)
        refuse_changed(place, study)  # again when it is recorded; here, so that nobody waits for a warm process first
        if len(lock_owners(place)) == 1:
            shutil.rmtree(place.scratch, ignore_errors=True)
        inspected: Mapping[str, Any] = {}
        executor = None
        if here is None:
            executor = stack.enter_context(executor_of(study))
            watch.on_note("importing torch, transformers and the task once …")
        tracker_of(study).prepare()  # while the warm process imports
        if executor is not None:
            inspected = second_check(study, known, executor, watch)
        identify(place, study)
        storage = open_storage(place, study, repair=True)
        if fresh and study.storage != "journal":
            for name in (study.name, f"{study.name}/confirm"):
                set_aside(storage, name)
        search = Search(study, storage, known=known, proposer=proposer, pruner=pruner)
        backend: Backend
        gpus = 1.0 if study.backend.gpus_per_trial == "auto" else study.backend.gpus_per_trial
        if here is not None:
            backend = _here_backend(study, here)
        elif executor is None or study.backend.type == "ray":
            stack.close()
            backend = _ray_backend(study, inspected["peak_memory_mb"])
        else:
            slots = plan(study.backend, Machine.here(), trial_memory_mb=inspected["peak_memory_mb"])
            executor.free.extend(slots)
            backend, gpus = OptunaBackend(executor), _gpus(slots)
            watch.on_note(_slots_in_words(slots))
        courier = Courier(_tracker(study, search, inspected.get("data")), warn=watch.on_note)
        courier.open()
        splits = here is None and not inspected["micro_batch_matters"]
        slots_now, model_bytes = len(executor.free) if executor else 1, inspected.get("model_mb", 0.0) * 1e6
        given = Given(gpus, slots_now, splits, model_bytes, _scheduler(study))
        watch.on_open(study, result_rows(study, search))
        status, reason = _drive(backend, Driver(study, search, courier=courier, watch=watch, given=given), switch)
        if status == "done" and study.confirm is not None and search.best() is not None:
            confirmation = Confirmation(study, search, storage, known=known, proposer=proposer)
            means = Means(
                drive=lambda courier, watch: _drive(
                    backend,
                    Driver(confirmation.study, confirmation.search, courier=courier, watch=watch, given=given),
                    switch,
                ),
                tracker=_tracker(study, confirmation.search, inspected.get("data")),
                job=None if here is not None else lambda job, **request: _job(study, executor, job, **request),
                watch=watch,
            )
            status, why = conclude(confirmation, search.trials(), means)
            reason = reason if status == "done" else why
        stack.close()
        left = courier.close(answer(study, result_rows(study, search), status=status, reason=reason))
        if left:
            watch.on_note(left)
        if status == "done" and time.monotonic() - began >= REPORTED_SECONDS:
            watch.on_note(report.conclude(study))
        return _outcome(study, search, status, reason, time.monotonic() - began, watch)


def _outcome(study: StudyData, search: Search, status: Status, reason: str, seconds: float, watch: Watcher) -> Outcome:
    rows = result_rows(study, search)
    best = search.best()
    if status == "done" and best is None:
        status, reason = "failed", f"no trial completed ({reason})"
    outcome = Outcome(
        status=status,
        rows=rows,
        best=next((row for row in rows if best and row.number == best.number), None),
        baseline=next((row for row in rows if row.origin == "baseline"), None),
        reason=reason,
        seconds=seconds,
    )
    watch.on_close(outcome)
    return outcome


def _ray_backend(study: StudyData, trial_memory_mb: float) -> Backend:
    try:
        from sweepkit.backends.ray import RayBackend
    except ImportError as error:
        raise MissingExtra("backend.type: ray", "ray") from error
    return RayBackend(study, trial_memory_mb=trial_memory_mb)


def _scheduler(study: StudyData) -> Scheduler | None:
    if not study.pruner.population:
        return None
    from sweepkit.backends.ray.population import TuneScheduler

    return TuneScheduler(study)


def _here_backend(study: StudyData, kind: type[Task]) -> Backend:
    from sweepkit.backends.inline import HereBackend

    return HereBackend(study, kind)


def _job(study: StudyData, executor: Executor | None, job: str, **request: Any) -> dict[str, Any]:
    """Do a job in the study's warm process, or, where its trials run elsewhere, in one made for it."""
    if executor is not None and study.backend.type == "optuna":
        return executor.job(job, **request)
    with executor_of(study) as own:
        return own.job(job, **request)


def _gpus(slots: list[Slot]) -> float:
    devices = {device for slot in slots for device in slot.devices}
    return len(devices) / len(slots) if any(len(slot.devices) == 1 for slot in slots) else float(len(slots[0].devices))


def _slots_in_words(slots: list[Slot]) -> str:
    slot = slots[0]
    where = f"{len(slot.devices)} GPU(s)" if slot.devices else f"{slot.threads} thread(s)"
    ranks = f", {slot.ranks} ranks" if slot.ranks > 1 else ""
    return f"{len(slots)} trial(s) at a time, each with {where}{ranks}"


def _drive(backend: Backend, driver: Driver, switch: Switch) -> tuple[Status, str]:
    try:
        switch.connect(driver.interrupt)
        with _interruptible(driver), prompt():
            backend.drive(driver)
    except StudyFailed as error:
        return "failed", str(error)
    except OSError as error:
        if error.errno in FULL_DISK:
            return "failed", "no space left on the disk; free some and run the same command"
        raise
    finally:
        driver.close()
    if driver.interrupted:
        return "interrupted", driver.reason
    return "done", driver.reason


@contextmanager
def _interruptible(driver: Driver) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM interrupt the study, once gently, twice at once; signals are the main thread's only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, lambda *_: driver.interrupt()) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tracker(study: StudyData, search: Search, data: str | None) -> Tracker:
    shared, place = several_drivers(study), search.place

    def rows() -> list[Trial]:
        """Return the trials that are for this machine to deliver: their logs lie where they were trained."""
        found = search.trials()
        return [row for row in found if place.trial(row.number).exists()] if shared else found

    return tracker_of(study, rows, place=place, data=Path(data) if data else None, shared=shared)
