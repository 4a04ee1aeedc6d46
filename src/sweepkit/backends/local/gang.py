"""The driver's record of one running trial: a process per rank, what each reported, and how the trial ended."""

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
"""Endings that all ranks reach together. Any other belongs to one rank, and the others have to be ended."""


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
    """Whether the driver ended it."""

    @property
    def gone(self) -> bool:
        """Whether the process has exited and everything it sent was read."""
        return not self.open and self.exit is not None

    @property
    def status(self) -> int:
        """Its exit code, or minus the signal that ended it."""
        return int(self.exit["status"]) if self.exit else 0

    @property
    def broken(self) -> bool:
        """Whether it ended, or reported an ending, that the other ranks do not share."""
        if self.finished is not None:
            return self.finished.ending not in PEACEFUL
        return self.gone


@dataclass(eq=False)
class Running:
    """A running trial: its processes (one per rank), its slot, and why the driver ended it, if it did."""

    spec: TrialSpec
    slot: Slot
    began: float
    processes: list[Process] = field(default_factory=list)
    killed: tuple[Reason, str] | None = None
    """Reason and cause when the driver ended it (deadline, interruption); None when it ended by itself."""
    breaking_since: float | None = None
    """When the first rank exited or reported a failure; the others have to be ended."""

    @property
    def over(self) -> bool:
        """Whether every rank has exited."""
        return all(process.gone for process in self.processes)

    @property
    def breaking(self) -> bool:
        """Whether a rank has exited or failed, so that the others cannot continue."""
        return any(process.gone or process.broken for process in self.processes)

    def verdict(self, seconds: float) -> Finished:
        """Return how the trial ended, once every rank has exited.

        The cause comes from the rank that failed first: one that died without a report (unless the others made it abort),
        else the first that reported a failure. The remaining ranks only saw their connections close.
        """
        failed = sorted((p for p in self.processes if p.finished and p.broken), key=lambda p: _at(p.finished))
        died = [process for process in self.processes if process.finished is None]
        if self.killed and died:
            reason, cause = self.killed
            return replace(lost(self.spec.number, died[0].status, False, seconds), reason=reason, cause=cause)
        first = [p for p in died if not p.killed and not (failed and p.status == -signal.SIGABRT)]
        if first:
            process = min(first, key=lambda p: p.exit["at"] if p.exit else 0.0)
            oom_killed = bool(process.exit and process.exit["oom_killed"])
            return self._of(process, lost(self.spec.number, process.status, oom_killed, seconds))
        reported = failed or [process for process in self.processes if process.finished]
        if reported and reported[0].finished:
            return self._of(reported[0], reported[0].finished)
        return lost(self.spec.number, died[0].status, False, seconds)

    def _of(self, process: Process, finished: Finished) -> Finished:
        if process.rank == 0 or not finished.cause:
            return finished
        return replace(finished, cause=f"rank {process.rank}: {finished.cause}")


def _at(finished: Finished | None) -> float:
    return finished.at if finished else 0.0
