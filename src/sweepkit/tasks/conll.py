"""Reads CoNLL files: a word and its tags per line, in columns of tabs or blanks, and a blank line between sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from sweepkit.study.errors import InputError
from sweepkit.tasks.lines import open_text

if TYPE_CHECKING:
    from datasets import Dataset

COLUMNS = ("words", "tags")
"""Names of the first and the last column; those between have none."""
_EXPECTED = {1: "a word and its tag", 2: "a word and a tag"}


def read_conll(files: Sequence[str], names: Sequence[str] | None = None, encoding: str | None = None) -> Dataset:
    """Return a row of lists per sentence; ``names`` are those of all columns. Raises InputError with file and line.

    Lines with -DOCSTART- and comments before a sentence (``# text = …``) are left out.
    """
    from datasets import Dataset

    found: dict[str, list[list[str]]] = {name: [] for name in names or COLUMNS}
    for file in files:
        with open_text(file, encoding) as stream:
            for sentence in _sentences(stream, file, len(names) if names else None):
                columns = list(zip(*sentence, strict=True))
                for name, column in zip(found, columns if names else (columns[0], columns[-1]), strict=True):
                    found[name].append(list(column))
    if not any(found.values()):
        raise InputError(f"task.data: {', '.join(files)} is empty")
    return Dataset.from_dict(found)


def _sentences(stream: TextIO, file: str, width: int | None) -> Iterator[list[list[str]]]:
    """Yield the fields of each sentence's lines; all lines of a file have ``width`` fields, by default the first one's."""
    sentence: list[list[str]] = []
    for number, line in enumerate(stream, 1):
        text = line.rstrip("\r\n")
        fields = text.split("\t") if "\t" in text else text.split(" ")
        fields = fields if "\t" in text else list(filter(None, fields))
        if not text.strip() or fields[0] == "-DOCSTART-":
            if sentence:
                yield sentence
            sentence = []
        elif sentence or not text.startswith("# ") or ("\t" not in text and len(fields) == (width or 2)):
            width = width or len(fields)
            if len(fields) != width or width < 2 or not fields[0].strip() or not fields[-1].strip():
                expected = _EXPECTED.get(width, f"{width} columns")
                raise InputError(f"task.data: {file}:{number}: expected {expected}, got {text[:60]!r}")
            sentence.append(fields)
    if sentence:
        yield sentence
