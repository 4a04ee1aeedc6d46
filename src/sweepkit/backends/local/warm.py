"""The driver's handle on a warm process: starts it, asks it for children, knows when it died. Knows no rules."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweepkit.study.errors import StudyFailed
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Finished
from sweepkit.trial.trial import Ending, Reason

START_SECONDS = 180.0
"""How long the warm process may take to import everything."""


class WarmProcess:
    """A process that imported torch, transformers and the task once and forks children on request."""

    def __init__(self, study: StudyData, log: Path) -> None:
        self._control, theirs = socket.socketpair()
        environment = {
            **os.environ,
            # What the driver can import (a script's own folder), its trials can import.
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pyarrow's; one thread only may be there when forking
            "HF_HUB_DISABLE_TELEMETRY": os.environ.get("HF_HUB_DISABLE_TELEMETRY", "1"),
        }
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as console:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"from sweepkit.trial.worker import serve; serve({theirs.fileno()})"],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                env=environment,
            )
        theirs.close()
        self.log = log
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
            raise self.died() from error

    def messages(self) -> list[dict[str, Any]]:
        """Return what came up; called when the control socket is readable. Raises StudyFailed when it died."""
        try:
            data = self._control.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            raise self.died()
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def died(self) -> StudyFailed:
        """Return the error that says how the warm process ended and where its log is."""
        status = self.process.wait(timeout=30)
        tail = self.log.read_text(errors="replace").strip().splitlines()[-1:] if self.log.exists() else []
        return StudyFailed(f"the warm process ended with status {status}: {' '.join(tail)} (log: {self.log})")

    def close(self) -> None:
        """End it and, with it, all its children; returns when it is gone."""
        self._control.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def kill_group(pid: int) -> None:
    """SIGKILL a child and everything it started."""
    for kill in (os.killpg, os.kill):  # forked a moment ago, it may not yet lead its own group
        try:
            kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        return


def lost(trial: int, status: int, oom_killed: bool, seconds: float) -> Finished:
    """Return the Finished of a trial whose process ended without reporting one, from its exit status."""
    ending, reason, cause = Ending.failed, Reason.exit, f"exit code {status}"
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = "unknown"
        reason, cause = Reason.signal, f"signal {-status} ({name})"
    if oom_killed:
        ending, reason, cause = Ending.infeasible, Reason.out_of_memory, "out of memory: killed by the kernel"
    return Finished(trial=trial, at=time.time(), ending=ending, reason=reason, cause=cause, seconds=seconds)
