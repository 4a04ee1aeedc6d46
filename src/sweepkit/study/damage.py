"""Reads what a study keeps on disk, and finds what a crash, a full disk or a hand damaged.

A damaged file either ends the command in a sentence (DamagedFile), or counts as missing and is named in a note: a warning of
the logger ``sweepkit``, which Python prints and a run shows among its own lines.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sweepkit.study.errors import DamagedFile, StudyFailed
from sweepkit.study.files import first_line, remove
from sweepkit.study.paths import SEAL, TORN

LOG = logging.getLogger("sweepkit")
ENDS = 65536
"""Bytes at either end of a file that its checksum covers; a crash cuts a file, empties it or leaves zeros."""
_OTHER_VERSION = ("unexpected_keyword_argument", "extra_forbidden")
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
    """Turn an OSError about a file into a StudyFailed that names it and says what to do."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise
        advice = "something else lies where the study's own belongs: move it away" if error.errno in _IN_THE_WAY else ""
        what = f"{os.fsdecode(error.filename)} cannot be used ({error.strerror})"
        raise StudyFailed(f"{what}; {advice or 'see to that'} and run the same command") from error


def settle(folder: Path) -> None:
    """Write a folder with all that is in it through to the disk."""
    for path in (*folder.rglob("*"), folder):
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def seal(folder: Path) -> None:
    """Record the size and checksum of each file in a folder, then :func:`settle` it."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    (folder / SEAL).write_text(json.dumps({name: _mark(folder / name) for name in names}))
    settle(folder)


def put_aside(path: Path) -> None:
    """Rename a damaged folder, in the place of one that was set aside before."""
    aside = path.with_name(f"{path.name}{TORN}")
    remove(aside)
    os.rename(path, aside)


def find_damage(folder: Path) -> str:
    """Return which file of a sealed folder is not as it was sealed; empty where all are, or where there is no seal."""
    try:
        sealed = read_json(folder / SEAL, dict[str, list[int]], "")
        changed = [name for name, mark in (sealed or {}).items() if _mark(folder / name) != mark]
    except DamagedFile:
        return SEAL
    except OSError as error:
        return str(Path(error.filename).relative_to(folder))
    return changed[0] if changed else ""


def _mark(path: Path) -> list[int]:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        begin = file.read(ENDS)
        file.seek(max(len(begin), size - ENDS))
        return [size, zlib.crc32(file.read(), zlib.crc32(begin))]
