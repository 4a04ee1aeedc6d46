"""The driver's side of the trials: one warm process, a child per trial, their slots, deadlines and ends.

Knows processes and sockets, nothing of Optuna, MLflow or torch. The local backend owns one; a Ray actor owns one too.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from sweepkit.backends.local.gang import Process, Running
from sweepkit.backends.local.warm import START_SECONDS, WarmProcess, kill_group, lost
from sweepkit.backends.slots import Slot
from sweepkit.study.errors import StudyFailed
from sweepkit.study.files import write_whole
from sweepkit.study.paths import CONSOLE, SPEC, rank_name
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Event, Finished, from_json
from sweepkit.trial.trial import Reason, TrialSpec

LINGER_SECONDS = 5.0
"""After one rank of a trial is gone or failed, the others have so long to go by themselves.

Not at once: what a rank says that saw its connections close may come before the news of the one that died.
"""


class Executor:
    """Runs trials on slots. Use as a context manager; leaving it ends whatever still runs."""

    def __init__(
        self, study: StudyData, slots: list[Slot], *, log: Path, deadline_seconds: float | None = None
    ) -> None:
        self._study = study
        self.free = list(slots)
        self._log = log
        self._deadline_seconds = deadline_seconds
        self._running: dict[int, Running] = {}
        self._processes: dict[int, Process] = {}
        self._spare: list[Process] = []
        self._selector = selectors.DefaultSelector()
        self._next_id = 0
        self._ready: dict[str, Any] | None = None

    def __enter__(self) -> Executor:
        self._warm = WarmProcess(self._study, self._log)
        self._selector.register(self._warm, selectors.EVENT_READ, self._warm)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._selector.close()
        self._warm.close()
        for process in self._processes.values():
            process.sock.close()
            if process.pid is not None and process.exit is None and process not in self._spare:
                kill_group(process.pid)  # what it started, where the warm process died before it could do this

    @property
    def running(self) -> list[int]:
        """Numbers of the trials that run."""
        return list(self._running)

    @property
    def warm_pid(self) -> int:
        """Process id of the warm process."""
        return self._warm.process.pid

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
        process = self._do({"job": job, "console": str(console), "threads": os.cpu_count() or 1, **request})
        while process.open or process.exit is None:
            self._turn(1.0)
        self._forget(process)
        if process.answer is None:
            end = lost(-1, process.exit["status"], process.exit["oom_killed"], 0.0)
            raise StudyFailed(f"{job} ended with {end.cause} (log: {console})")
        return process.answer

    def preload(self, modules: list[str]) -> None:
        """Let the warm process import modules that a child turned out to need."""
        self._warm.request({"import": modules})
        for process in self._spare:  # forked before the imports
            self._selector.unregister(process.sock)
            self._forget(process)
        self._spare = []

    def start(self, spec: TrialSpec, *, job: str = "trial", **request: Any) -> None:
        """Start a trial on the next free slot: one process per rank. ``job`` is what each does, with this ``request``."""
        slot = self.free.pop(0)
        folder = Path(spec.directory)
        folder.mkdir(parents=True, exist_ok=True)
        spec = replace(spec, devices=slot.devices, threads=slot.threads, ranks=slot.ranks)
        running = Running(spec, slot, time.monotonic())
        self._running[spec.number] = running
        port = _free_port() if slot.ranks > 1 else 0
        for rank in range(slot.ranks):
            path = folder / rank_name(SPEC, rank)
            write_whole(path, replace(spec, rank=rank).to_json())
            asked = {
                **request,
                "job": job,
                "spec": str(path),
                "console": str(folder / rank_name(CONSOLE, rank)),
                "threads": slot.threads,
                "environment": slot.environment(rank, port),
            }
            process = self._do(asked)
            process.trial, process.rank = spec.number, rank
            running.processes.append(process)
        while len(self._spare) < slot.ranks:  # the next trial finds its processes forked
            self._spare.append(self._fork())

    def answer(self, trial: int, word: str) -> None:
        """Answer a trial's evaluation, or tell it something meanwhile: ``continue``, ``prune`` or ``stop``.

        Rank 0 receives it and passes it on, so that all ranks act on it at the same step.
        """
        running = self._running.get(trial)
        if running:
            try:
                running.processes[0].sock.sendall(word.encode() + b"\n")
            except OSError:
                pass  # it ended meanwhile; its exit is on its way

    def kill(self, trial: int, reason: Reason, cause: str) -> None:
        """End a trial at once, all its ranks and everything they started."""
        running = self._running.get(trial)
        if running:
            running.killed = running.killed or (reason, cause)
            self._end(running)

    def _end(self, running: Running) -> None:
        for process in running.processes:
            if process.exit is None:
                process.killed = True
                if process.pid is not None:
                    kill_group(process.pid)

    def poll(self, timeout: float) -> list[Event]:
        """Return the events that trials sent within ``timeout`` seconds; each started trial ends with exactly one Finished."""
        events = self._turn(max(0.0, min(timeout, self._next_deadline() - time.monotonic())))
        now = time.monotonic()
        for running in list(self._running.values()):
            if self._deadline_seconds and now - running.began > self._deadline_seconds and not running.killed:
                cause = f"deadline: ran longer than {self._deadline_seconds:g} s"
                self.kill(running.spec.number, Reason.deadline, cause)
            if running.breaking_since is not None and now - running.breaking_since > LINGER_SECONDS:
                self._end(running)
        return events

    def _next_deadline(self) -> float:
        """Return when a trial has to be looked at, whether or not it says something."""
        times = [r.breaking_since + LINGER_SECONDS for r in self._running.values() if r.breaking_since is not None]
        if self._deadline_seconds:
            times += [
                running.began + self._deadline_seconds for running in self._running.values() if not running.killed
            ]
        return min(times, default=float("inf")) + 0.01

    def _do(self, request: dict[str, Any]) -> Process:
        """Let a process do a job: one that was forked ahead, else a new one."""
        self._spare = [process for process in self._spare if process.open and process.exit is None]
        process = self._spare.pop(0) if self._spare else self._fork()
        try:
            process.sock.sendall(json.dumps(request).encode() + b"\n")
        except OSError:
            pass  # it ended meanwhile; its exit is on its way
        return process

    def _fork(self) -> Process:
        ours, theirs = socket.socketpair()
        self._next_id += 1
        process = Process(self._next_id, ours)
        self._processes[process.id] = process
        self._warm.request({"fork": process.id}, theirs)
        theirs.close()
        self._selector.register(ours, selectors.EVENT_READ, process)
        return process

    def _forget(self, process: Process) -> None:
        self._processes.pop(process.id, None)
        process.sock.close()

    def _turn(self, timeout: float) -> list[Event]:
        """Wait once for anything; return the events in order."""
        events: list[Event] = []
        for key, _ in self._selector.select(timeout):
            if key.data is self._warm:
                for message in self._warm.messages():
                    self._from_warm(message)
            else:
                events.extend(self._from_process(key.data))
        for number in list(self._running):
            finished = self._ended(self._running[number])
            if finished:
                events.append(finished)
        return events

    def _from_warm(self, message: Mapping[str, Any]) -> None:
        if "ready" in message:
            self._ready = dict(message)
        process = self._processes.get(message.get("forked", message.get("exited", 0)))
        if process and "forked" in message:
            process.pid = message["pid"]
            if process.killed:
                kill_group(process.pid)
        elif process:
            process.exit = message

    def _from_process(self, process: Process) -> list[Event]:
        try:
            data = process.sock.recv(1 << 20)
        except ConnectionError:
            data = b""
        if not data:
            self._selector.unregister(process.sock)
            process.open = False
            return []
        *lines, process.received = (process.received + data).split(b"\n")
        if process.trial is None:
            process.answer = json.loads(lines[-1]) if lines else process.answer
            return []
        events: list[Event] = []
        for event in map(from_json, lines):
            if isinstance(event, Finished):
                process.finished = event
            else:
                events.append(event)
        return events

    def _ended(self, running: Running) -> Finished | None:
        """Return the trial's Finished once every rank is gone."""
        if not running.over:
            if running.breaking_since is None and running.breaking:
                running.breaking_since = time.monotonic()
            return None
        for process in running.processes:
            self._forget(process)
        del self._running[running.spec.number]
        self.free.append(running.slot)
        return running.verdict(time.monotonic() - running.began)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
