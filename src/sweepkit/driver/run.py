"""Runs a study: chooses its backend and tracker, opens everything in order, drives the trials and closes it all again."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from optuna.pruners import BasePruner

from sweepkit import report
from sweepkit.backends import Backend, Session, backend_of, scheduler_of
from sweepkit.backends.local.executor import Executor
from sweepkit.backends.slots import Machine, Need, plan
from sweepkit.check import Checked, check
from sweepkit.driver.confirm import Confirmation, evaluate_once
from sweepkit.driver.earlier import earlier
from sweepkit.driver.prepare import Prepared, prepare
from sweepkit.driver.probe import look
from sweepkit.driver.session import Setup, StudySession
from sweepkit.report.answer import Answer, read_test
from sweepkit.report.rows import read
from sweepkit.report.rows import rows as result_rows
from sweepkit.report.verdict import read_verdict, write_verdict
from sweepkit.report.watch import Outcome, State, Status, Switch, Watcher, read_state, write_state
from sweepkit.search.proposer import Proposer
from sweepkit.search.search import Search
from sweepkit.search.storage import open_storage, set_aside
from sweepkit.study.damage import name_files, note, noting, put_aside
from sweepkit.study.errors import FULL_DISK, NO_SPACE, DamagedFile, StudyFailed
from sweepkit.study.files import remove
from sweepkit.study.identity import Identity, archive, identify, recorded_study, refuse_changed
from sweepkit.study.locks import StudyLock, lock_owners
from sweepkit.study.study import StudyData
from sweepkit.tasks.task import Task
from sweepkit.trackers import Tracker, tracker_of
from sweepkit.trackers.courier import Courier, prompt
from sweepkit.trial.trial import Ending, Trial

__all__ = ["Outcome", "Replacements", "Watcher", "run", "run_checked"]

Ended = tuple[Status, str]
"""A status, and the reason in words."""


@dataclass(frozen=True, kw_only=True)
class Replacements:
    """What a caller from Python runs a study with instead of the study's own."""

    proposer: Proposer | None = None
    pruner: BasePruner | None = None
    task: type[Task] | None = None
    """A task that cannot be pickled: its trials run in this process, and nothing is prepared or inspected."""


def run(
    study: StudyData, *, fresh: bool = False, watch: Watcher | None = None, switch: Switch | None = None
) -> Outcome:
    """Run a study until its budget is spent, continuing where an earlier run stopped.

    ``fresh`` archives what ran under this name before; ``switch`` stops the run from another thread. Raises
    StudyFileError for a study that breaks rules, StudyChanged and StudyLocked. A study that fails while it runs returns
    with status ``failed``.
    """
    return run_checked(check(study), fresh=fresh, watch=watch, switch=switch)


def run_checked(
    checked: Checked,
    *,
    fresh: bool = False,
    watch: Watcher | None = None,
    switch: Switch | None = None,
    instead: Replacements | None = None,
) -> Outcome:
    """Run a study that was checked; see :func:`run`."""
    return _Run(checked, watch or Watcher(), switch or Switch(), instead or Replacements()).complete(fresh=fresh)


class _Run:
    """One run of one study; its methods are the steps, in the order in which ``complete`` takes them."""

    def __init__(self, checked: Checked, watch: Watcher, switch: Switch, instead: Replacements) -> None:
        self._study, self._known, self._warnings = checked.study, checked.known, checked.warnings
        self._watch = watch
        self._switch = switch
        self._instead = instead
        self._began = time.monotonic()
        self._executor: Executor | None = None
        self._prepared, self._need = Prepared(), Need()
        self._spent = ""
        """Why there is nothing left to train, where an earlier run of this very study said so; else empty."""

    def complete(self, *, fresh: bool) -> Outcome:
        """Take every step from the lock to the outcome."""
        study = self._study
        if study.backend.kind.here:
            plan(study.resources, Machine.here())  # raises for what this machine can never hold
        lock = StudyLock(study.place, shared=study.several_drivers)
        with name_files(), noting(self._watch.on_note), lock, ExitStack() as self._resources:
            self._claim(fresh)
            self._spent = self._left_nothing()
            if not self._spent:
                self._prepare()
            self._open(fresh)
            ended: Ended = ("done", self._spent) if self._spent else self._drive(self._session())
            status, reason = ended
            if status == "done" and study.confirm is not None and Answer(study, self._search.trials()).ranked:
                status, why = self._confirm()
                reason = reason if status == "done" else why
            return self._close(status, reason)

    def _claim(self, fresh: bool) -> None:
        """Make the study's folder this run's own."""
        place = self._study.place
        if fresh:
            archive(place)
        refuse_changed(place, self._study)  # identify() asks again; here, before a warm process is waited for
        if len(lock_owners(place)) == 1:
            remove(place.scratch)
        if self._study.confirm is not None and self._study.confirm.test == "once":
            read_test(place)  # a damaged record is refused now, not after the confirmation
        try:
            read_verdict(place)
        except DamagedFile as error:
            note(str(error))
            put_aside(place.verdict_json)

    def _left_nothing(self) -> str:
        """Return why an earlier run of this very study had nothing left to train; empty where there may be something."""
        study, place = self._study, self._study.place
        known, rows = Identity.load(place), read(study)
        state, retried = read_state(study, rows), {row.retry_of for row in rows}
        waiting = any(row.ending is Ending.waiting for row in rows)
        taken = sum(row.ending.counts and row.number not in retried for row in rows)
        limited = state.reason.startswith("budget.") or taken >= (study.budget.trials or math.inf)
        unchanged = known is not None and known.study == recorded_study(study)
        done = state.status == "done" and all(row.ending.counts or row.ending is Ending.waiting for row in rows)
        return (state.reason or "done before") if unchanged and done and (limited or not waiting) else ""

    def _session(self) -> StudySession:
        return StudySession(self._study, self._search, courier=self._courier, watch=self._watch, setup=self._setup)

    def _prepare(self) -> None:
        """Start the warm process, prepare the data and build a trial; a task of this process needs none of it."""
        for warning in self._warnings:
            self._watch.on_note(f"warning: {warning}")
        if self._instead.task is None:
            self._executor = self._resources.enter_context(Executor(self._study))
            self._watch.on_note("importing torch, transformers and the task once …")
        tracker_of(self._study).prepare()  # in a thread, while the warm process imports
        if self._executor is not None:
            self._prepared = prepare(self._study, self._known, self._executor, self._watch)
            self._need = look(self._study, self._known, self._executor, self._prepared, self._watch)

    def _open(self, fresh: bool) -> None:
        """Open the storage, the backend and the tracker; from here on the study is recorded."""
        study, place = self._study, self._study.place
        find = cache(partial(earlier, study, self._known, self._watch.on_note))
        if study.start_from and (fresh or not place.study_json.exists()):
            find()  # what cannot be found is refused before anything is recorded
        self._backend, self._setup = self._open_backend()  # slots that cannot be had are refused before, too
        identify(place, study)
        write_state(place, State("running"))
        self._storage = open_storage(place, study, repair=True)
        if fresh and study.storage != "journal":
            for name in (study.name, f"{study.name}/confirm"):
                set_aside(self._storage, name)
        self._proposer = self._instead.proposer or Proposer(study, self._known)
        self._search = Search(study, self._storage, self._proposer, pruner=self._instead.pruner)
        if study.start_from:
            taken = self._search.start_from(find)
            if taken is None or list(taken.asked) != study.start_from:
                self._watch.on_note(
                    "start_from has no effect now: what a study starts from is decided at its first start"
                )
        self._courier = Courier(self._tracker(self._search), warn=self._watch.on_note)
        self._courier.open()
        self._watch.on_open(study, result_rows(study, self._search))

    def _open_backend(self) -> tuple[Backend, Setup]:
        study, prepared = self._study, self._prepared
        backend: Backend
        if self._spent:
            backend = _Idle()
        elif self._instead.task is not None:
            from sweepkit.backends.inline import InlineBackend

            backend = InlineBackend(study, self._instead.task)
        else:
            if not study.backend.kind.here:
                self._resources.close()  # this machine's warm process is not needed any more
            backend = backend_of(study, self._executor, self._need)
        if backend.description:
            self._watch.on_note(backend.description)
        setup = Setup(
            gpus=backend.gpus,
            slots=backend.slots,
            splits_batches=prepared.splits_batches,
            model_bytes=prepared.model_bytes,
            scheduler=scheduler_of(study),
        )
        return backend, setup

    def _drive(self, session: StudySession) -> Ended:
        """Run trials until there is nothing left to start; return how that ended."""
        try:
            self._switch.connect(session.interrupt)
            with _interruptible(session), prompt():
                self._backend.drive(session)
                if not session.interrupted:
                    session.end_paused()
        except StudyFailed as error:
            return "failed", str(error)
        except OSError as error:
            if error.errno in FULL_DISK:
                return "failed", NO_SPACE
            raise
        finally:
            session.close()
        return ("interrupted" if session.interrupted else "done"), session.reason

    def _confirm(self) -> Ended:
        """Train the best trials again over new seeds, judge them, and test the chosen one where the study asks for it."""
        watch = self._watch
        confirmation = Confirmation(self._study, self._search, self._storage, self._proposer)
        total = confirmation.enqueue()
        courier = Courier(self._tracker(confirmation.search), warn=watch.on_note)
        courier.open()
        try:
            lines = confirmation.watcher(watch, total)
            session = StudySession(
                confirmation.study, confirmation.search, courier=courier, watch=lines, setup=self._setup
            )
            status, reason = self._drive(session)
        finally:
            if undelivered := courier.close(None):
                watch.on_note(undelivered)
        verdict = confirmation.verdict()
        if status == "done":
            write_verdict(self._study.place, verdict)
            for line in verdict.sentences():
                watch.on_note(line)
            if self._study.confirm and self._study.confirm.test == "once" and verdict.chosen is not None:
                row = next(row for row in self._search.trials() if row.number == verdict.chosen)
                evaluate_once(confirmation.study, row, None if self._instead.task else self._job, watch)
        return status, reason

    def _close(self, status: Status, reason: str) -> Outcome:
        """End the trials' processes, deliver the answer to the tracker, write the report and return the outcome."""
        study = self._study
        self._resources.close()
        answer = Answer.read(study, result_rows(study, self._search))
        if status == "done" and not answer.ranked:
            status, reason = "failed", f"no trial completed ({reason})"
        write_state(study.place, State(status, reason))
        with ThreadPoolExecutor(1) as beside:  # while the tracker takes the rest
            page = beside.submit(report.write, study) if status == "done" and not self._spent else None
            undelivered = self._courier.close(answer.record(status=status, reason=reason))
        if page is not None:
            self._watch.on_note(report.conclude(study, page.result, recorded=not undelivered))
        outcome = Outcome(
            status=status,
            rows=list(answer.rows),
            best=answer.chosen,
            baseline=answer.baseline,
            reason=reason,
            seconds=time.monotonic() - self._began,
            undelivered=undelivered,
        )
        self._watch.on_close(outcome)
        return outcome

    def _job(self, job: str, **request: Any) -> dict[str, Any]:
        """Run a job in the study's warm process, or in one of its own where the trials run elsewhere."""
        if self._executor is not None and self._study.backend.kind.here:
            return self._executor.job(job, **request)
        with Executor(self._study) as own:
            return own.job(job, **request)

    def _tracker(self, search: Search) -> Tracker:
        study, place = self._study, search.place

        def rows() -> list[Trial]:
            """Return the trials that this machine delivers: those that were trained here have their logs here."""
            trials = search.trials()
            return [row for row in trials if place.trial(row.number).exists()] if study.several_drivers else trials

        return tracker_of(study, rows, place=place, data=self._prepared.data)


class _Idle:
    """The backend of a study that has nothing left to train."""

    slots, gpus, description = 0, 0.0, ""

    def drive(self, session: Session) -> None:
        """Let the session find that there is nothing left, and say why."""
        session.next()


@contextmanager
def _interruptible(session: StudySession) -> Iterator[None]:
    """Let SIGINT and SIGTERM interrupt the session; signal handlers belong to the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, lambda *_: session.interrupt()) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
