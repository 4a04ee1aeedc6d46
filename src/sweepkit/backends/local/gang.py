"""One running trial as its driver sees it: a process per rank, what each of them said, and what that makes of the trial.

Knows no socket's content, no clock and nobody who starts or ends processes.
"""

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
"""Endings that all ranks come to together; any other is one rank's own, and the rest has to be ended."""


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
    """Whether its driver ended it."""

    @property
    def gone(self) -> bool:
        """Whether nothing will come from it any more."""
        return not self.open and self.exit is not None

    @property
    def status(self) -> int:
        """Its exit code, or minus the signal that ended it."""
        return int(self.exit["status"]) if self.exit else 0

    @property
    def broken(self) -> bool:
        """Whether it ended, or said that it ends, in a way that the other ranks know nothing of."""
        if self.finished is not None:
            return self.finished.ending not in PEACEFUL
        return self.gone


@dataclass(eq=False)
class Running:
    """One trial that runs: its processes (one per rank), its slot, and why its driver ended it, if it did."""

    spec: TrialSpec
    slot: Slot
    began: float
    processes: list[Process] = field(default_factory=list)
    killed: tuple[Reason, str] | None = None
    """Why its driver ended it (deadline, interruption), and that in words; None when it ended by itself."""
    breaking_since: float | None = None
    """When the first rank was gone or said that it fails; the others have to follow."""

    @property
    def over(self) -> bool:
        """Whether every rank is gone."""
        return all(process.gone for process in self.processes)

    @property
    def breaking(self) -> bool:
        """Whether some rank is gone or fails, so that the others cannot go on."""
        return any(process.gone or process.broken for process in self.processes)

    def verdict(self, seconds: float) -> Finished:
        """Return how the trial ended, once every rank is gone.

        The rank where it began gives the cause: one that died without a word (unless the others made it abort), else the
        first that said something was wrong; the others only saw their connections close.
        """
        said = sorted((p for p in self.processes if p.finished and p.broken), key=lambda p: _at(p.finished))
        died = [process for process in self.processes if process.finished is None]
        if self.killed and died:
            reason, cause = self.killed
            return replace(lost(self.spec.number, died[0].status, False, seconds), reason=reason, cause=cause)
        first = [p for p in died if not p.killed and not (said and p.status == -signal.SIGABRT)]
        if first:
            process = min(first, key=lambda p: p.exit["at"] if p.exit else 0.0)
            oom_killed = bool(process.exit and process.exit["oom_killed"])
            return self._of(process, lost(self.spec.number, process.status, oom_killed, seconds))
        told = said or [process for process in self.processes if process.finished]
        if told and told[0].finished:
            return self._of(told[0], told[0].finished)
        return lost(self.spec.number, died[0].status, False, seconds)

    def _of(self, process: Process, finished: Finished) -> Finished:
        if process.rank == 0 or not finished.cause:
            return finished
        return replace(finished, cause=f"rank {process.rank}: {finished.cause}")


def _at(finished: Finished | None) -> float:
    return finished.at if finished else 0.0
