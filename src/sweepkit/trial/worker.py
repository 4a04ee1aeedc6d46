"""The warm process, which imports everything once and forks a child per job, and the start of such a child.

:mod:`sweepkit.backends.local.warm` starts it with one end of a socket: ``from sweepkit.trial.worker import serve; serve(FD)``.
It does no tensor work and never touches CUDA, so that a forked child starts clean.

The control socket takes JSON lines: ``{"fork": 7}``, with the file descriptor of the child's own socket, and ``{"import":
[…]}``. It returns ``{"ready": …}``, ``{"forked": id, "pid": …}`` and ``{"exited": id, "status": …, "oom_killed": bool}``.
A child may be forked before its job is known: it waits on its own socket for one line with the request::

    {"job": "trial", "spec": "/…/spec.json", "console": "/…/console.log", "threads": 1, "environment": {…}}
"""

from __future__ import annotations

import gc
import importlib
import json
import linecache
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sweepkit.study.errors import FOREIGN
from sweepkit.study.files import PRIVATE, text_of
from sweepkit.study.study import StudyData
from sweepkit.trial import linux
from sweepkit.trial.jobs import JOBS, read_request

WARM_PACKAGES = (
    "sweepkit",
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "peft",
    "tokenizers",
    "safetensors",
    "evaluate",
    "sklearn",
    "scipy",
)
"""Packages whose modules the warm process imports as well once a child has needed them."""

STACK = (
    "sweepkit.trial.worker",
    "sweepkit.trial.jobs",
    "sweepkit.trial.objective",
    "sweepkit.tasks.task",
    "transformers.trainer",
    "transformers.trainer_utils",
    "torch.random",
    "torch.cuda",
    "torch.cuda.random",
)
"""Modules on the stack when a trial sets its seed."""

SPARE = "sweep spare"
"""Name in ``top`` of a child without a job; with one it is ``sweep trial`` or the like."""


def serve(fd: int) -> None:
    """Run the warm process until the control socket closes; then kill every child."""
    linux.adopt_orphans()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=fd)
    began = time.monotonic()
    with control.makefile("rb", buffering=0) as lines:
        home = json.loads(lines.readline())
    study = StudyData.model_validate_json(home["study"]).at(Path(home["home"]))
    with _dying_with(home["driver"]):
        failure = _warm(study)
    _Server(control, study, home["driver"], time.monotonic() - began, failure).run()


@contextmanager
def _dying_with(driver: int) -> Iterator[None]:
    """Let the kernel kill this process with its driver while it imports and cannot read the socket."""
    linux.die_with_parent()
    if os.getppid() != driver:
        os._exit(1)
    try:
        yield
    finally:
        linux.die_with_parent(False)


def _warm(study: StudyData) -> str:
    """Import what every trial needs; return why the task's own code failed to load, or an empty string."""
    import sweepkit.trial.objective  # noqa: F401  # for the children
    from sweepkit.tasks.load import task_of

    _fill_caches()
    try:
        task_of(study)
    except FOREIGN as error:
        return f"{type(error).__name__}: {text_of(error)}"
    _hold(study)
    _freeze()
    return ""


def _hold(study: StudyData) -> None:
    """Open the data that trials read, if it is prepared by now; errors are left to the job that prepares it."""
    from sweepkit.tasks import prepared
    from sweepkit.tasks.load import task_of

    with suppress(Exception):
        task = task_of(study)
        prepared.hold(task, study.place.data)


def _fill_caches() -> None:
    """Fill caches once that each child would otherwise fill before its first step.

    The table of renamed weights, which a model's first save and load needs, compiles about 900 regular expressions (35 ms
    of CPU). Torch records the stack, with source lines, each time a seed is set (15 ms to read the files).
    """
    for name in STACK:
        linecache.getlines(sys.modules[name].__file__ or "")
    try:
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping
    except ImportError:  # a version of transformers without this table
        return
    get_checkpoint_conversion_mapping("")


def _freeze() -> None:
    """Exclude what all children share from garbage collection, and move it into large pages."""
    gc.collect()
    gc.freeze()
    linux.large_pages()


class _Server:
    """The loop of the warm process: one thread, never blocked by a child."""

    def __init__(self, control: socket.socket, study: StudyData, driver: int, seconds: float, failure: str) -> None:
        self._control = control
        self._study = study
        self._driver = driver
        self._children: dict[int, int] = {}
        self._oom_kills = linux.OomKills()
        self._wakeup, wake = socket.socketpair()
        for end in (self._wakeup, wake):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        self._wake = wake
        self._buffer = b""
        self._fds: list[int] = []
        self._send({"ready": seconds, "failure": failure, "pid": os.getpid()})

    def run(self) -> None:
        """Fork on request and report exits until the driver closes the socket."""
        while True:
            readable, _, _ = select.select([self._control, self._wakeup], [], [])
            if self._wakeup in readable:
                self._wakeup.recv(4096)
                self._reap()
            if self._control in readable and not self._read():
                break
        for pid in self._children:
            _kill_group(pid)
            os.kill(pid, signal.SIGKILL)  # forked a moment ago, it may not yet lead its own group
        for pid in self._children:
            os.waitpid(pid, 0)
        os._exit(0)

    def _read(self) -> bool:
        try:
            data, fds, _, _ = socket.recv_fds(self._control, 65536, 16)
        except ConnectionError:
            return False
        if not data:
            return False
        self._fds.extend(fds)
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if "import" in request:
                self._import(request["import"])
            else:
                self._fork(request["fork"], self._fds.pop(0))
        return True

    def _import(self, names: list[str]) -> None:
        with _dying_with(self._driver):
            for name in names:
                if name.partition(".")[0] in WARM_PACKAGES and name not in sys.modules:
                    try:
                        importlib.import_module(name)
                    except Exception as error:  # noqa: BLE001  # the children import it themselves, as before
                        sys.stderr.write(f"not preloaded: {name}: {error}\n")
            _hold(self._study)
        _freeze()

    def _fork(self, number: int, fd: int) -> None:
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                server = os.getppid()
                for sock in (self._control, self._wakeup, self._wake):
                    signal.set_wakeup_fd(-1)
                    sock.close()
                _become_child(server)
                sock = socket.socket(fileno=fd)
                request = read_request(sock)
                _set_up(request)
                JOBS[request["job"]](self._study, request, sock)
                status = 0
            except BaseException:  # noqa: BLE001  # an edge: a child must never return into the warm process's loop
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        os.close(fd)
        self._children[pid] = number
        self._send({"forked": number, "pid": pid})

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            number = self._children.pop(pid, None)
            if number is not None:
                _kill_group(pid)  # what the child left behind, such as data loader workers
                code = os.waitstatus_to_exitcode(status)
                oom_killed = self._oom_kills.explains(code)
                self._send({"exited": number, "status": code, "oom_killed": oom_killed, "pid": pid, "at": time.time()})

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            self._control.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            pass  # the driver is gone; the loop will see the closed socket


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _become_child(server: int) -> None:
    """Detach a forked process: own session, killed with the server, first choice of the out-of-memory killer."""
    os.setsid()
    linux.die_with_parent()
    if os.getppid() != server:
        os._exit(1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    linux.set_process(oom_score_adj="500", comm=SPARE)


def _set_up(request: Mapping[str, Any]) -> None:
    """Set the name, console, environment and threads that a child's job asks for."""
    linux.set_process(comm=f"sweep {request['job']}")
    console = os.open(request["console"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE)
    for target in (1, 2):
        os.dup2(console, target)
    os.close(console)
    os.environ.update(request.get("environment", {}))
    if os.environ.get("RANK") == "0":
        _host_store(int(os.environ["MASTER_PORT"]))
    import torch

    torch.set_num_threads(max(1, int(request.get("threads", 1))))


_HOSTED: list[Any] = []
"""The store of this trial's ranks, which lives as long as the process."""


def _host_store(port: int) -> None:
    """Host the store at which the ranks meet, on the loopback interface; torch's own listens on every interface."""
    import torch

    listener = socket.create_server(("127.0.0.1", port))
    _HOSTED.append(
        torch.distributed.TCPStore(  # type: ignore[attr-defined]  # torch does not list it in __all__
            "127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
        )
    )
