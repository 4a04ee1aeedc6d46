"""The lock a study's driver holds, and who holds it now.

It is a kernel lock (``flock``) on a file, so it ends with its driver, however that dies; what is forked from the driver lets go
of it. Readers test it in shared mode, which filelock does not have: two readers must not take each other for a driver, and
they may lack write permission.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType

from sweepkit.study.damage import read_json
from sweepkit.study.errors import DamagedFile, StudyFailed, StudyLocked
from sweepkit.study.files import open_own
from sweepkit.study.paths import Place


class StudyLock:
    """Held by a study's driver.

    Entering raises StudyLocked, with the other driver's pid and host, if it is taken, and StudyFailed if the study's folder
    is not writable. With ``shared`` several drivers may hold it, each in a file of its own; the storage coordinates them.
    """

    def __init__(self, place: Place, *, shared: bool = False) -> None:
        self._place = place
        own = f"{place.lock.name}-{socket.gethostname()}-{os.getpid()}"
        self._path = place.folder / own if shared else place.lock
        self._file: int | None = None

    def __enter__(self) -> StudyLock:
        try:
            self._place.folder.mkdir(parents=True, exist_ok=True)
            file = open_own(self._path, os.O_RDWR, 0o644)
        except OSError as error:
            if self._path.is_dir() or self._path.is_symlink():
                what = "a link" if self._path.is_symlink() else "a folder"
                raise DamagedFile(self._path, f"is {what}, not the study's lock", "remove it") from error
            raise StudyFailed(
                f"{self._place.folder} is not writable ({error.strerror}); the study's results go there: runs/ of its project, "
                "which is the nearest parent folder with runs, pyproject.toml or .git"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            owner = _content(self._path)
            since = owner and owner.started.isoformat()
            who = f"process {owner.pid} on {owner.host}, since {since}" if owner else "another process"
            raise StudyLocked(
                f"study {self._place.name} is already run by {who}; wait for it, stop it with `sweep stop`, or give this "
                "study another name"
            ) from None
        content = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": datetime.now().isoformat(timespec="seconds"),
        }
        os.ftruncate(file, 0)
        os.write(file, json.dumps(content).encode())
        self._file = file
        os.register_at_fork(after_in_child=self._let_go)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.ftruncate(self._file, 0)
            if self._path != self._place.lock:
                self._path.unlink(missing_ok=True)
            self._let_go()

    def _let_go(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def lock_owners(place: Place) -> list[tuple[int, str]]:
    """Return (pid, host) of every driver that runs this study now."""
    return [(owner.pid, owner.host) for owner in _owners(place)]


def lock_owner(place: Place) -> tuple[int, str] | None:
    """Return (pid, host) of a driver that runs this study now; None without one."""
    return next(iter(lock_owners(place)), None)


def lock_since(place: Place) -> datetime | None:
    """Return when the first of the drivers that run this study now started, in local time; None without one."""
    return min((owner.started for owner in _owners(place)), default=None)


@dataclass(frozen=True)
class _Owner:
    """A lock file's content: the driver that holds it."""

    pid: int
    host: str
    started: datetime


def _owners(place: Place) -> Iterator[_Owner]:
    for path in (place.lock, *sorted(place.folder.glob(f"{place.lock.name}-*"))):
        if _held(path) and (owner := _content(path)):
            yield owner


def _held(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


def _content(path: Path) -> _Owner | None:
    """Return a lock file's content; None if its owner has not written it yet, or is gone."""
    try:
        owner: _Owner | None = read_json(path, _Owner, "")
    except DamagedFile:
        return None
    return owner
