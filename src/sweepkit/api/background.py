"""Runs a study in this process: in the current cell, or in a thread of its own."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import Future
from pathlib import Path
from types import FrameType

from sweepkit.api.picture import LivePicture, in_notebook
from sweepkit.check import Checked, check
from sweepkit.driver.run import Replacements, run_checked
from sweepkit.report import progress, terminal
from sweepkit.report.watch import Outcome, Switch
from sweepkit.study.errors import InputError
from sweepkit.study.identity import changes, plain_study
from sweepkit.study.study import StudyData

View = LivePicture | progress.Lines | progress.Picture


class BackgroundRun:
    """A study that runs in a thread of its own."""

    def __init__(self, checked: Checked, *, fresh: bool) -> None:
        self.study, self.switch, self.view = checked.study, Switch(), _view()
        self.outcome: Future[Outcome] = Future()
        """Waits for the end of the run, and raises what ended it."""
        threading.Thread(target=self._run, args=[checked, fresh], name=f"study {self.study.name}", daemon=True).start()

    def _run(self, checked: Checked, fresh: bool) -> None:
        try:
            with self.view as view:
                outcome = run_checked(checked, fresh=fresh, watch=view, switch=self.switch)
        except BaseException as error:  # noqa: BLE001  # an edge: raised again where the outcome is waited for
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(outcome)


_LAST: dict[Path, BackgroundRun] = {}
"""A study's folder → its last run in the background."""


def last(study: StudyData) -> BackgroundRun | None:
    """Return the study's last run in the background of this process."""
    return _LAST.get(study.place.folder)


def running(study: StudyData) -> BackgroundRun | None:
    """Return the study's run in the background if it is still running."""
    run = last(study)
    return None if run is None or run.outcome.done() else run


def run(study: StudyData, *, fresh: bool) -> Outcome:
    """Run a study in the foreground and show it. Raises KeyboardInterrupt where it was interrupted."""
    outcome = run_shown(check(study), fresh=fresh)
    if outcome.status == "interrupted":
        raise KeyboardInterrupt(f"{study.name} was interrupted; nothing finished is lost, and the same call resumes it")
    return outcome


def run_shown(checked: Checked, *, fresh: bool = False, instead: Replacements | None = None) -> Outcome:
    """Run a study that was checked; show it while it runs, and its summary after it."""
    with _view() as view:
        outcome = run_checked(checked, fresh=fresh, watch=view, instead=instead)
    if not isinstance(view, LivePicture):
        terminal.show(terminal.summary(outcome, checked.study))
    return outcome


def start(study: StudyData, *, fresh: bool) -> None:
    """Run a study in the background; where it runs already, show it again."""
    if (current := running(study)) is not None:
        if differences := [str(change) for change in changes(plain_study(current.study), plain_study(study))]:
            raise InputError(
                f"{study.name} is running already, with {'; '.join(differences)}; stop() it first, then run this one"
            )
        if isinstance(current.view, LivePicture):
            current.view.show()
        return
    checked = check(study)  # here, so that the cell shows the problems
    _stop_on_sigterm()
    _LAST[study.place.folder] = BackgroundRun(checked, fresh=fresh)


def _view() -> View:
    return LivePicture() if in_notebook() else progress.watcher()


def _stop_on_sigterm() -> None:
    """Let ``sweep stop`` (SIGTERM) stop the studies in the background instead of ending this process."""
    if threading.current_thread() is not threading.main_thread():
        return
    before = signal.getsignal(signal.SIGTERM)

    def stop(number: int, frame: FrameType | None) -> None:
        runs = [run for run in _LAST.values() if not run.outcome.done()]
        for run in runs:
            run.switch.press()
        if not runs:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    if getattr(before, "__name__", "") != stop.__name__ or getattr(before, "__module__", "") != __name__:
        signal.signal(signal.SIGTERM, stop)
