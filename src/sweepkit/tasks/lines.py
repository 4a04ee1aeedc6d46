"""Opens the text files of data, and says which of their lines cannot be read and what would help."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from sweepkit.study.errors import InputError

UTF8 = "utf-8-sig"
"""UTF-8 with or without a byte order mark."""
_MARKS = (b"\xff\xfe", b"\xfe\xff")
_OTHERS = {
    b"PK\x03\x04": "is a zip archive or an Excel workbook; save it as csv",
    b"\xd0\xcf\x11\xe0": "is an Excel workbook; save it as csv",
    b"PAR1": "is a Parquet file; name it .parquet, or set task.data.format: parquet",
}
"""First bytes of files that are not text → what to say of them."""


class Unreadable(InputError):
    """Data cannot be read as it is; ``cures`` are options of ``task.data`` (``lines: skip``) → what each does."""

    def __init__(self, message: str, cures: Mapping[str, str] | None = None) -> None:
        self.cures = dict(cures or {})
        ways = ", or ".join(f"set task.data.{option} to {does}" for option, does in self.cures.items())
        super().__init__(f"task.data: {message}" + (f"; {ways}" if ways else ""))


SKIP = {"lines: skip": "leave such lines out"}


@dataclass
class Lines:
    """What is to be done with lines that cannot be read: an error, or left out and counted."""

    skip: bool = False
    skipped: int = 0

    def refuse(self, error: Unreadable, count: int = 1) -> None:
        """Raise the error, unless such lines are left out."""
        if not self.skip:
            raise error
        self.skipped += count


@contextmanager
def open_text(file: str, encoding: str | None = None, errors: str = "strict") -> Iterator[TextIO]:
    """Open a file or URL as text, by default UTF-8, or UTF-16 where its byte order mark says so. Raises Unreadable."""
    import fsspec

    encoding = encoding or _encoding(file)
    try:
        with fsspec.open(file, "rt", encoding=encoding, errors=errors, newline="", compression="infer") as stream:
            yield stream
    except UnicodeError as error:
        byte = f" (byte 0x{error.object[error.start]:02x})" if isinstance(error, UnicodeDecodeError) else ""
        known = "UTF-8" if encoding == UTF8 else encoding
        cures = {"encoding: cp1252": "read it as Excel writes it in Western Europe, or to another encoding"}
        raise Unreadable(f"{file} is not {known} text{byte}", cures) from error


def _encoding(file: str) -> str:
    """Return the encoding of a file by its first bytes. Raises Unreadable for a file that is not text."""
    if not Path(file).is_file():  # a URL
        return UTF8
    with Path(file).open("rb") as stream:
        head = stream.read(4)
    for begin, what in _OTHERS.items():
        if head.startswith(begin):
            raise Unreadable(f"{file} {what}")
    if head[:2] in _MARKS:
        return "utf-16"
    if len(head) == 4 and (head[0] == 0) != (head[1] == 0) and (head[2] == 0) != (head[3] == 0):
        return "utf-16-be" if head[0] == 0 else "utf-16-le"
    return UTF8
