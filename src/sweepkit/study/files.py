"""Atomic writes, and conversions to one line of text and to plain JSON data."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from sweepkit.study.errors import FOREIGN, SweepError
from sweepkit.study.secrets import scrub

_LOOKED_AT = 50_000
"""Characters of a message that are used; some have millions."""
PRIVATE = 0o600
"""Mode of a study's files: its owner reads and writes them, nobody else does."""
_NUMBER = re.compile(r"\b0x[0-9a-fA-F]+\b|(?<![A-Za-z_])[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
"""A terminal's escape sequences (ECMA-48): CSI, OSC and those of two characters."""


def write_whole(path: Path, content: str | bytes, *, mode: int = PRIVATE, durable: bool = True) -> None:
    """Write a file atomically: a reader, also after a crash, sees the old content or all of the new.

    The folder must exist. Hard links to the old file keep its content. The file is its owner's alone, as logs and studies
    may hold what others should not read. Unless ``durable``, a power failure may lose it.
    """
    draft = path.with_name(f"{path.name}.new")
    try:
        with os.fdopen(open_own(draft, os.O_WRONLY | os.O_TRUNC, mode), "wb") as file:
            file.write(content.encode(errors="replace") if isinstance(content, str) else content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError:
        if not draft.is_symlink():
            remove(draft)
        raise


def open_own(path: Path | str | bytes, flags: int, mode: int = PRIVATE) -> int:
    """Open a file of a study, made if necessary, and return its descriptor. A link in its place is not followed: OSError."""
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, mode)


def make_own(folder: Path) -> None:
    """Make a folder of a study unless it is there; a link or file in its place is removed."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    folder.mkdir(exist_ok=True)


def remove(path: Path) -> None:
    """Remove a file, folder or link (and not what the link points to), if it is there."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Give a file a second name by a hard link; on another disk, or one without hard links, copy it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def text_of(error: BaseException) -> str:
    """Return an exception's message without secrets; its type's name where it has none or raises when asked for it."""
    name = type(error).__name__
    try:
        text = str(error)
    except FOREIGN:
        return f"{name}, whose message cannot be shown"
    return scrub(text[: 2 * _LOOKED_AT])[:_LOOKED_AT] if text.strip() else name


def describe(error: BaseException) -> str:
    """Return one of sweepkit's own errors as its message, any other as a line with the name of its type.

    >>> describe(KeyError("no\\nsuch"))
    "KeyError: 'no\\\\nsuch'"
    """
    if isinstance(error, SweepError):
        return text_of(error)
    return first_line(f"{type(error).__name__}: {first_line(error)}")


def exists(path: Path) -> bool:
    """Return whether a file or folder exists; False also for a name that no file system takes."""
    try:
        return path.exists()
    except OSError:
        return False


def first_line(message: str | BaseException) -> str:
    """Return the first non-blank line, at most 500 printable characters, without secrets; of an exception :func:`text_of`.

    >>> first_line("\\n  no \\x1b[31msuch\\x1b[0m file\\nhint: …"), first_line(KeyError()), first_line("\\ud800\\t!")
    ('no such file', 'KeyError', '? !')
    """
    text = text_of(message) if isinstance(message, BaseException) else message
    text = _ESCAPES.sub("", text.lstrip()[:_LOOKED_AT])
    lines = map(printable, text.splitlines())
    return scrub(next((line.strip() for line in lines if line.strip()), ""))[:500]


def printable(text: str) -> str:
    """Return the text with a space or ``?`` in the place of what a terminal or a file could not take as a character."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


def cause_kind(cause: str) -> str:
    """Return a cause's first line with its numbers blanked: what it has in common with the same failure elsewhere.

    >>> cause_kind("ValueError: 3 rows, expected 16 (0x7f3a)"), cause_kind("ValueError: 12 rows, expected 16 (0x1b)")
    ('ValueError: # rows, expected # (#)', 'ValueError: # rows, expected # (#)')
    """
    return _NUMBER.sub("#", first_line(cause))


def last_line(log: Path | bytes | bytearray) -> str:
    """Return the last line of a log, a file or its content, as :func:`first_line` does; of a file the end alone is read."""
    if isinstance(log, Path):
        try:
            with log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - (1 << 16)))
                log = file.read()
        except OSError:
            return ""
    return first_line("\n".join(reversed(log.decode(errors="replace").splitlines())))


def jsonable(value: Any) -> Any:
    """Return a value as strict JSON data: NaN and infinities become None, tuples lists, enums their values, paths text.

    >>> jsonable({"values": (0.5, float("nan")), 1: Path("a/b")})
    {'values': [0.5, None], '1': 'a/b'}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): jsonable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(inner) for inner in value]
    if isinstance(value, Enum):
        return jsonable(value.value)
    return str(value) if isinstance(value, Path) else value
