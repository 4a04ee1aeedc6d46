"""A process's console: what it prints goes through a pipe to its log, of which the beginning and the end are kept.

Its parent reads the pipe, so that a process that prints without end fills neither the disk nor anybody's memory.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from sweepkit.study.files import open_own
from sweepkit.study.secrets import scrub, without_known

PART_BYTES = 2 << 20
"""How much of the beginning is kept, and at least of the end; a log is at most three times as long."""
_LEFT_OUT = "\n[sweepkit: {:,} bytes of output left out here]\n"
_LONGEST = 50_000
"""Characters of a traceback's beginning, and of its end, that are printed."""
_PIPE_BYTES = 1 << 20
"""More than a pipe holds: one read empties it."""


class Console:
    """The pipe of one process, made before it starts; ``writing`` is its end, ``open`` whether more may arrive.

    A child forked ahead names its log by :meth:`use`; the process that made the pipe calls the other methods.
    """

    def __init__(self, log: Path | None = None) -> None:
        self._reading, self.writing = os.pipe()
        os.set_blocking(self._reading, False)
        if log is not None:
            self._name(log)
        self._path = b""
        self._log: int | None = None
        self.open = True

    def fileno(self) -> int:
        """The end to read from, for ``select``."""
        return self._reading

    def _name(self, log: str | Path) -> None:
        os.write(self.writing, os.fsencode(log) + b"\0")

    def use(self, log: str) -> None:
        """Send this process's standard output and error to a log, from here on."""
        self._name(log)
        for target in (1, 2):
            os.dup2(self.writing, target)
        os.close(self.writing)

    def read(self) -> bool:
        """Add what arrived to the log and return ``open``; where it cannot be written, the output is lost, not the process."""
        try:
            data = os.read(self._reading, _PIPE_BYTES)
        except BlockingIOError:
            return self.open
        self.open = bool(data)
        with suppress(OSError):
            if data and not self._path:
                self._path, _, data = data.partition(b"\0")
                self._log = open_own(self._path, os.O_RDWR)
            if self._log is not None and data:
                # The child's own streams leave no secret; what it starts may print its environment.
                data = without_known(data.decode(errors="surrogateescape")).encode(errors="surrogateescape")
                end = os.fstat(self._log).st_size
                end += os.pwrite(self._log, data, end)
                if end > 3 * PART_BYTES:
                    _shorten(self._log, end)
        return self.open

    def close(self) -> None:
        """Add what is left in the pipe, once the child has exited."""
        if self.open:
            self.read()
        os.close(self._reading)
        if self._log is not None:
            os.close(self._log)


def print_traceback(error: BaseException) -> None:
    """Print an exception to standard error, unless the task has closed or replaced that by something that fails."""
    with suppress(Exception):
        text = "".join(traceback.format_exception(error))
        if len(text) > 2 * _LONGEST:
            text = f"{text[:_LONGEST]}\n[…]\n{text[-_LONGEST:]}"
        sys.stderr.write(scrub(text))


def _shorten(log: int, end: int) -> None:
    """Replace the middle of a log by a line that says how much it was, also what earlier calls have taken out."""
    earlier = re.match(rb"\n\[sweepkit: ([\d,]+) bytes[^\n]*\n", os.pread(log, 100, PART_BYTES))
    gone = int(earlier[1].replace(b",", b"")) - len(earlier[0]) if earlier else 0
    tail = os.pread(log, PART_BYTES, end - PART_BYTES)
    line = _LEFT_OUT.format(gone + end - 2 * PART_BYTES).encode()
    os.pwrite(log, line + tail, PART_BYTES)
    os.ftruncate(log, PART_BYTES + len(line) + len(tail))
