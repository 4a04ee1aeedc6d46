"""What the columns of a table hold, by a sample of their values: texts, classes, numbers, lists, ids, dates."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
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
IDS = re.compile(
    r"(?!(label|class|target|category)_)(.*_)?(id|ids|idx|index|uuid|guid|hash|key)|unnamed.*|row|rowid|line|number|no|"
)
_COMMA = re.compile(r"[-+]?\d+,\d+")
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
    values = [value for value in values if value is not None and value != ""]
    if not values:
        return TableColumn(name, "empty")
    if isinstance(values[0], (list, dict)):
        return _nested(name, values)
    if isinstance(feature, ClassLabel):
        values = [feature.names[value] if value >= 0 else "-1" for value in values]
    found = _single(name, values, declared=isinstance(feature, ClassLabel) or isinstance(values[0], bool))
    return TableColumn(name, found.about, found.loosely, found.loosely) if named else found


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
        return (
            sure_column(name, "conversations", "messages")
            if "role" in inner[0]
            else TableColumn(name, "lists of mappings")
        )
    kinds = {type(each) for each in inner}
    if kinds == {str}:
        holds = frozenset({"words", "tags", "labels"})
        return TableColumn(name, "lists of texts", holds, holds)
    holds = frozenset({"tags", "labels", "image"} if kinds <= {int, bool} else {"image"})
    return TableColumn(name, "lists of numbers", holds, holds)


def _single(name: str, values: Sequence[Any], *, declared: bool) -> TableColumn:
    """Return a column of one value per row."""
    texts = [str(value).strip() for value in values]
    different = list(dict.fromkeys(texts))
    few, numbers = len(different), [_number(text) for text in texts]
    about = (
        f"{few} different values: {', '.join(text[:20] for text in different[:SHOWN])}{', …' if few > SHOWN else ''}"
    )
    if few == 1:
        return TableColumn(name, f"{different[0][:40]!r} in every row", loosely=_text(texts), alone=True)
    if all(_DATE.fullmatch(text) for text in texts) or hasattr(values[0], "year"):
        return TableColumn(name, "dates", loosely=frozenset({"class"}))
    numeric = not declared and all(number is not None for number in numbers)
    whole = numeric and all(number is not None and number % 1 == 0 for number in numbers)
    spread, words = few > len(texts) / 2 and len(texts) > 1, sum(" " in text for text in texts) > len(texts) / 2
    long = sum(map(len, texts)) / len(texts) >= 15
    if IDS.fullmatch(plain(name)) and not (words and long):
        return TableColumn(name, "ids", loosely=frozenset({"class", *(["number"] if numeric else ["text"])}))
    if numeric:
        return _numeric(name, about, numbers, few, whole=whole)
    if all(_COMMA.fullmatch(text) for text in texts):
        return TableColumn(name, "numbers with decimal commas, which are not read as numbers; write 1.5 for 1,5")
    if declared:
        return sure_column(name, about, "class")
    if spread:
        surely = frozenset({"text"} if words and long else ())
        return TableColumn(
            name, "texts, different in most rows", frozenset({"text"}), frozenset({"text", "class"}), surely
        )
    surely = frozenset({"class"} if few <= max(2, min(10 * CLASSES, len(texts) // 5)) and not long else ())
    return TableColumn(name, about, frozenset({"class", "text"}), frozenset({"class", "text"}), surely)


def _numeric(name: str, about: str, numbers: Sequence[float | None], few: int, *, whole: bool) -> TableColumn:
    """Return a column of numbers: classes if they are few and whole, ids if they count the rows."""
    given = [number for number in numbers if number is not None]
    loosely = frozenset({"number", "class"} if whole else {"number"})
    if whole and few == len(given) and (given == sorted(given) or given == sorted(given, reverse=True)):
        return TableColumn(name, "numbers that count the rows", loosely=loosely)
    if whole and few <= CLASSES and few <= len(given) / 2:
        return TableColumn(name, about, frozenset({"class"}), loosely, frozenset({"class"}))
    about = f"{few} different numbers from {min(given):g} to {max(given):g}"
    surely = frozenset() if whole and few > len(given) / 2 else frozenset({"number"})
    return TableColumn(name, about, frozenset({"number"}), loosely, surely)


def _text(texts: Sequence[str]) -> frozenset[str]:
    return frozenset({"text"} if any(_number(text) is None for text in texts) else ())


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
