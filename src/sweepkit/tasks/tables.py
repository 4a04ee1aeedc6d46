"""What the columns of a table hold, by a sample of their values: texts, classes, numbers, lists, ids, dates."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepkit.tasks.data import DataSpec, read
from sweepkit.tasks.shapes import plain

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

SAMPLE = 5_000
"""Rows that are looked at, spread evenly over the table, which may be sorted."""
CLASSES = 20
"""Whole numbers are classes up to so many different ones, and beyond that numbers."""
SHOWN = 5
SEPARATORS = "|;,"
RECURRING = 0.8
"""Share of a text's labels that occur in other combinations too, from which on it is taken for several labels."""
LISTS = "lists of mappings"
IDS = re.compile(
    r"(?!(label|class|target|category)_)(.*_)?(id|ids|idx|index|uuid|guid|hash|key)|unnamed.*|row|rowid|line|number|no|"
)
_COMMA = re.compile(r"[-+]?\d+,\d+")
_LIST = re.compile(r"\[.*\]", re.DOTALL)
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?([T ].*)?|\d\d?[./]\d\d?[./]\d{2,4}( .*)?|\d{4}/\d\d?/\d\d?( .*)?")


@dataclass(frozen=True)
class TableColumn:
    """A column, by its values."""

    name: str
    about: str
    """What it holds, in words."""
    holds: frozenset[str] = frozenset()
    """What it holds as far as its name may say so; see Role."""
    loosely: frozenset[str] = frozenset()
    """What it could be taken for where a person says so."""
    surely: frozenset[str] = frozenset()
    """What it holds whatever its name."""
    alone: bool = False
    """Whether all rows have the same value."""
    separator: str | None = None
    """What separates several labels in its texts."""

    @property
    def plain(self) -> str:
        """The name as Role has it."""
        return plain(self.name)


def read_quietly(spec: DataSpec, home: Path) -> DatasetDict:
    """Return the raw rows by split, without bars; an error is raised, not logged too. Raises InputError."""
    from datasets import disable_progress_bars, logging

    disable_progress_bars()
    logging.set_verbosity(logging.CRITICAL)
    return read(spec, home)


def table_column(name: str, rows: Dataset, *, named: bool) -> TableColumn:
    """Return a column by a sample of its values; one that a person ``named`` holds whatever it could."""
    from datasets import ClassLabel, Image

    feature = rows.features[name]
    if isinstance(feature, Image):
        return sure_column(name, "images", "image")
    values = list(rows.select(range(0, len(rows), max(1, math.ceil(len(rows) / SAMPLE))))[name])
    values = [value for value in values if value is not None and (not isinstance(value, str) or value.strip())]
    if not values:
        return TableColumn(name, "empty")
    if isinstance(values[0], (list, dict)):
        return _nested(name, values)
    if isinstance(feature, ClassLabel):
        values = [feature.names[value] if value >= 0 else "-1" for value in values]
    found = _single(name, values, declared=isinstance(feature, ClassLabel) or isinstance(values[0], bool))
    return replace(found, holds=found.loosely, surely=frozenset()) if named else found


def sure_column(name: str, about: str, *holds: str) -> TableColumn:
    """Return a column whose values say what it holds, whatever its name."""
    return TableColumn(name, about, frozenset(holds), frozenset(holds), frozenset(holds))


def _nested(name: str, values: Sequence[Any]) -> TableColumn:
    """Return a column of lists or mappings."""
    if isinstance(values[0], dict):
        return (
            sure_column(name, "answers in a text", "answers")
            if {"text", "answer_start"} <= values[0].keys()
            else TableColumn(name, "mappings")
        )
    inner = [each for value in values[:500] for each in value]
    if inner and all(isinstance(each, dict) for each in inner):
        return sure_column(name, "conversations", "messages") if "role" in inner[0] else TableColumn(name, LISTS)
    kinds = {type(each) for each in inner}
    if kinds == {str}:
        holds = frozenset({"words", "tags", "labels"})
        return TableColumn(name, "lists of texts", holds, holds)
    holds = frozenset({"tags", "labels", "image"} if kinds <= {int, bool} else {"image"})
    return TableColumn(name, "lists of numbers", holds, holds)


class _Sample:
    """The texts of a column's rows, and what they have in common."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.different = list(dict.fromkeys(texts))
        self.numbers = [number for number in map(_number, texts) if number is not None]
        self.numeric = len(self.numbers) == len(texts)
        self.whole = self.numeric and all(number % 1 == 0 for number in self.numbers)
        self.long = sum(map(len, texts)) / len(texts) >= 15
        self.wordy = self.long and sum(" " in text for text in texts) > len(texts) / 2
        self.spread = len(self.different) > len(texts) / 2 and len(texts) > 1

    def all_match(self, pattern: re.Pattern[str]) -> bool:
        return all(map(pattern.fullmatch, self.texts))

    @property
    def text(self) -> frozenset[str]:
        """Text, unless all of it are numbers."""
        return frozenset() if self.numeric else frozenset({"text"})

    @property
    def separator(self) -> str | None:
        """What separates several labels in the texts: split at it, they are fewer labels, nearly all in several texts."""
        for mark in SEPARATORS:
            rows = [{part for each in text.split(mark) if (part := each.strip())} for text in self.different]
            parts = Counter(part for row in rows for part in row)
            recurring = sum(count for count in parts.values() if count > 1)
            if len(parts) < len(rows) and recurring >= RECURRING * parts.total():
                return mark
        return None

    @property
    def about(self) -> str:
        shown = [text[:20] for text in self.different[:SHOWN]]
        return f"{len(self.different)} different values: {', '.join(shown)}{', …' * (len(self.different) > SHOWN)}"


def _single(name: str, values: Sequence[Any], *, declared: bool) -> TableColumn:
    """Return a column of one value per row; ``declared`` ones are classes by their type."""
    sample = _Sample([str(value).strip() for value in values])
    if len(sample.different) == 1:
        return TableColumn(name, f"{sample.different[0][:40]!r} in every row", loosely=sample.text, alone=True)
    if sample.all_match(_DATE) or hasattr(values[0], "year"):
        return TableColumn(name, "dates", loosely=frozenset({"class"}))
    if IDS.fullmatch(plain(name)) and not sample.wordy:
        other = {"number"} if sample.numeric and not declared else {"text"}
        return TableColumn(name, "ids", loosely=frozenset({"class", *other}))
    if declared:
        return sure_column(name, sample.about, "class")
    if sample.numeric:
        return _numeric(name, sample)
    if sample.all_match(_COMMA):
        return TableColumn(name, "numbers with decimal commas, which are not read as numbers; write 1.5 for 1,5")
    both = frozenset({"text", "class"})
    if sample.all_match(_LIST):
        return TableColumn(name, "lists written as text, which are not read as lists; write red|blue", loosely=both)
    if mark := sample.separator:
        labels = frozenset({"labels"})
        about = f"labels separated by {mark!r}"
        return TableColumn(name, about, labels | {"text"}, labels | both, labels, separator=mark)
    if sample.spread:
        surely = frozenset({"text"} if sample.wordy else ())
        return TableColumn(name, "texts, different in most rows", frozenset({"text"}), both, surely)
    classes = len(sample.different) <= max(2, min(10 * CLASSES, len(values) // 5)) and not sample.long
    return TableColumn(name, sample.about, both, both, frozenset({"class"} if classes else ()))


def _numeric(name: str, sample: _Sample) -> TableColumn:
    """Return a column of numbers: classes if they are few and whole, ids if they count the rows."""
    numbers, few = sample.numbers, len(sample.different)
    loosely = frozenset({"number", "class"} if sample.whole else {"number"})
    if sample.whole and few == len(numbers) and numbers in (sorted(numbers), sorted(numbers, reverse=True)):
        return TableColumn(name, "numbers that count the rows", loosely=loosely)
    if sample.whole and few <= min(CLASSES, len(numbers) / 2):
        return TableColumn(name, sample.about, frozenset({"class"}), loosely, frozenset({"class"}))
    about = f"{few} different numbers from {min(numbers):g} to {max(numbers):g}"
    surely = frozenset() if sample.whole and sample.spread else frozenset({"number"})
    return TableColumn(name, about, frozenset({"number"}), loosely, surely)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
