"""A study that this process runs: in the cell that waits for it, or in a thread. Knows no trial."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import FrameType

from sweepkit.api.display import Watching, watching
from sweepkit.check import Checked, check
from sweepkit.driver.run import run as run_study
from sweepkit.driver.run import run_checked
from sweepkit.report.watch import Outcome, Switch
from sweepkit.study.errors import InputError
from sweepkit.study.identity import changes, plain_study
from sweepkit.study.study import StudyData


class Running:
    """A study in a thread of its own."""

    def __init__(self, checked: Checked, fresh: bool, watch: Watching) -> None:
        self.study, self.switch, self.watch = checked.study, Switch(), watch
        self.outcome: Outcome | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._run, args=[checked, fresh], name=f"study {self.study.name}", daemon=True
        )
        self._thread.start()

    def _run(self, checked: Checked, fresh: bool) -> None:
        try:
            with self.watch as watch:
                self.outcome = run_checked(checked, fresh=fresh, watch=watch, switch=self.switch)
        except BaseException as error:  # noqa: BLE001  # an edge: raised where somebody waits
            self.error = error

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._thread.is_alive()

    def wait(self) -> Outcome:
        """Wait for the end; raise what ended it."""
        while self.alive:
            self._thread.join(0.2)  # in turns, so that an interrupt comes through
        if self.error is not None:
            raise self.error
        assert self.outcome is not None
        return self.outcome


_LAST: dict[Path, Running] = {}
"""A study's folder → its last run in the background."""


def last(study: StudyData) -> Running | None:
    """Return the study's last run in the background of this process."""
    return _LAST.get(study.place.folder)


def running(study: StudyData) -> Running | None:
    """Return the run in the background that goes on now."""
    found = last(study)
    return found if found is not None and found.alive else None


def run(study: StudyData, *, fresh: bool) -> Outcome:
    """Run a study here and now, and show it."""
    with watching() as watch:
        outcome = run_study(study, fresh=fresh, watch=watch)
        watch.summary(outcome, study)
    if outcome.status == "interrupted":
        raise KeyboardInterrupt(f"{study.name} was interrupted; nothing finished is lost, and the same call goes on")
    return outcome


def start(study: StudyData, *, fresh: bool) -> None:
    """Run a study in the background; where it runs already, show it again."""
    found = running(study)
    if found is not None:
        if differs := [str(change) for change in changes(plain_study(found.study), plain_study(study))]:
            raise InputError(
                f"{study.name} runs already, with {'; '.join(differs)}; stop() it first, then run this one"
            )
        found.watch.again()
        return
    checked = check(study)  # here, so that the cell shows the problems
    _survive_stop()
    _LAST[study.place.folder] = Running(checked, fresh, watching())


def _survive_stop() -> None:
    """Let ``sweep stop`` (SIGTERM) stop studies in the background instead of ending this process."""
    if threading.current_thread() is not threading.main_thread():
        return
    before = signal.getsignal(signal.SIGTERM)

    def stop(number: int, frame: FrameType | None) -> None:
        alive = [each for each in _LAST.values() if each.alive]
        for each in alive:
            each.switch.press()
        if not alive:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    if getattr(before, "__name__", "") != stop.__name__ or getattr(before, "__module__", "") != __name__:
        signal.signal(signal.SIGTERM, stop)
