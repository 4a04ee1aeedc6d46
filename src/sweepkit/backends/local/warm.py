"""The driver's handles on a warm process, which it starts and asks for children, and on these children."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweepkit.study.errors import StudyFailed
from sweepkit.study.files import last_line
from sweepkit.study.study import StudyData
from sweepkit.trial.console import Console
from sweepkit.trial.events import Finished
from sweepkit.trial.trial import Ending, Reason

START_SECONDS = 180.0
"""How long the warm process may take to import everything."""

LONGEST_MESSAGE = 16 << 20
"""Longest line that a child may send, in bytes; it is stopped where it sends more."""

MARK = "SWEEPKIT_WARM"
"""Environment variable that all a warm process started has: its driver's process id, a token and the study's folder."""

PEACEFUL = (Ending.complete, Ending.pruned, Ending.stopped)
"""Endings that all ranks of a trial reach together; after any other, the remaining ranks have to be killed."""


class WarmProcess:
    """A process that imported torch, transformers and the task once and forks children on request."""

    def __init__(self, study: StudyData, log: Path) -> None:
        self._folder = str(study.place.folder)
        self._token = uuid.uuid4().hex
        self._end_left()
        self._control, theirs = socket.socketpair()
        environment = {
            **os.environ,
            # What the driver can import (a script's own folder), its trials can import.
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            MARK: f"{os.getpid()} {self._token} {self._folder}",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            # Libraries ask for a GPU when imported. The other check starts CUDA, which then fails in forked children.
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
            "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pyarrow's; one thread only may be there when forking
            "HF_HUB_DISABLE_TELEMETRY": os.environ.get("HF_HUB_DISABLE_TELEMETRY", "1"),
        }
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log, self.console = log, Console(log)
        self.process = start_process(theirs.fileno(), self.console.writing, environment)
        theirs.close()
        os.close(self.console.writing)
        self._buffer = b""
        study_text = study.model_dump_json(by_alias=True, exclude_none=True)
        hello = {"study": study_text, "home": str(study.home), "driver": os.getpid()}
        self._control.sendall(json.dumps(hello).encode() + b"\n")

    def fileno(self) -> int:
        """The control socket, for a selector."""
        return self._control.fileno()

    def request(self, message: Mapping[str, Any], sock: socket.socket | None = None) -> None:
        """Send one request, with the child's end of its socket where it forks."""
        data = json.dumps(message).encode() + b"\n"
        try:
            if sock is None:
                self._control.sendall(data)
            else:
                socket.send_fds(self._control, [data], [sock.fileno()])
        except OSError as error:
            raise self.exit_error() from error

    def messages(self) -> list[dict[str, Any]]:
        """Return what came up; called when the control socket is readable. Raises StudyFailed when it died."""
        data = _read(self._control)
        if not data:
            raise self.exit_error()
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def exit_error(self) -> StudyFailed:
        """Return the error that says how the warm process ended and where its log is."""
        status = self.process.wait(timeout=30)
        self.console.read()
        self._end_left()
        return StudyFailed(f"the warm process ended with status {status}: {last_line(self.log)} (log: {self.log})")

    def close(self) -> None:
        """End it and, with it, all its children; returns when it is gone."""
        self._control.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.console.close()
        if self.process.returncode:
            self._end_left()

    def _end_left(self) -> None:
        """End what a warm process left behind that was killed: this one, or one of this study whose driver is gone, too."""
        import psutil

        def left() -> list[psutil.Process]:
            return [
                p for p in psutil.process_iter(["environ"]) if self._is_left((p.info["environ"] or {}).get(MARK, ""))
            ]

        for _ in range(5):  # what is forked meanwhile is found the next time
            if not (found := left()):
                return
            for process in found:
                with suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(found, timeout=1)

    def _is_left(self, mark: str) -> bool:
        import psutil

        driver, _, of = mark.partition(" ")
        token, _, folder = of.partition(" ")
        return token == self._token or (folder == self._folder and not psutil.pid_exists(int(driver)))


def start_process(control: int, console: int, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a warm process in a session of its own; ``control`` and ``console`` are the descriptors that it uses."""
    return subprocess.Popen(
        [sys.executable, "-c", f"from sweepkit.trial.worker import serve; serve({control})"],
        pass_fds=[control],
        stdin=subprocess.DEVNULL,
        stdout=console,
        stderr=console,
        start_new_session=True,
        env=environment,
    )


@dataclass(eq=False)
class Child:
    """A child of the warm process: one rank of a trial, or a job that answers with one line."""

    id: int
    sock: socket.socket
    trial: int | None = None
    """Its trial; None for a job."""
    pid: int | None = None
    """None until the warm process has forked it."""
    open: bool = True
    """Whether more may arrive from it."""
    exit: Mapping[str, Any] | None = None
    """What the warm process reported of its exit: ``status`` (exit code, or minus the signal), ``oom_killed`` and ``at``."""
    answer: dict[str, Any] | None = None
    finished: Finished | None = None
    killed: bool = False
    """Whether the driver killed it."""
    _buffer: bytes = b""

    @property
    def failed(self) -> bool:
        """Whether it reported an ending that the other ranks do not share."""
        return self.finished is not None and self.finished.ending not in PEACEFUL

    @property
    def status(self) -> int:
        """Its exit code, or minus the signal that ended it; 0 while it runs."""
        return int(self.exit["status"]) if self.exit else 0

    def send(self, line: str) -> None:
        """Send a line; one that has ended does not get it."""
        with suppress(OSError):
            self.sock.sendall(line.encode() + b"\n")

    def receive(self) -> list[bytes]:
        """Return the complete lines that arrived; ``open`` is False once it has exited or closed its end of the socket."""
        data = _read(self.sock)
        self.open = bool(data) and self.exit is None
        while self.exit and (more := _read(self.sock)):
            data += more
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [*lines, self._buffer] if len(self._buffer) > LONGEST_MESSAGE else lines

    def kill(self) -> None:
        """Send SIGKILL to it and to everything it started, unless it has exited."""
        if self.pid is None or self.exit is not None:
            return
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:  # forked a moment ago, it may not yet lead its own group
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def lost(trial: int, child: Child, seconds: float) -> Finished:
    """Return the Finished of a trial whose process exited without reporting one, from how it exited."""
    ending, reason, cause = Ending.failed, Reason.exit, f"exit code {child.status}"
    if child.status < 0:
        names = {number.value: number.name for number in signal.Signals}
        reason, cause = Reason.signal, f"signal {-child.status} ({names.get(-child.status, 'unknown')})"
    if child.exit and child.exit["oom_killed"]:
        ending, reason, cause = Ending.infeasible, Reason.out_of_memory, "out of memory: killed by the kernel"
    return Finished(trial=trial, at=time.time(), ending=ending, reason=reason, cause=cause, seconds=seconds)


def _read(sock: socket.socket) -> bytes:
    """Return what arrived; empty at the end, or where nothing has arrived."""
    with suppress(ConnectionError, BlockingIOError):
        return sock.recv(1 << 20, socket.MSG_DONTWAIT)
    return b""
