"""Delivers a study to its tracker in a thread, so that training never waits for a store.

A tracker that raises is called again later; the study runs on meanwhile.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from sweepkit.study.errors import StudyFailed, SweepError
from sweepkit.study.files import first_line

if TYPE_CHECKING:
    from sweepkit.trackers import Tracker

GATHERING_SECONDS = 2.0
"""Pause between a poke and the delivery: a store takes as long for one number as for a hundred."""
SHARE = 0.02
"""Part of a core that deliveries may take while trials train; after an expensive one the pause is longer."""
LONGEST_GATHERING_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 10.0
"""An unreachable store is tried again after 0.5, 1, 2, … and then every so many seconds."""

SWITCH_SECONDS = 0.0005
"""How long a busy thread keeps others waiting; Python's default is 5 ms, for which each answer to a trial would wait."""

_TURN = threading.Lock()
"""A study's search and its confirmation have a courier each; their trackers write to one store, one at a time."""


class Courier:
    """Delivers in the background. ``warn`` gets one line when the store becomes unreachable and one when it is back."""

    def __init__(self, tracker: Tracker, *, warn: Callable[[str], None]) -> None:
        self._tracker = tracker
        self._warn = warn
        self._work: deque[Callable[[], None]] = deque()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._hurry = threading.Event()
        """Ends the pause before a delivery early."""
        self._answer: Mapping[str, Any] | None = None
        self._opened = False
        self._delivered = False
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name="sweepkit-courier", daemon=True)

    def open(self) -> None:
        """Start delivering; returns at once."""
        self._thread.start()
        self._wake.set()

    def poke(self) -> None:
        """Announce that there may be something to deliver."""
        self._wake.set()

    def keep(self, number: int) -> None:
        """Request that a trial's ``best/`` becomes a model of the store."""
        self._work.append(partial(self._tracker.keep, number))
        self._wake.set()

    def drop(self, number: int, *, soon: bool = False) -> None:
        """Request that a trial's model is deleted; ``soon`` where its room on the disk is needed."""
        self._work.append(partial(self._tracker.drop, number))
        self._wake.set()
        if soon:
            self._hurry.set()

    def close(self, answer: Mapping[str, Any] | None = None, *, timeout_seconds: float = 60.0) -> str:
        """Deliver the rest, trying once more; return a sentence about what is undelivered, empty if nothing is.

        ``answer`` ends the study's own run; None leaves it open. A store that does not answer in time is abandoned.
        """
        self._answer = answer
        for event in (self._stop, self._wake, self._hurry):
            event.set()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)
        if self._delivered:
            return ""
        trouble = self._trouble or f"no answer within {timeout_seconds:g} s"
        behind = self._tracker.behind()
        what = f"{behind} trial(s) are" if behind else "the end of the study is"
        return f"tracking: {what} not delivered yet ({trouble}); `sweep sync` delivers the rest"

    def _run(self) -> None:
        pause, spent = 0.0, 0.0
        while not self._stop.is_set():
            if pause:
                self._stop.wait(pause)
            else:
                self._wake.wait()
                self._stop.wait(GATHERING_SECONDS)
                self._hurry.wait(min(spent / SHARE, LONGEST_GATHERING_SECONDS) - GATHERING_SECONDS)
            if self._stop.is_set():
                break
            self._wake.clear()
            self._hurry.clear()
            began = time.thread_time()
            pause = 0.0 if self._try(self._deliver) else min(max(2 * pause, 0.5), LONGEST_PAUSE_SECONDS)
            spent = time.thread_time() - began
        self._delivered = self._try(self._finish)

    def _deliver(self) -> None:
        if not self._opened:
            if not self._work and self._tracker.delivered(None):
                return
            self._tracker.open()
            self._opened = True
            if self._tracker.note:
                self._warn(f"tracking: {self._tracker.note}")
        self._tracker.sync()
        while self._work:
            self._work[0]()
            self._work.popleft()

    def _finish(self) -> None:
        if not self._opened and not self._work and self._tracker.delivered(self._answer):
            return
        self._deliver()
        if self._answer is not None:
            self._tracker.close(self._answer)

    def _try(self, action: Callable[[], None]) -> bool:
        try:
            with _TURN:
                action()
        except Exception as error:  # noqa: BLE001  # an edge: whatever a store raises, the study goes on
            first = not self._trouble
            self._trouble = summary(error)
            if first and not self._stop.is_set():
                self._warn(f"tracking: {self._trouble}; training continues, and the rest is delivered later")
            return False
        if self._trouble and not self._stop.is_set():
            self._warn("tracking: delivering again")
        self._trouble = ""
        return True


@contextmanager
def prompt() -> Iterator[None]:
    """Switch threads more often, so that answers to trials do not wait for a busy courier."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def answering(tracker: Tracker, what: str, *, did: str = "take") -> Iterator[None]:
    """Raise StudyFailed, saying what was not delivered or read and why, for whatever the tracker's store raises."""
    try:
        yield
    except SweepError:
        raise
    except Exception as error:
        raise StudyFailed(f"{tracker.name} did not {did} {what}: {summary(error)}") from error


def summary(error: Exception) -> str:
    """Return an error's type and first line, without secrets; of a request that failed, why."""
    text, failed, _ = first_line(error).partition(" failed with exception")
    root: BaseException = error
    while failed and (inner := root.__cause__ or root.__context__):
        root = inner
    why = f": {first_line(getattr(root, 'strerror', None) or root).lower()}" if failed else ""
    return f"{type(error).__name__}: {text.partition(' Response body')[0][:200]}{failed and ' failed'}{why}"
