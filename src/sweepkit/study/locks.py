"""Who runs a study: its driver's lock. Knows only where the lock lies.

The lock is a kernel lock (``flock``) on a file, so it cannot outlive its driver. A process forked from the driver without
exec would keep it; the toolkit starts its processes with exec.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from sweepkit.study.errors import InputError, StudyLocked
from sweepkit.study.paths import Place


class StudyLock:
    """Held by a study's driver; entering raises StudyLocked, naming the other driver's pid and host, when it is taken.

    InputError where the study's folder cannot be written.

    ``shared``: several drivers may hold it, each a file of its own; who is alive is still seen, and who may do what when is
    settled elsewhere.
    """

    def __init__(self, place: Place, *, shared: bool = False) -> None:
        self._place = place
        mine = f"{place.lock.name}-{socket.gethostname()}-{os.getpid()}"
        self._path = place.folder / mine if shared else place.lock
        self._file: int | None = None

    def __enter__(self) -> StudyLock:
        try:
            self._place.folder.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError(
                f"{self._place.folder} cannot be written ({error.strerror}); it is where the results of this study are to lie: "
                "in runs/ of its project, the nearest folder above that has pyproject.toml or .git"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            owner = _owner(self._path)
            who = f"process {owner['pid']} on {owner['host']}, since {owner['started']}" if owner else "another process"
            raise StudyLocked(
                f"study {self._place.name} is already run by {who}; wait for it, stop it with `sweep stop`, or give this "
                "study another name"
            ) from None
        mine = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": datetime.now().isoformat(timespec="seconds"),
        }
        os.ftruncate(file, 0)
        os.write(file, json.dumps(mine).encode())
        self._file = file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.ftruncate(self._file, 0)
            if self._path != self._place.lock:
                self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None


def lock_owners(place: Place) -> list[tuple[int, str]]:
    """Return (pid, host) of every driver that runs this study now."""
    found = []
    for path in (place.lock, *sorted(place.folder.glob(f"{place.lock.name}-*"))):
        owner = _owner(path) if _held(path) else None
        if owner:
            found.append((int(owner["pid"]), str(owner["host"])))
    return found


def lock_since(place: Place) -> datetime | None:
    """Return when the first of the drivers that run this study now began, local time; None where none does."""
    paths = (place.lock, *place.folder.glob(f"{place.lock.name}-*"))
    owners = [owner for path in paths if _held(path) and (owner := _owner(path))]
    return min((datetime.fromisoformat(owner["started"]) for owner in owners), default=None)


def lock_owner(place: Place) -> tuple[int, str] | None:
    """Return (pid, host) of a driver that runs this study now, or None."""
    return next(iter(lock_owners(place)), None)


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


def _owner(path: Path) -> dict[str, Any] | None:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text())
        return found if isinstance(found, dict) else None
    return None
