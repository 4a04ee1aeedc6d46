"""The jobs of a forked child: train or measure a trial, prepare data, inspect, test; each answers on its own socket."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sweepkit.study.damage import noting
from sweepkit.study.errors import FOREIGN
from sweepkit.study.files import describe
from sweepkit.study.study import StudyData
from sweepkit.trial.console import print_traceback
from sweepkit.trial.events import Evaluated, Event, Logged
from sweepkit.trial.trial import TrialSpec


def read_request(sock: socket.socket) -> dict[str, Any]:
    """Wait for the line with the request, leaving what follows it to the job; exit where the socket closes."""
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
"""Logged events are sent at most this often: short steps must not wait for the driver to wake up."""


class SocketLine:
    """A trial's line over a socket: events go up as JSON lines, answers come down as lines.

    Logged events are gathered; every other event is sent at once, after those gathered before it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._gathered = b""
        self._sent = 0.0
        self._received = b""
        self._answers: list[str] = []

    def send(self, event: Event) -> None:
        """Send an event, or gather it."""
        self._gathered += event.to_json().encode() + b"\n"
        self._flush(wait=isinstance(event, Logged))

    def ask(self, event: Evaluated) -> str:
        """Send an evaluation and wait for the answer."""
        self.send(event)
        while True:
            if self._answers:
                return self._answers.pop(0)
            self._receive()

    def poll(self) -> str | None:
        """Return an answer that arrived between evaluations, if any, without waiting."""
        self._flush(wait=True)
        with suppress(BlockingIOError):
            while not self._answers:
                self._receive(socket.MSG_DONTWAIT)
        return self._answers.pop(0) if self._answers else None

    def _flush(self, *, wait: bool) -> None:
        now = time.monotonic()
        if self._gathered and not (wait and now - self._sent < GATHERING_SECONDS):
            self._sock.sendall(self._gathered)
            self._gathered, self._sent = b"", now

    def _receive(self, flags: int = 0) -> None:
        data = self._sock.recv(4096, flags)
        if not data:
            os._exit(1)  # the driver is gone; the warm process is about to end this child anyway
        *lines, self._received = (self._received + data).split(b"\n")
        self._answers.extend(line.decode() for line in lines)


def _trial(study: StudyData, request: Mapping[str, Any], sock: socket.socket) -> None:
    from sweepkit.trial.objective import run_trial

    line = SocketLine(sock)
    line.send(run_trial(study, _spec(request), line))
    sock.close()


def _measure(study: StudyData, request: Mapping[str, Any], sock: socket.socket) -> None:
    """Train a trial's first steps on a slot, with the events of a trial; the measurement stays in its folder."""
    from sweepkit.trial.measure import measure

    line = SocketLine(sock)
    line.send(measure(study, _spec(request), line, worst=request["worst"]))
    sock.close()


def _prepare(study: StudyData, request: Mapping[str, Any], sock: socket.socket) -> None:
    """Prepare the data for task ``options``; the JSON line in answer has ``folder``, ``about`` and ``notes``, or ``error``."""
    from sweepkit.tasks.load import task_of
    from sweepkit.tasks.prepared import about, prepare

    def answer() -> dict[str, Any]:
        options = request.get("options", {})
        task = task_of(study, options)
        notes: list[str] = []
        with noting(notes.append):
            folder = prepare(task, study.place.data)
        return {"folder": str(folder), "about": about(folder), "notes": notes}

    _answer(sock, answer)


def _inspect(study: StudyData, request: Mapping[str, Any], sock: socket.socket) -> None:
    """Run the second stage of check; the answer is one JSON line: Inspected, the modules ``imported`` for it, and ``files``."""
    from sweepkit.study.modules import own_files
    from sweepkit.trial.inspect import inspect

    before = set(sys.modules)
    found = inspect(study, _spec(request))
    _answer(sock, lambda: {**asdict(found), "imported": sorted(set(sys.modules) - before), "files": own_files()})


def _test(study: StudyData, request: Mapping[str, Any], sock: socket.socket) -> None:
    """Evaluate a checkpoint on the test split; the answer is one JSON line with ``metrics`` and ``rows``, or ``error``."""
    from sweepkit.trial.objective import evaluate_on_test

    _answer(sock, lambda: evaluate_on_test(study, _spec(request), request["model"]))


def _predict(study: StudyData, request: Mapping[str, Any], sock: socket.socket) -> None:
    """Write a checkpoint's predictions to a file; the answer is one JSON line with ``metrics`` and ``rows``, or ``error``."""
    from sweepkit.trial.predicting import predict

    files = (Path(request["model"]), Path(request["output"]), request["data"] and Path(request["data"]))
    _answer(sock, lambda: predict(study, _spec(request), *files))


def _spec(request: Mapping[str, Any]) -> TrialSpec:
    return TrialSpec.from_json(Path(request["spec"]).read_text())


def _answer(sock: socket.socket, job: Callable[[], dict[str, Any]]) -> None:
    """Send what a job returns, or ``error``, as one JSON line."""
    try:
        answer = job()
    except FOREIGN as error:
        print_traceback(error)
        answer = {"error": describe(error)}
    sock.sendall(json.dumps(answer).encode() + b"\n")


JOBS = {
    "trial": _trial,
    "measure": _measure,
    "prepare": _prepare,
    "inspect": _inspect,
    "test": _test,
    "predict": _predict,
}
