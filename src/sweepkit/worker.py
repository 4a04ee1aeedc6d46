"""The trial's side of the pipe: a warm process that imports once and forks a child per job, and what such a child does.

Started by :mod:`sweepkit.warm` as ``python -c "from sweepkit.worker import serve; serve(FD)"`` with one end of a
socket. The warm process does no tensor work and never touches CUDA, so that a forked child starts clean. It knows
nothing
of Optuna and MLflow.

Down the control socket come JSON lines, each with one file descriptor (the child's own socket)::

    {"id": 7, "job": "trial", "spec": "/…/spec.json", "console": "/…/console.log"}

and up go ``{"ready": …}``, ``{"forked": id, "pid": …}``, ``{"exited": id, "status": …, "oom_kills": n}``.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweepkit.jobs import JOBS
from sweepkit.study import Study

WARM_PACKAGES = (
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
"""Packages whose modules, once a child needed them, the warm process imports as well."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def oom_kills(groups: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")) -> int:
    """Return how often the kernel killed for memory in this process's control group, else on the whole machine.

    The machine's own count is asked only where the group has none: in a container it tells of other people's processes.
    """
    for line in _lines(proc / "self/cgroup"):
        number, controllers, group = line.split(":", 2)
        if number == "0":
            file = groups / group.lstrip("/") / "memory.events"
        elif "memory" in controllers.split(","):
            file = groups / "memory" / group.lstrip("/") / "memory.oom_control"
        else:
            continue
        # A container often sees its own group as the root of the tree, under whatever name it has outside.
        for path in (file, (groups if number == "0" else groups / "memory") / file.name):
            if (count := _count(path)) is not None:
                return count
    return _count(proc / "vmstat") or 0


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _count(path: Path) -> int | None:
    return next((int(line.split()[1]) for line in _lines(path) if line.startswith("oom_kill ")), None)


def serve(fd: int) -> None:
    """Be the warm process until the control socket closes; then end every child."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=fd)
    began = time.monotonic()
    with control.makefile("rb", buffering=0) as lines:
        home = json.loads(lines.readline())
    study = Study.model_validate_json(home["study"]).at(Path(home["home"]))
    with _dying_with(home["driver"]):
        failure = _warm(study)
    _Server(control, study, home["driver"], time.monotonic() - began, failure).run()


@contextmanager
def _dying_with(driver: int) -> Iterator[None]:
    """Let the kernel end this process when its driver dies, while it imports and so does not look at the socket."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != driver:
        os._exit(1)
    try:
        yield
    finally:
        _prctl(_PR_SET_PDEATHSIG, 0)


def _warm(study: Study) -> str:
    """Import what every trial needs; return what went wrong with the task's own code, or nothing."""
    import sweepkit.objective
    import sweepkit.tasks

    _fill_caches()
    try:
        sweepkit.tasks.load_task(study.task, study.home, trust_remote_code=study.trust_remote_code)
    except Exception as error:  # noqa: BLE001  # an edge: the task is the user's code
        return f"{type(error).__name__}: {error}"
    finally:
        _freeze()
    return ""


def _fill_caches() -> None:
    """Let transformers build, once, the table of renamed weights that every model's first save and load looks into.

    It compiles some 900 regular expressions (35 ms of CPU), in each child anew where the warm process has not done so.
    """
    try:
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping
    except ImportError:  # another transformers, which builds it elsewhere or not at all
        return
    get_checkpoint_conversion_mapping("")


def _freeze() -> None:
    gc.collect()
    gc.freeze()


class _Server:
    """The warm process's loop: one thread, never blocking on a child."""

    def __init__(self, control: socket.socket, study: Study, driver: int, seconds: float, failure: str) -> None:
        self._control = control
        self._study = study
        self._driver = driver
        self._children: dict[int, int] = {}
        self._oom_kills = oom_kills()
        self._wakeup, wake = socket.socketpair()
        for end in (self._wakeup, wake):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        self._wake = wake
        self._buffer = b""
        self._fds: list[int] = []
        self._tell({"ready": seconds, "failure": failure, "pid": os.getpid()})

    def run(self) -> None:
        """Fork on request and report exits until the driver is gone."""
        while True:
            readable, _, _ = select.select([self._control, self._wakeup], [], [])
            if self._wakeup in readable:
                self._wakeup.recv(4096)
                self._reap()
            if self._control in readable and not self._read():
                break
        for pid in list(self._children):
            _kill_group(pid)
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
                self._fork(request, self._fds.pop(0))
        return True

    def _import(self, names: list[str]) -> None:
        with _dying_with(self._driver):
            for name in names:
                if name.partition(".")[0] in WARM_PACKAGES and name not in sys.modules:
                    try:
                        importlib.import_module(name)
                    except Exception as error:  # noqa: BLE001  # then the children import it, as they did before
                        sys.stderr.write(f"not preloaded: {name}: {error}\n")
        _freeze()

    def _fork(self, request: Mapping[str, Any], fd: int) -> None:
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                server = os.getppid()
                for sock in (self._control, self._wakeup, self._wake):
                    signal.set_wakeup_fd(-1)
                    sock.close()
                _become_child(request, server)
                status = JOBS[request["job"]](self._study, request, socket.socket(fileno=fd))
            except BaseException:  # noqa: BLE001  # an edge: a child must never return into the warm process's loop
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        os.close(fd)
        self._children[pid] = request["id"]
        self._tell({"forked": request["id"], "pid": pid})

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
                _kill_group(pid)  # what the child left behind, data loader workers for one
                kills, self._oom_kills = oom_kills() - self._oom_kills, oom_kills()
                code = os.waitstatus_to_exitcode(status)
                self._tell({"exited": number, "status": code, "oom_kills": kills, "pid": pid, "at": time.time()})

    def _tell(self, message: Mapping[str, Any]) -> None:
        try:
            self._control.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            pass  # the driver is gone; the loop sees the closed socket next


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _become_child(request: Mapping[str, Any], server: int) -> None:
    """Make a forked process a trial's own: session, death with the server, console, environment, threads."""
    os.setsid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    console = os.open(request["console"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for target in (1, 2):
        os.dup2(console, target)
    os.close(console)
    try:
        Path("/proc/self/oom_score_adj").write_text("500")
    except OSError:
        pass
    os.environ.update(request.get("environment", {}))
    import torch

    torch.set_num_threads(max(1, int(request.get("threads", 1))))
