"""Atomic writes, and conversions to one line of text and to plain JSON data."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file atomically: a reader, also after a crash, sees the old content or all of the new.

    The folder must exist. Hard links to the old file keep its content.
    """
    draft = path.with_name(f"{path.name}.new")
    with draft.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def first_line(message: str | BaseException) -> str:
    """Return the first non-blank line, at most 500 characters; for an exception without a message, its type's name.

    >>> first_line("\\n  no such file\\nhint: …"), first_line(KeyError())
    ('no such file', 'KeyError')
    """
    empty = type(message).__name__ if isinstance(message, BaseException) else ""
    return next((line.strip() for line in str(message).splitlines() if line.strip()), empty)[:500]


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
