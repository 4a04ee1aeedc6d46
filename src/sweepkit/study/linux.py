"""Linux calls for child processes; elsewhere they do nothing."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_MADV_COLLAPSE = 25
_LARGE = 1 << 21


def adopt_orphans(adopt: bool = True) -> None:
    """Become the parent of processes that this process's children leave behind; False undoes it."""
    _prctl(_PR_SET_CHILD_SUBREAPER, int(adopt))


def die_with_parent(by: int = signal.SIGKILL) -> None:
    """Have this process get a signal when its parent ends, even after an exec."""
    _prctl(_PR_SET_PDEATHSIG, by)


def children() -> set[int]:
    """Return the processes whose parent is this one, those it adopted and those it has to wait for included."""
    found: set[int] = set()
    for file in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            found.update(map(int, file.read_text().split()))
    return found


def end_of(process: int) -> list[int]:
    """Return a file descriptor that becomes readable when a process ends; none where the kernel has no such thing."""
    with suppress(OSError, AttributeError):
        return [os.pidfd_open(process)]
    return []


def set_process(**values: str) -> None:
    """Write files of ``/proc/self``: ``oom_score_adj``, ``comm`` (the name in ``top``)."""
    for name, value in values.items():
        with suppress(OSError):
            Path("/proc/self", name).write_text(value)


def large_pages() -> None:
    """Move this process's memory into large pages, so that a child is cheaper to fork and to end.

    A fork copies an entry per page: for 340 MB of imported modules 10 ms, and 13 ms when the child ends; with large pages
    3 and 5 ms. The call takes about 0.5 s. Kernels before 6.1 ignore it.
    """
    with suppress(OSError):
        for line in Path("/proc/self/maps").read_text().splitlines():
            where, rights, _, _, _, *name = line.split()
            if rights != "rw-p" or name not in ([], ["[heap]"]):
                continue
            begin, end = (int(part, 16) for part in where.split("-"))
            begin, end = -(-begin // _LARGE) * _LARGE, end // _LARGE * _LARGE
            if begin < end:
                ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_COLLAPSE)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def oom_kills(groups: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")) -> int:
    """Return how often the kernel's out-of-memory killer acted in this process's control group.

    Where the group has no counter, return the machine's, which in a container also counts other people's processes.
    """
    for line in _lines(proc / "self/cgroup"):
        number, controllers, group = line.split(":", 2)
        if number == "0":
            file = groups / group.lstrip("/") / "memory.events"
        elif "memory" in controllers.split(","):
            file = groups / "memory" / group.lstrip("/") / "memory.oom_control"
        else:
            continue
        # A container often sees its own group as the root of the tree, whatever its name outside.
        for path in (file, (groups if number == "0" else groups / "memory") / file.name):
            if (count := _count(path)) is not None:
                return count
    return _count(proc / "vmstat") or 0


class OomKills:
    """Counts out-of-memory kills from now on; each explains one process that ended by SIGKILL.

    The kernel may kill several processes at once while others end by themselves, so a kill is used up by one only.
    """

    def __init__(self, groups: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")) -> None:
        self._places = groups, proc
        self._explained = oom_kills(groups, proc)

    def explains(self, code: int) -> bool:
        """Return whether a process with this exit code was killed for memory; call it once per process."""
        killed = code == -signal.SIGKILL and oom_kills(*self._places) > self._explained
        self._explained += killed
        return killed


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _count(path: Path) -> int | None:
    return next((int(line.split()[1]) for line in _lines(path) if line.startswith("oom_kill ")), None)
