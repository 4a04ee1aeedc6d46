"""Standard output and error without secrets, for a process whose output is kept or shown: a trial's, and the command's."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from sweepkit.study.secrets import scrub

BLOCK = 8192
"""Characters that a stream into a file holds back, as Python's own do."""

LONGEST = 1 << 16
"""Characters of a line that are held back; of a longer one, all but the last block is written."""


class _Scrubbed:
    """A text stream that writes whole lines, so that a secret is found although it was printed word by word."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._block = 0 if stream.isatty() or getattr(stream, "line_buffering", True) else BLOCK
        self._held = ""
        self.buffer = _Bytes(self, stream)

    def write(self, text: str) -> int:
        self._held += text
        if len(self._held) > self._block:
            whole, newline, rest = self._held.rpartition("\n")
            if not newline and len(rest) > LONGEST:
                whole, rest = rest[:-BLOCK], rest[-BLOCK:]
            if whole or newline:
                self._stream.write(scrub(whole) + newline)
                self._held = rest
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        if self._held:
            held, self._held = self._held, ""
            self._stream.write(scrub(held))
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Bytes:
    """The same for bytes, each write by itself: typer writes so where a stream's encoding is ASCII, and tasks may."""

    def __init__(self, above: _Scrubbed, stream: TextIO) -> None:
        self._above = above
        self._stream = stream

    def write(self, data: bytes) -> int:
        self._above.flush()
        text = bytes(data).decode(errors="surrogateescape")
        self._stream.buffer.write(scrub(text).encode(errors="surrogateescape"))
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream.buffer, name)


def scrub_output() -> None:
    """Scrub what this process writes from now on through ``sys.stdout`` and ``sys.stderr``."""
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name)) is not None:
            setattr(sys, name, _Scrubbed(stream))
