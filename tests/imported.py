"""Forks of one process that has imported torch and transformers, in place of new ones that import both for seconds each.

Two kinds of process are forked from it: the child that answers a check's questions, and the warm process of a study that a
test runs in its own process. The tests of both (tests/check, and those that use ``new_processes``) start new ones; so does
every command that a test runs.
"""

from __future__ import annotations

import gc
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from sweepkit.backends.local import warm
from sweepkit.check.fields import facts
from sweepkit.study import linux

PROGRAM = "import sys, imported; imported.serve(int(sys.argv[1]))"
_new_child, _new_warm = facts._run_child, warm.start_process
_running: list[tuple[subprocess.Popen[bytes], socket.socket]] = []


def use() -> None:
    """From now on, fork."""
    facts._run_child, warm.start_process = _answers, _Warm


@contextmanager
def new_processes() -> Iterator[None]:
    """Start new processes meanwhile, as outside the tests."""
    facts._run_child, warm.start_process = _new_child, _new_warm
    yield
    use()


def end() -> None:
    """End the process that is forked."""
    for process, control in _running:
        control.close()
        process.wait()


def pids() -> list[int]:
    """The process that is forked, which may stay until the tests end."""
    return [process.pid for process, _ in _running]


def _ask(request: Mapping[str, Any], *files: int) -> str:
    """Send a request with open files; return the line that answers it."""
    if not _running:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-B", "-c", PROGRAM, str(theirs.fileno())]
            here = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
            single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
            environment = {
                **os.environ,
                **single,
                "JE_ARROW_MALLOC_CONF": "background_thread:false",
                "PYTHONPATH": here,
            }
            null = subprocess.DEVNULL
            process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=null, stdout=null, stderr=null, cwd="/", env=environment
            )
        _running.append((process, ours))
    control = _running[0][1]
    line = json.dumps({**request, "path": sys.path, "folder": str(Path.cwd())}).encode() + b"\n"
    sent = socket.send_fds(control, [line], files)
    control.sendall(line[sent:])
    with control.makefile("r") as answers:
        return answers.readline().strip()


def _answers(questions: Sequence[facts.Question]) -> Any:
    """Return what a new child would; one that a question ends is asked again in a new child, which says how."""
    line = _ask({"questions": questions})
    return json.loads(line) if line else _new_child(questions)


class _Warm:
    """A warm process that was forked, with what its driver uses of ``subprocess.Popen``."""

    def __init__(self, control: int, writing: int, environment: Mapping[str, str]) -> None:
        linux.adopt_orphans()  # it becomes this process's child as the one that forked it ends
        self.returncode: int | None = None
        self.pid = int(_ask({"environment": dict(environment)}, control, writing))
        self._process = psutil.Process(self.pid)
        while self._process.ppid() != os.getpid():
            os.sched_yield()
        linux.adopt_orphans(False)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; raises ``subprocess.TimeoutExpired``."""
        if self.returncode is None:
            try:
                self.returncode = self._process.wait(timeout) or 0
            except psutil.TimeoutExpired:
                raise subprocess.TimeoutExpired("the warm process", timeout or 0.0) from None
        return self.returncode

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        if self.returncode is None:
            self._process.kill()


def serve(fd: int) -> None:
    """Import everything, then fork as asked until the tests end."""
    gc.disable()
    import datasets  # noqa: F401
    import torch  # noqa: F401

    import sweepkit.check.fields.child
    import sweepkit.trial.objective
    import sweepkit.trial.worker  # noqa: F401

    control = socket.socket(fileno=fd)
    tests = os.getppid()
    buffer = b""
    files: list[int] = []
    while True:
        data, more, _, _ = socket.recv_fds(control, 1 << 20, 4)
        buffer, files = buffer + data, files + list(more)
        if not data:
            os._exit(0)
        if not buffer.endswith(b"\n"):
            continue
        request, buffer = json.loads(buffer), b""
        if pid := os.fork():
            os.waitpid(pid, 0)
            for file in files:
                os.close(file)
            files = []
            if "questions" in request:
                control.sendall(b"\n")
            continue
        os.chdir(request["folder"])
        if "questions" in request:
            _answer(request, control)
        elif pid := os.fork():
            control.sendall(f"{pid}\n".encode())
            os._exit(0)
        else:
            control.close()
            _become_warm(request["environment"], *files, tests)


def _answer(request: Mapping[str, Any], control: socket.socket) -> None:
    from sweepkit.check.fields.child import answer

    sys.path[:] = request["path"]
    control.sendall(json.dumps([answer(*question) for question in request["questions"]]).encode())
    os._exit(0)


def _become_warm(environment: Mapping[str, str], control: int, writing: int, tests: int) -> None:
    """Go on as the process that ``python -c`` would be by now, with the environment, folder and files of a new one."""
    import random

    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = ["", *environment["PYTHONPATH"].split(os.pathsep)]
    sys.argv[:] = ["-c"]
    sys.dont_write_bytecode = False
    for stream, number in ((writing, 1), (writing, 2)):
        os.dup2(stream, number)
    os.close(writing)
    random.seed()
    while os.getppid() != tests:
        select.select([], [], [], 0)
    from sweepkit.trial.worker import serve

    try:
        serve(control)
    finally:
        os._exit(1)
