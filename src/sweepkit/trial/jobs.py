"""What a forked child does: train a trial, prepare data or inspect a study; each says its answer on its own socket."""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sweepkit.study.errors import SweepError
from sweepkit.study.paths import ABOUT
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Event, Logged
from sweepkit.trial.trial import TrialSpec


def told(sock: socket.socket) -> dict[str, Any]:
    """Wait for the line that says what to do, and leave what follows it to the job; end where none comes."""
    while True:
        data = sock.recv(1 << 20, socket.MSG_PEEK)
        if not data:
            os._exit(0)
        line, newline, _ = data.partition(b"\n")
        if newline:
            sock.recv(len(line) + 1)
            request: dict[str, Any] = json.loads(line)
            return request


GATHERING_SECONDS = 0.1
"""What is logged within so many seconds goes up together: a step of milliseconds is not to pay for its driver's waking."""


class SocketLine:
    """A trial's line to its driver over a socket: events go up as JSON lines, words come down as lines.

    All events but Logged go up at once, and with them what was logged before; so does what is logged now and then.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._gathered = b""
        self._sent = 0.0
        self._received = b""
        self._words: list[str] = []

    def say(self, event: Event) -> None:
        """Send an event, or gather it."""
        self._gathered += event.to_json().encode() + b"\n"
        self._send(wait=isinstance(event, Logged))

    def ask(self, event: Evaluated) -> str:
        """Send an evaluation and wait for the answer."""
        self.say(event)
        while True:
            if self._words:
                return self._words.pop(0)
            self._receive()

    def heard(self) -> str | None:
        """Return a word that came down meanwhile, without waiting."""
        self._send(wait=True)
        while not self._words and select.select([self._sock], [], [], 0)[0]:
            self._receive()
        return self._words.pop(0) if self._words else None

    def _send(self, *, wait: bool) -> None:
        now = time.monotonic()
        if self._gathered and not (wait and now - self._sent < GATHERING_SECONDS):
            self._sock.sendall(self._gathered)
            self._gathered, self._sent = b"", now

    def _receive(self) -> None:
        data = self._sock.recv(4096)
        if not data:
            os._exit(1)  # the driver is gone; the warm process is about to end this child anyway
        *lines, self._received = (self._received + data).split(b"\n")
        self._words.extend(line.decode() for line in lines)


def _trial(study: StudyData, request: Mapping[str, Any], sock: socket.socket) -> int:
    from sweepkit.trial.objective import run_trial

    spec = TrialSpec.from_json(Path(request["spec"]).read_text())
    line = SocketLine(sock)
    line.say(run_trial(study, spec, line))
    sock.close()
    return 0


def _measure(study: StudyData, request: Mapping[str, Any], sock: socket.socket) -> int:
    """Train the first steps of a trial, on a slot and with a trial's words; what was measured is left in its folder."""
    from sweepkit.trial.measure import measure

    spec = TrialSpec.from_json(Path(request["spec"]).read_text())
    line = SocketLine(sock)
    line.say(measure(study, spec, line, worst=request["worst"]))
    sock.close()
    return 0


def _prepare(study: StudyData, request: Mapping[str, Any], sock: socket.socket) -> int:
    """Prepare the data once, then leave; the answer is one JSON line: ``about`` or ``error``."""
    from sweepkit.tasks.load import load_task
    from sweepkit.tasks.prepared import prepare

    try:
        task = load_task(study.task, study.home, request.get("options", {}), trust_remote_code=study.trust_remote_code)
        folder = prepare(task, study.place.data)
        answer: dict[str, Any] = {"folder": str(folder), "about": json.loads((folder / ABOUT).read_text())}
    except Exception as error:  # noqa: BLE001  # an edge: whatever a task raises becomes an answer
        traceback.print_exc()
        answer = {"error": str(error) if isinstance(error, SweepError) else f"{type(error).__name__}: {error}"}
    sock.sendall(json.dumps(answer).encode() + b"\n")
    return 0


def _inspect(study: StudyData, request: Mapping[str, Any], sock: socket.socket) -> int:
    """Second stage of check: build what trial 0 would build, evaluate a few rows, and say what it needs."""
    from sweepkit.trial.inspect import inspect

    before = set(sys.modules)
    found = inspect(study, TrialSpec.from_json(Path(request["spec"]).read_text()))
    answer = {**asdict(found), "imported": sorted(set(sys.modules) - before)}
    sock.sendall(json.dumps(answer).encode() + b"\n")
    return 0


def _test(study: StudyData, request: Mapping[str, Any], sock: socket.socket) -> int:
    """Evaluate a checkpoint on the test split; the answer is one JSON line: the metrics or ``error``."""
    from sweepkit.trial.objective import evaluate_on_test

    try:
        answer = evaluate_on_test(study, TrialSpec.from_json(Path(request["spec"]).read_text()), request["model"])
    except Exception as error:  # noqa: BLE001  # an edge: whatever a task raises becomes an answer
        traceback.print_exc()
        answer = {"error": str(error) if isinstance(error, SweepError) else f"{type(error).__name__}: {error}"}
    sock.sendall(json.dumps(answer).encode() + b"\n")
    return 0


JOBS = {"trial": _trial, "measure": _measure, "prepare": _prepare, "inspect": _inspect, "test": _test}
