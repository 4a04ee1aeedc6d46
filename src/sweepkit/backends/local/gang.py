"""A running trial as its driver sees it: a process per rank, and how their exits decide the trial's ending."""

from __future__ import annotations

import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sweepkit.backends.local.warm import lost
from sweepkit.backends.slots import Slot
from sweepkit.trial.events import Finished
from sweepkit.trial.trial import Ending, Reason, TrialSpec

PEACEFUL = (Ending.complete, Ending.pruned, Ending.stopped)
"""Endings that all ranks reach together. Any other belongs to one rank, and the rest must be killed."""


@dataclass(eq=False)
class Process:
    """One child of the warm process: a trial's rank, or a job that answers with one line."""

    id: int
    sock: socket.socket
    trial: int | None = None
    rank: int = 0
    pid: int | None = None
    received: bytes = b""
    open: bool = True
    exit: Mapping[str, Any] | None = None
    answer: dict[str, Any] | None = None
    finished: Finished | None = None
    killed: bool = False
    """Whether its driver killed it."""

    @property
    def gone(self) -> bool:
        """Whether it exited and all it sent is read."""
        return not self.open and self.exit is not None

    @property
    def status(self) -> int:
        """Its exit code, or minus the signal that killed it."""
        return int(self.exit["status"]) if self.exit else 0

    @property
    def broken(self) -> bool:
        """Whether it exited, or reported an ending, that the other ranks do not share."""
        if self.finished is not None:
            return self.finished.ending not in PEACEFUL
        return self.gone


@dataclass(eq=False)
class Running:
    """A running trial: its processes (one per rank) and its slot."""

    spec: TrialSpec
    slot: Slot
    began: float
    processes: list[Process] = field(default_factory=list)
    killed: tuple[Reason, str] | None = None
    """Why its driver killed it (deadline, interruption) and the message; None if it did not."""
    breaking_since: float | None = None
    """When the first rank exited or failed; the others must follow."""

    @property
    def over(self) -> bool:
        """Whether every rank exited."""
        return all(process.gone for process in self.processes)

    @property
    def breaking(self) -> bool:
        """Whether some rank exited or failed, so that the others cannot continue."""
        return any(process.gone or process.broken for process in self.processes)

    def verdict(self, seconds: float) -> Finished:
        """Return how the trial ended, once every rank exited.

        The cause is that of the first rank to fail: one that died without a report (unless it aborted because of others),
        else the first that reported a failure; the others only saw their connections close.
        """
        reported = sorted((p for p in self.processes if p.finished and p.broken), key=lambda p: _at(p.finished))
        died = [process for process in self.processes if process.finished is None]
        if self.killed and died:
            reason, cause = self.killed
            return replace(lost(self.spec.number, died[0].status, False, seconds), reason=reason, cause=cause)
        first = [p for p in died if not p.killed and not (reported and p.status == -signal.SIGABRT)]
        if first:
            process = min(first, key=lambda p: p.exit["at"] if p.exit else 0.0)
            oom_killed = bool(process.exit and process.exit["oom_killed"])
            return self._of(process, lost(self.spec.number, process.status, oom_killed, seconds))
        ends = reported or [process for process in self.processes if process.finished]
        if ends and ends[0].finished:
            return self._of(ends[0], ends[0].finished)
        return lost(self.spec.number, died[0].status, False, seconds)

    def _of(self, process: Process, finished: Finished) -> Finished:
        if process.rank == 0 or not finished.cause:
            return finished
        return replace(finished, cause=f"rank {process.rank}: {finished.cause}")


def _at(finished: Finished | None) -> float:
    return finished.at if finished else 0.0
