"""The driver's side of the trials: a warm process, one child per rank of a trial, their slots, deadlines and ends."""

from __future__ import annotations

import json
import math
import os
import selectors
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sweepkit.backends.local.warm import PEACEFUL, START_SECONDS, Child, WarmProcess, lost
from sweepkit.backends.slots import Slot, fit
from sweepkit.study.errors import StudyFailed
from sweepkit.study.files import write_whole
from sweepkit.study.gpus import gpu_order, gpus_here, look
from sweepkit.study.paths import CONSOLE, SPEC, rank_name
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Event, Finished, from_json
from sweepkit.trial.trial import Ending, Reason, TrialSpec

LINGER_SECONDS = 5.0
"""How long the other ranks may take to exit after one exited or failed.

They are not killed at once: a rank that saw its connections close may report it before the exit of the one that died arrives.
"""


class Executor:
    """Runs trials on the slots in ``free``. Use as a context manager; leaving it ends whatever still runs.

    ``log`` gets the output of the warm process.
    """

    def __init__(self, study: StudyData, slots: Sequence[Slot] = (), *, log: Path | None = None) -> None:
        self._study = study
        self.free = list(slots)
        self.room: Mapping[str, float] = {}
        """GPU → megabytes that its trials may share, where these were planned by what they need."""
        self._log = log or study.place.warm_log
        self._seconds = (study.budget.trial_hours or math.inf) * 3600
        self._running: dict[int, _Running] = {}
        self._children: dict[int, Child] = {}
        self._spare: list[Child] = []
        self._selector = selectors.DefaultSelector()
        self._next_id = 0
        self._ready: dict[str, Any] | None = None

    def __enter__(self) -> Executor:
        self._warm = WarmProcess(self._study, self._log)
        for source in (self._warm, self._warm.console):
            self._selector.register(source, selectors.EVENT_READ)
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        self._warm.close()
        for child in self._children.values():
            child.sock.close()
            if child not in self._spare:
                child.kill()  # and what it started, where the warm process died before it could do this

    @property
    def running(self) -> list[int]:
        """Numbers of the trials that run."""
        return list(self._running)

    @property
    def warm_pid(self) -> int:
        """Process id of the warm process."""
        self.wait_ready()
        assert self._ready is not None
        return int(self._ready["pid"])

    def wait_ready(self) -> float:
        """Wait until the warm process has imported everything; return the seconds it took.

        Raises StudyFailed when it died, or when the task's own code cannot be imported.
        """
        end = time.monotonic() + START_SECONDS
        while self._ready is None:
            if time.monotonic() > end:
                raise StudyFailed(f"the warm process was not ready after {START_SECONDS:.0f} s (log: {self._log})")
            self._turn(0.5)
        if self._ready["failure"]:
            raise StudyFailed(f"the task cannot be loaded: {self._ready['failure']} (log: {self._log})")
        return float(self._ready["ready"])

    def job(self, job: str, *, console: Path, **request: Any) -> dict[str, Any]:
        """Run a job (``prepare``, ``inspect``) in a child of its own and return its answer.

        Raises StudyFailed when the child ends without one.
        """
        self.wait_ready()
        # As many as cores, where each counts twice: a thread too many spins while it waits.
        threads = max(1, (os.cpu_count() or 1) // 2)
        environment = {"CUDA_VISIBLE_DEVICES": ",".join(self._devices), **gpu_order()}
        base = {"job": job, "console": str(console), "threads": threads, "environment": environment}
        child = self._do({**base, **request})
        while child.exit is None:
            self._turn(1.0)
        self._forget(child)
        if child.answer is None:
            raise StudyFailed(f"{job} ended with {lost(-1, child, 0.0).cause} (log: {console})")
        return child.answer

    @cached_property
    def _devices(self) -> Sequence[str]:
        """GPUs of a job: as many as a process of a trial gets, those with most memory free."""
        backend, gpus = self._study.resources, gpus_here()
        known = look(gpus) if gpus else {}
        gpus = tuple(sorted(gpus, key=lambda gpu: -known[gpu].free_mb if gpu in known else 0.0))
        return gpus[: math.ceil(backend.gpus(found=bool(gpus)) / backend.ranks_per_trial)]

    def preload(self, modules: list[str]) -> None:
        """Let the warm process import modules that a child turned out to need."""
        self._warm.request({"import": modules})
        for child in self._spare:  # forked before the imports
            self._forget(child)
        self._spare = []

    def start(self, spec: TrialSpec, *, job: str = "trial", **request: Any) -> None:
        """Start a trial on the next free slot: one process per rank. ``job`` is what each does, with this ``request``."""
        slot = self.free.pop(0)
        folder = Path(spec.directory)
        folder.mkdir(parents=True, exist_ok=True)
        slots = [slot, *self.free, *(other.slot for other in self._running.values())]
        gpus = sum(1 / sum(device in other.devices for other in slots) for device in slot.devices)
        spec = replace(spec, devices=slot.devices, gpus=gpus, threads=slot.threads, ranks=slot.ranks)
        running = self._running[spec.number] = _Running(spec.number, slot, time.monotonic())
        running.deadline = running.began + self._seconds
        sharing = [other for other in self._running.values() if {*other.slot.devices} & {*slot.devices}]
        for other in sharing:
            other.neighbours = max(other.neighbours, len(sharing) - 1)
        port = _free_port() if slot.ranks > 1 else 0
        for rank in range(slot.ranks):
            path = folder / rank_name(SPEC, rank)
            write_whole(path, replace(spec, rank=rank).to_json(), durable=False)  # the storage has it, too
            files = {"spec": str(path), "console": str(folder / rank_name(CONSOLE, rank))}
            environment = slot.environment(rank, port)
            child = self._do({**request, "job": job, **files, "threads": slot.threads, "environment": environment})
            child.trial = spec.number
            running.ranks.append(child)
        while len(self._spare) < slot.ranks:  # the next trial finds its processes forked
            self._spare.append(self._fork())

    def answer(self, trial: int, word: str) -> None:
        """Send ``continue``, ``prune`` or ``stop`` to a trial: the answer to its evaluation, or an interruption.

        Rank 0 receives it and passes it on, so that all ranks act on it at the same step.
        """
        if running := self._running.get(trial):
            running.ranks[0].send(word)

    def kill(self, trial: int, reason: Reason, cause: str) -> None:
        """End a trial at once, all its ranks and everything they started."""
        if running := self._running.get(trial):
            running.killed = running.killed or (reason, cause)
            running.deadline = math.inf
            running.end()

    def poll(self, timeout: float) -> list[Event]:
        """Return the events that trials sent within ``timeout`` seconds; each started trial ends with exactly one Finished."""
        due = min((min(running.deadline, running.linger_until) for running in self._running.values()), default=math.inf)
        events = self._turn(max(0.0, min(timeout, due + 0.01 - time.monotonic())))
        now = time.monotonic()
        for running in list(self._running.values()):
            if now > running.deadline:
                cause = f"deadline: ran longer than {self._seconds:g} s"
                self.kill(running.number, Reason.deadline, cause)
            if now > running.linger_until:
                running.end()
        return events

    def _do(self, request: dict[str, Any]) -> Child:
        """Let a child do a job: one that was forked ahead, else a new one."""
        child = next((child for child in self._spare if child.open), None) or self._fork()
        if child in self._spare:
            self._spare.remove(child)
        if (console := Path(request["console"])).is_symlink():
            console.unlink()
        child.send(json.dumps(request))
        return child

    def _fork(self) -> Child:
        ours, theirs = socket.socketpair()
        self._next_id += 1
        child = self._children[self._next_id] = Child(self._next_id, ours)
        self._warm.request({"fork": child.id}, theirs)
        theirs.close()
        self._selector.register(ours, selectors.EVENT_READ, child)
        return child

    def _forget(self, child: Child) -> None:
        self._children.pop(child.id, None)
        if child.open:
            self._selector.unregister(child.sock)
        child.open = False
        child.sock.close()

    def _turn(self, timeout: float) -> list[Event]:
        """Wait once for anything; return the events in order."""
        events: list[Event] = []
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._warm.console:
                if not self._warm.console.read():
                    self._selector.unregister(key.fileobj)
            elif key.data is None:
                for message in self._warm.messages():
                    events += self._on_message(message)
            elif key.data.open:
                events += self._read(key.data)
        for running in list(self._running.values()):
            if running.over:
                events.append(self._finish(running))
            elif running.broken:
                running.linger_until = min(running.linger_until, time.monotonic() + LINGER_SECONDS)
        return events

    def _on_message(self, message: dict[str, Any]) -> list[Event]:
        if "ready" in message:
            self._ready = message
        child = self._children.get(message.get("forked", message.get("exited", 0)))
        if child and "forked" in message:
            child.pid = message["pid"]
            if child.killed:
                child.kill()
        elif child:
            child.exit = message
            if child in self._spare:
                self._spare.remove(child)
                self._forget(child)
            elif child.open:
                return self._read(child)
        return []

    def _read(self, child: Child) -> list[Event]:
        lines = child.receive()
        if not child.open:
            self._selector.unregister(child.sock)
        events: list[Event] = []
        for line in lines:
            try:
                if child.trial is None:
                    child.answer = dict(json.loads(line))
                else:
                    events.append(from_json(line, trial=child.trial))
            except (ValueError, KeyError, TypeError):
                self._refuse(child, line)
                break
        child.finished = next((event for event in events if isinstance(event, Finished)), child.finished)
        return [event for event in events if not isinstance(event, Finished)]

    def _refuse(self, child: Child, line: bytes) -> None:
        """End a child whose code wrote something other than messages to its socket."""
        cause = f"wrote bytes that are not a message to sweepkit's socket: {line[:80]!r}"
        if child.trial is not None:
            self.kill(child.trial, Reason.crash, cause)
        else:
            child.answer = {"error": cause}
            child.kill()

    def _finish(self, running: _Running) -> Finished:
        for child in running.ranks:
            self._forget(child)
        del self._running[running.number]
        ended = replace(running.verdict(time.monotonic() - running.began), neighbours=running.neighbours)
        here, slots = {*running.slot.devices}, [*self.free, *(other.slot for other in self._running.values())]
        others = sum(bool(here & {*slot.devices}) for slot in slots)
        fits = min((fit(self.room[gpu], ended.peak_memory_mb) for gpu in here & self.room.keys()), default=math.inf)
        crowded = others >= fits or (ended.ending == Ending.infeasible and running.neighbours > 0)
        if not (others and crowded):
            self.free.append(running.slot)  # else one trial fewer runs there from now on
        return ended


@dataclass(eq=False)
class _Running:
    """A running trial: its slot, its processes by rank, and why the driver ended it, if it did."""

    number: int
    slot: Slot
    began: float
    deadline: float = math.inf
    linger_until: float = math.inf
    """When the remaining ranks are killed; finite once a rank has exited or failed."""
    ranks: list[Child] = field(default_factory=list)
    neighbours: int = 0
    """Other trials on its GPU at a time, the most there were until now."""
    killed: tuple[Reason, str] | None = None
    """Reason and cause when the driver ended it (deadline, interruption)."""

    @property
    def over(self) -> bool:
        return all(child.exit for child in self.ranks)

    @property
    def broken(self) -> bool:
        """Whether a rank has exited or failed, so that the others cannot continue."""
        return any(child.exit or child.failed for child in self.ranks)

    def end(self) -> None:
        for child in self.ranks:
            child.killed = child.killed or child.exit is None
            child.kill()

    def verdict(self, seconds: float) -> Finished:
        """Return how the trial ended, once every rank has exited.

        The cause comes from the rank that failed first: one that died without a report (unless the others made it abort),
        else the first that reported a failure. The remaining ranks only saw their connections close.
        """
        died = [child for child in self.ranks if child.finished is None]
        reports = [(rank, child.finished) for rank, child in enumerate(self.ranks) if child.finished]
        failures = sorted((r for r in reports if r[1].ending not in PEACEFUL), key=lambda report: report[1].at)
        if self.killed and died:
            reason, cause = self.killed
            return replace(lost(self.number, died[0], seconds), ending=Ending.failed, reason=reason, cause=cause)
        first = [c for c in died if not c.killed and not (failures and c.status == -signal.SIGABRT)]
        if first:
            child = min(first, key=lambda each: each.exit["at"] if each.exit else 0.0)
            rank, finished = self.ranks.index(child), lost(self.number, child, seconds)
        else:
            rank, finished = (failures or reports)[0]
        return replace(finished, cause=f"rank {rank}: {finished.cause}") if rank and finished.cause else finished


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
