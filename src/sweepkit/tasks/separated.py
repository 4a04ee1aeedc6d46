"""Reads csv and tsv files: rows of texts exactly as written, each line that cannot be read with its number."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TextIO

from sweepkit.study import words
from sweepkit.study.errors import InputError
from sweepkit.tasks.lines import SKIP, Lines, Unreadable

_LONGEST = 2**31 - 1
"""Characters of the longest field."""


@dataclass(frozen=True, kw_only=True)
class Separated:
    """How a csv or tsv file is written."""

    separator: str = ","
    """One character, or a regular expression where it has more; fields are then not quoted."""
    quotes: bool = True
    columns: tuple[str, ...] | None = None
    header: bool = True

    def names(self, stream: TextIO, file: str) -> list[str]:
        """Return the names of the columns. Raises InputError, csv.Error and UnicodeDecodeError."""
        rows = self._fields(stream, file, Lines())
        first = next(rows, None)
        if first is None:
            raise InputError(f"task.data: {file} is empty")
        return list(self.columns) if self.columns is not None else _named(first[1])

    def rows(self, stream: TextIO, file: str, lines: Lines) -> Iterator[dict[str, str | None]]:
        """Yield column → text of each row, None for an empty field. Raises InputError with file and line."""
        rows = self._fields(stream, file, lines)
        names = list(self.columns or ())
        if self.header and (first := next(rows, None)):
            names = names or _named(first[1])
            header = first[1]
        else:
            header = []
        first_row = True
        for number, fields in rows:
            while len(fields) > len(names) and not fields[-1].strip():
                fields.pop()  # a separator at the end of each line
            if len(fields) > len(names):
                lines.refuse(self._too_many(file, number, fields, names, first=first_row))
            elif lines.skip and len(fields) < len(names):
                lines.skipped += 1
            elif len(fields) > 1 and fields == header:
                lines.refuse(Unreadable(f"{file}:{number}: the line with the column names again", SKIP))
            else:
                padded = [*fields, *[""] * (len(names) - len(fields))]
                yield {name: text or None for name, text in zip(names, padded, strict=True)}
            first_row = False

    def _too_many(
        self, file: str, number: int, fields: Sequence[str], names: Sequence[str], *, first: bool
    ) -> Unreadable:
        expected, text = words.plural(len(names), "field"), self.separator.join(fields)[:60]
        found = f"{file}:{number}: expected {expected}, got {len(fields)}: {text!r}"
        if names[0].startswith("#"):
            return Unreadable(f"{found}; remove the comments above the names of the columns")
        if len(names) == 1 and (mark := other_separator(names[0], self.separator)):
            return Unreadable(found, {f"separator: {json.dumps(mark)}": "use it as the separator"})
        if len(names) == 1:
            return Unreadable(found, {"format: text": "read each line as a text", **SKIP})
        if not first:
            quotes = f"; put a field that contains {self.separator!r} in quotes" if self.quotes else ""
            return Unreadable(f"{found}{quotes}", SKIP)
        more = ", ".join([*(f"column{n + 1}" for n in range(len(fields) - len(names))), *names])
        cures = {f"columns: [{more}] and header: true": "name them all"}
        return Unreadable(found, {**cures, **SKIP})

    def _fields(self, stream: TextIO, file: str, lines: Lines) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of each line that is not blank, the last one of a quoted field's, and its fields."""
        if len(self.separator) > 1:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, re.split(self.separator, line.rstrip("\r\n"))
            return
        csv.field_size_limit(_LONGEST)
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if self.quotes else csv.QUOTE_NONE
        reader = csv.reader(stream, delimiter=self.separator, quoting=quoting, strict=True)
        while True:
            begun = reader.line_num
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                cures = {"quotes: false": "read quotes as they are"}
                if "end of data" in str(error):
                    raise Unreadable(f"{file}:{begun + 1}: the quote is never closed", cures) from error
                what = f"{file}:{begun + 1}: a quoted field continues after its closing quote"
                lines.refuse(Unreadable(what, {**cures, **SKIP}), reader.line_num - begun)
                continue
            if any(map(str.strip, fields)):
                yield reader.line_num, fields


def other_separator(name: str, separator: str = ",") -> str:
    """Return the mark that may separate the names of several columns, read as one; empty for none."""
    return next((mark for mark in ";\t|," if mark != separator and mark in name), "")


def _named(header: Sequence[str]) -> list[str]:
    """Return names for the columns of a header: a number for a column without one, and for a second of the same."""
    seen: Counter[str] = Counter()
    found = []
    for number, name in enumerate(header):
        name = name or f"Unnamed: {number}"
        found.append(f"{name}.{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found
