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
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sweepkit.study import linux
from sweepkit.study.errors import FOREIGN
from sweepkit.study.files import describe
from sweepkit.study.garbage import without_collection
from sweepkit.study.streams import scrub_output
from sweepkit.study.study import StudyData
from sweepkit.trial.console import Console, print_traceback
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
    "trl",
    "sentence_transformers",
    "rouge_score",
    "sacrebleu",
    "seqeval",
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

KEEPER = "sweep keeper"
"""Name in ``top`` of the warm process's parent."""


def serve(fd: int) -> None:
    """Run the warm process until its driver ends or closes the control socket; then kill all it and its children started."""
    scrub_output()  # before any library keeps a stream of its own
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=fd)
    control.set_inheritable(False)
    began = time.monotonic()
    with control.makefile("rb", buffering=0) as lines:
        home = json.loads(lines.readline())
    _leave_keeper(home["driver"], control)
    study = StudyData.model_validate_json(home["study"]).at(Path(home["home"]))
    with without_collection():  # nothing that is imported is garbage, and looking for it takes a quarter of the time
        failure = _warm(study)
    _Server(control, study, time.monotonic() - began, failure).run()


def _leave_keeper(driver: int, control: socket.socket) -> None:
    """Go on as a child of this process, which waits for its end or the driver's, ends all that is left and exits like it.

    What a trial started, in whatever session and environment, is by then a child of the process that waits, also where the
    driver and the warm process were killed together.
    """
    linux.adopt_orphans()
    keeper, warm = os.getpid(), os.fork()
    if warm == 0:
        os.setsid()  # what is sent to its group spares the keeper
        linux.adopt_orphans()
        linux.die_with_parent()
        if os.getppid() != keeper:
            os._exit(1)
        return
    control.close()
    linux.set_process(comm=KEEPER)
    ends = [*linux.end_of(driver), *linux.end_of(warm)]
    if ends and os.getppid() == driver:
        _readable(*ends)
    if os.getppid() != driver:
        _kill({warm})
    _, status = os.waitpid(warm, 0)
    _end_children()
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        with suppress(OSError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _warm(study: StudyData) -> str:
    """Import what every trial needs; return why the task's own code failed to load, or an empty string."""
    import sweepkit.trial.objective  # noqa: F401  # for the children
    from sweepkit.tasks.load import task_of

    _fill_caches()
    try:
        task_of(study)
    except FOREIGN as error:
        return describe(error)
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

    def __init__(self, control: socket.socket, study: StudyData, seconds: float, failure: str) -> None:
        self._control = control
        self._study = study
        self._children: dict[int, tuple[int, Console]] = {}
        self._own = linux.children()
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
        """Fork on request, keep what children print and report exits until the driver closes the socket."""
        while True:
            consoles = [console for _, console in self._children.values() if console.open]
            readable = _readable(self._control, self._wakeup, *consoles)
            for console in consoles:
                if console in readable:
                    console.read()
            if self._wakeup in readable:
                self._wakeup.recv(4096)
                self._reap()
            if self._control in readable and not self._read():
                break
        _end_children(self._children)
        for _, console in self._children.values():
            console.close()
        os._exit(0)

    def _read(self) -> bool:
        try:
            data, fds, _, _ = socket.recv_fds(self._control, 65536, 16)
        except ConnectionError:
            return False
        if not data:
            return False
        for fd in fds:
            os.set_inheritable(fd, False)
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
        before = linux.children()
        for name in names:
            if name.partition(".")[0] in WARM_PACKAGES and name not in sys.modules:
                try:
                    importlib.import_module(name)
                except Exception as error:  # noqa: BLE001  # the children import it themselves, as before
                    sys.stderr.write(f"not preloaded: {name}: {error}\n")
        _hold(self._study)
        self._own |= linux.children() - before
        _freeze()

    def _fork(self, number: int, fd: int) -> None:
        console = Console()
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                server = os.getppid()
                for sock in (self._control, self._wakeup, self._wake):
                    signal.set_wakeup_fd(-1)
                    sock.close()
                for other in self._fds:  # of children still to be forked
                    os.close(other)
                _become_child(server)
                sock = socket.socket(fileno=fd)
                os.register_at_fork(after_in_child=sock.close)
                request = read_request(sock)
                console.use(request["console"])
                _set_up(request)
                JOBS[request["job"]](self._study, request, sock)
                status = 0
            except BaseException as error:  # noqa: BLE001  # an edge: a child must never return into the warm process's loop
                print_traceback(error)
            finally:
                for stream in (sys.stdout, sys.stderr):
                    with suppress(Exception):  # the task may have closed or replaced them
                        stream.flush()
                os._exit(status)
        os.close(fd)
        os.close(console.writing)
        self._children[pid] = number, console
        self._send({"forked": number, "pid": pid})

    def _reap(self) -> None:
        """Report the children that exited and end what they left behind, which this process has adopted by then."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            number, console = self._children.pop(pid, (0, None))
            if console:
                _kill_group(pid)
            _kill(linux.children() - self._children.keys() - self._own)
            if console:
                console.close()
                code = os.waitstatus_to_exitcode(status)
                oom_killed = self._oom_kills.explains(code)
                self._send({"exited": number, "status": code, "oom_killed": oom_killed, "pid": pid, "at": time.time()})
            if pid == 0:
                return

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            self._control.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            pass  # the driver is gone; the loop will see the closed socket


def _readable(*sources: Any) -> set[Any]:
    """Wait until there is something to read, and return where; ``select`` takes no descriptor above 1023."""
    poll, found = select.poll(), {}
    for source in sources:
        poll.register(source, select.POLLIN)
        found[source if isinstance(source, int) else source.fileno()] = source
    return {found[fd] for fd, _ in poll.poll()}


def _kill(processes: set[int]) -> set[int]:
    """Kill processes and the groups they lead; return those that belong to another user."""
    refused = set()
    for pid in processes:
        _kill_group(pid)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        except PermissionError:
            refused.add(pid)
    return refused


def _end_children(known: Iterable[int] = ()) -> None:
    """Kill this process's children, those it adopts meanwhile and those ``known`` included, until none is left."""
    refused: set[int] = set()
    while left := {*known, *linux.children()} - refused:
        known = ()
        refused |= _kill(left)
        for pid in left - refused:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _become_child(server: int) -> None:
    """Detach a forked process: own session, killed with the server, first choice of the out-of-memory killer.

    It adopts what its processes leave behind, so that the server, which gets it all when it ends, knows whose it is.
    """
    os.setsid()
    linux.adopt_orphans()
    linux.die_with_parent()
    if os.getppid() != server:
        os._exit(1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    linux.set_process(oom_score_adj="500", comm=SPARE)


def _set_up(request: Mapping[str, Any]) -> None:
    """Set the name, environment and threads that a child's job asks for."""
    linux.set_process(comm=f"sweep {request['job']}")
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
