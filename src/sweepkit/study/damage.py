"""Reads what a study keeps on disk, and finds what a crash, a full disk or a hand damaged.

A damaged file either ends the command in a sentence (DamagedFile), or counts as missing and is named in a note: a warning of
the logger ``sweepkit``, which Python prints and a run shows among its own lines.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import file_digest
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sweepkit.study.errors import FULL_DISK, NO_SPACE, DamagedFile, StudyFailed
from sweepkit.study.files import first_line, remove
from sweepkit.study.paths import CHECKED, SEAL, TORN

LOG = logging.getLogger("sweepkit")
_OTHER_VERSION = ("unexpected_keyword_argument", "extra_forbidden")
BOOT = Path("/proc/sys/kernel/random/boot_id")
"""What is another each time the machine starts."""
_AT_ONCE = 8
"""Files that are written through to the disk at a time."""
_IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)


def read_json(path: Path, kind: Any, advice: str) -> Any:
    """Return a JSON file's content as ``kind``, or None where there is no such file.

    Raises DamagedFile, whose message ends with ``advice``, for anything that cannot be read as that.
    """
    try:
        return _adapter(kind).validate_python(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedFile(path, fault_of(error), advice) from error


def read_or_note(path: Path, kind: Any, meaning: str) -> Any:
    """Return the same, but None also for a damaged file, after a note that ends with ``meaning``."""
    try:
        return read_json(path, kind, meaning)
    except DamagedFile as error:
        note(str(error))
        return None


@cache
def note(text: str) -> None:
    """Say something about a file, once."""
    LOG.warning("%s", text)


class _Noting(logging.Handler):
    def __init__(self, say: Callable[[str], object]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(record.getMessage())


@contextmanager
def noting(say: Callable[[str], object]) -> Iterator[None]:
    """Call ``say`` with each note, also with one that was said before."""
    note.cache_clear()
    handler = _Noting(say)
    LOG.addHandler(handler)
    try:
        yield
    finally:
        LOG.removeHandler(handler)


def fault_of(error: Exception) -> str:
    """Return what is wrong with a file, as the end of a sentence that begins with its name."""
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror})"
    if isinstance(error, json.JSONDecodeError) and not error.doc.strip():
        return "is empty"
    if not isinstance(error, ValidationError):
        return "is damaged: it is not JSON"
    first = error.errors(include_url=False)[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] in _OTHER_VERSION:
        return f"has {first_line(key)}, which this version of sweepkit does not know"
    where = f"{key}: " if key else ""
    return f"is damaged: {first_line(where + first['msg'])}"


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@contextmanager
def name_files() -> Iterator[None]:
    """Turn an OSError about a file, or about a full disk, into a StudyFailed that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK:
            raise StudyFailed(NO_SPACE) from error
        if error.filename is None:
            raise
        advice = (
            "something else is where the study's own file belongs; move it away" if error.errno in _IN_THE_WAY else ""
        )
        what = f"{os.fsdecode(error.filename)} cannot be used ({error.strerror})"
        raise StudyFailed(f"{what}; {advice or 'see to that'} and run the same command") from error


def settle(folder: Path) -> None:
    """Write a folder with all that is in it through to the disk, side by side: the disk is waited for about once."""

    def write_through(path: Path) -> None:
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        list(threads.map(write_through, (*folder.rglob("*"), folder)))


def seal(folder: Path) -> None:
    """Record the checksum of each file in a folder, then :func:`settle` it."""
    names = [str(path.relative_to(folder)) for path in _files(folder)]
    (folder / SEAL).write_text(json.dumps({name: _sum(folder / name) for name in names}))
    settle(folder)


def put_aside(path: Path) -> None:
    """Rename a damaged folder, in the place of one that was set aside before."""
    aside = path.with_name(f"{path.name}{TORN}")
    remove(aside)
    os.rename(path, aside)


def find_damage(folder: Path) -> str:
    """Return which file of a sealed folder is not as it was sealed; empty where all are, or where there is no seal.

    Every byte is read. A seal of earlier versions, of which each entry is a list, says nothing.
    """
    try:
        sealed = read_json(folder / SEAL, dict[str, str | list[int]], "")
        changed = [
            name for name, mark in (sealed or {}).items() if isinstance(mark, str) and _sum(folder / name) != mark
        ]
    except DamagedFile:
        return SEAL
    except OSError as error:
        return str(Path(error.filename).relative_to(folder))
    return changed[0] if changed else ""


def is_whole(folder: Path) -> bool:
    """Whether a folder is there and nothing of it is damaged.

    All bytes are read once for each start of the machine and after each change of a file: what a crash or a loss of power left
    is found, and what a hand changed; a byte that the disk loses later, while the machine runs, is not.
    """
    checked = folder / CHECKED
    try:
        state = json.dumps([BOOT.read_text(), {str(path): _state(path) for path in _files(folder)}])
        if checked.is_file() and checked.read_text() == state:
            return True
    except OSError:
        state = ""
    if not folder.is_dir() or find_damage(folder):
        return False
    with suppress(OSError):  # a disk that can only be read
        if state:
            checked.write_text(state)
    return True


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (SEAL, CHECKED))


def _state(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def refuse_damaged(model: Path) -> None:
    """Raise DamagedFile where a trial's model is not as it was written."""
    if name := find_damage(model):
        raise DamagedFile(
            model / name, "is not as it was written", "train its trial again, for instance with sweep enqueue"
        )


def _sum(path: Path) -> str:
    from xxhash import xxh3_64  # three times as fast as what Python brings

    with path.open("rb", buffering=0) as file:
        return file_digest(file, xxh3_64).hexdigest()
