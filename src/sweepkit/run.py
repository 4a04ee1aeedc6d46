"""Runs a study: the one place that chooses backend and tracker, opens everything in order and closes it again."""

from __future__ import annotations

import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from sweepkit.backends import Backend
from sweepkit.backends.optuna import OptunaBackend
from sweepkit.check import check, typed
from sweepkit.errors import InputError, MissingExtra, Problem, StudyFailed, StudyFileError
from sweepkit.events import Evaluated, Event, Finished
from sweepkit.executor import Executor
from sweepkit.identity import StudyLock, archive, identify
from sweepkit.load import known_values
from sweepkit.results import answer
from sweepkit.results import rows as result_rows
from sweepkit.search import Search
from sweepkit.session import Driver
from sweepkit.slots import Machine, Slot, plan
from sweepkit.storage import open_storage
from sweepkit.study import Study
from sweepkit.trackers import Courier, Silent, Tracker
from sweepkit.trial import TrialSpec
from sweepkit.watch import Outcome, Quiet, Watcher

__all__ = ["Outcome", "Quiet", "Watcher", "run", "try_one"]


def run(study: Study, *, fresh: bool = False, watch: Watcher | None = None) -> Outcome:
    """Run a study until its budget is spent, going on where an earlier run stopped.

    ``fresh`` archives what was run under this name before. Raises StudyFileError for a study that breaks rules,
    StudyChanged and StudyLocked; a study that cannot go on ends with status ``failed``.
    """
    watch = watch or Quiet()
    problems = check(study)
    if problems:
        raise StudyFileError(problems)
    study = typed(study)
    place, began = study.place, time.monotonic()
    on_ray = study.backend.type == "ray"
    if not on_ray:
        plan(study.backend, Machine.here())
    with StudyLock(place), ExitStack() as stack:
        if fresh:
            archive(place)
        executor = Executor(study, [], log=place.folder / "warm.log", deadline_seconds=_deadline(study))
        stack.enter_context(executor)
        watch.said("importing torch, transformers and the task once …")
        tracker_for = _tracker(study)
        inspected = _second_check(study, executor, watch, place.folder)
        identify(place, study)
        search = Search(study, open_storage(place, study, repair=True), known=known_values(study))
        backend: Backend
        if on_ray:
            stack.close()
            backend = _ray_backend(study, inspected["peak_memory_mb"])
            gpus = 1.0 if study.backend.gpus_per_trial == "auto" else study.backend.gpus_per_trial
        else:
            slots = plan(study.backend, Machine.here(), trial_memory_mb=inspected["peak_memory_mb"])
            executor.free.extend(slots)
            backend, gpus = OptunaBackend(executor), _gpus(slots)
            watch.said(_slots_in_words(slots))
        courier = Courier(tracker_for(search, Path(inspected["data"])), warn=watch.said)
        courier.open()
        splits = not inspected.get("micro_batch_matters", False)
        driver = Driver(study, search, courier=courier, watch=watch, gpus_per_trial=gpus, splits_batches=splits)
        watch.opened(study, result_rows(place, search))
        status, reason = _drive(backend, driver)
        stack.close()
        driver.close()
        left = courier.close(answer(study, result_rows(place, search), status=status, reason=reason))
        if left:
            watch.said(left)
        return _outcome(study, search, status, reason, time.monotonic() - began, watch)


Status = Literal["done", "failed", "interrupted"]


def _outcome(study: Study, search: Search, status: Status, reason: str, seconds: float, watch: Watcher) -> Outcome:
    rows = result_rows(study.place, search)
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
    watch.closed(outcome)
    return outcome


def _ray_backend(study: Study, trial_memory_mb: float) -> Backend:
    try:
        from sweepkit.backends.ray import RayBackend
    except ImportError as error:
        raise MissingExtra("backend.type: ray", "ray") from error
    return RayBackend(study, trial_memory_mb=trial_memory_mb)


def _deadline(study: Study) -> float | None:
    return study.budget.trial_hours * 3600 if study.budget.trial_hours else None


def _gpus(slots: list[Slot]) -> float:
    devices = {device for slot in slots for device in slot.devices}
    return len(devices) / len(slots) if any(len(slot.devices) == 1 for slot in slots) else float(len(slots[0].devices))


def _slots_in_words(slots: list[Slot]) -> str:
    slot = slots[0]
    where = f"{len(slot.devices)} GPU(s)" if slot.devices else f"{slot.threads} thread(s)"
    ranks = f", {slot.ranks} ranks" if slot.ranks > 1 else ""
    return f"{len(slots)} trial(s) at a time, each with {where}{ranks}"


def _drive(backend: Backend, driver: Driver) -> tuple[Status, str]:
    try:
        with _interruptible(driver):
            backend.drive(driver)
    except StudyFailed as error:
        return "failed", str(error)
    except OSError as error:
        if error.errno == 28:
            return "failed", "no space left on the disk; free some and run the same command"
        raise
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


def _second_check(study: Study, executor: Executor, watch: Watcher, folder: Path) -> dict[str, Any]:
    """Prepare the data, build what a trial builds, and refuse, before anything is recorded, what only that can tell."""
    seconds = executor.wait_ready()
    watch.said(f"warm process ready in {seconds:.1f} s")
    console = folder / "inspect.log"
    prepared = executor.job("prepare", console=console)
    if "error" in prepared:
        raise InputError(f"task: the data cannot be prepared: {prepared['error']} (log: {console})")
    rows = ", ".join(f"{name} {count}" for name, count in prepared["about"]["rows"].items())
    watch.said(f"data prepared: {rows} rows")
    with TemporaryDirectory(prefix="sweepkit-") as temporary:
        spec = TrialSpec(number=0, hyperparameters=_first(study), directory=temporary)
        path = Path(temporary) / "spec.json"
        path.write_text(spec.to_json())
        inspected = executor.job("inspect", console=console, spec=str(path))
    executor.preload(inspected.pop("imported", []))
    if inspected["problems"]:
        raise StudyFileError(Problem(where, message) for where, message in inspected["problems"])
    for note in inspected["notes"]:
        watch.said(note)
    return {**inspected, "data": prepared["folder"]}


def _first(study: Study) -> dict[str, Any]:
    """Return a configuration to try the task with: the lowest or first value of every parameter."""
    from sweepkit.formulas import derive
    from sweepkit.space import Choice, draw

    values = draw(study.space, lambda d: d.parameter.labels[0] if isinstance(d.parameter, Choice) else d.parameter.low)
    known = known_values(study)
    values = derive(study.space, values, known)
    return {name: value for name, value in values.items() if name in known}


def _tracker(study: Study) -> Callable[[Search, Path], Tracker]:
    """Return what makes the tracker once the search is open; imports MLflow now, while the warm process imports torch."""
    if study.tracking.uri == "none":
        return lambda search, data: Silent()
    from sweepkit.trackers.mlflow import MLflowTracker

    return lambda search, data: MLflowTracker(study, rows=search.trials, data=data)


def try_one(study: Study, params: Mapping[str, Any]) -> Finished:
    """Train one configuration in this process, without recording it, so that a debugger works.

    ``params`` are hyperparameters by name; those left out take their consumer's default.
    """
    from sweepkit.objective import run_trial

    folder = study.place.folder / "try"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return run_trial(study, TrialSpec(number=0, hyperparameters=dict(params), directory=str(folder)), _PrintedLine())


class _PrintedLine:
    """A trial's line that prints what it says and always answers: go on."""

    def say(self, event: Event) -> None:
        sys.stdout.write(event.to_json() + "\n")

    def ask(self, event: Evaluated) -> str:
        self.say(event)
        return "continue"

    def heard(self) -> str | None:
        return None
