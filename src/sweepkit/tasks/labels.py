"""Class labels: turns a column into class ids, and describes unusual class counts.

A class is the text exactly as its source writes it: ``01``, ``1`` and ``007`` are three classes. Numbers in typed sources
(Parquet, Arrow) are printed. Ids depend only on the names over all splits, not on the order of rows or files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from sweepkit.study.errors import InputError

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset, DatasetDict
    from numpy.typing import NDArray

_INTEGER = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
RARE = 0.01
"""Share of the training rows below which a class is noted."""
LISTED = 8
"""Maximum number of classes that a note lists."""


def encode_labels(rows: DatasetDict, column: str = "labels") -> tuple[DatasetDict, list[str]]:
    """Return the rows with class ids in ``column`` (a ClassLabel) and the classes' names by id.

    Integers come first, by value, then other names alphabetically; names that a ClassLabel declares keep their order.
    Raises InputError for missing labels, lists, fewer than two classes, and measurements.
    """
    from datasets import ClassLabel

    found = {split: _Labels(split, part.features[column], _arrow(part, column)) for split, part in rows.items()}
    ids, names = _ids(found)
    return _replaced(rows, column, ids, ClassLabel(names=names)), names


def encode_lists(rows: DatasetDict, column: str = "labels", option: str = "label") -> tuple[DatasetDict, list[str]]:
    """Return the rows with a list of class ids in ``column``, and the classes' names by id.

    Each entry is a class as in :func:`encode_labels`; a list may be empty. ``option`` is the task's option that names the
    column. Raises InputError, also for what is no list.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from datasets import ClassLabel, List

    found: dict[str, _Labels] = {}
    offsets: dict[str, NDArray[Any]] = {}
    for split, part in rows.items():
        values = _arrow(part, column)
        inner = getattr(part.features[column], "feature", None)
        if inner is None or not (pa.types.is_list(values.type) or pa.types.is_large_list(values.type)):
            raise InputError(
                f"task.{option}: expected a list in every row, got {values[0].as_py()!r} in row 1 of {split}"
            )
        lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False)
        offsets[split] = np.concatenate([[0], np.cumsum(lengths)]).astype("int32")
        found[split] = _Labels(split, inner, values.flatten(), np.repeat(np.arange(len(values)), lengths), option)
    ids, names = _ids(found)
    lists = {split: pa.ListArray.from_arrays(offsets[split], ids[split]) for split in rows}
    return _replaced(rows, column, lists, List(ClassLabel(names=names))), names


def order(name: str) -> tuple[int, int, str]:
    """Return the key that classes are sorted by.

    >>> sorted(["na", "10", "007", "-1", "9"], key=order)
    ['-1', '007', '9', '10', 'na']
    """
    return (0, int(name), name) if _INTEGER.fullmatch(name) else (1, 0, name)


def has_no_labels(part: Dataset, column: str, train: Dataset) -> bool:
    """Whether a split has no labels: all missing, or all -1 where -1 is not a class of the training rows."""
    if part.with_format("arrow")[:][column].null_count == len(part):
        return True
    if any(hasattr(each.features[column], "feature") for each in (part, train)):  # lists
        return False
    return set(part.unique(column)) <= {None, -1, "-1"} and not {-1, "-1"} & set(train.unique(column))


def notes(rows: DatasetDict, column: str = "labels", what: str = "rows") -> list[str]:
    """Return sentences about classes that look alike, and, with counts, that are missing from a split, alone or rare.

    Where ``column`` holds lists, ``what`` is what their entries stand for.
    """
    feature = rows["train"].features[column]
    names: list[str] = getattr(feature, "feature", feature).names
    lists = not hasattr(feature, "names")
    counts = {split: Counter(chain(*part[column]) if lists else part[column]) for split, part in rows.items()}
    alike: dict[str | float, list[str]] = {}
    for name in names:
        plain = name.strip().casefold()
        alike.setdefault(float(plain) if _number(plain) else plain, []).append(name)
    found = [f"{_listed(map(repr, group))} are different classes" for group in alike.values() if len(group) > 1]
    for split, count in counts.items():
        if len(count) == 1 and len(names) > 1:
            number = next(iter(count))
            found.append(f"{split} has only one class: all {count[number]} {what} are {names[number]!r}")
        elif missing := [number for number in range(len(names)) if not count[number]]:
            listed = _listed(f"{names[number]!r} ({_elsewhere(counts, split, number)})" for number in missing)
            found.append(f"{split} has no {what} of {len(missing)} of {len(names)} classes: {listed}")
    train = counts["train"]
    total = sum(train.values())
    rare = [number for number in range(len(names)) if 0 < train[number] < RARE * total]
    if rare:
        listed = _listed(f"{names[number]!r} {train[number]}" for number in rare)
        found.append(
            f"train is very unbalanced: of {total} {what}, {listed}; the most frequent class has {max(train.values())}"
        )
    return found


def _elsewhere(counts: dict[str, Counter[int]], split: str, number: int) -> str:
    return ", ".join(
        f"{count[number]} in {other}" for other, count in counts.items() if other != split and count[number]
    )


def _listed(items: Iterable[str]) -> str:
    shown = list(items)
    more = f" and {len(shown) - LISTED} more" if len(shown) > LISTED else ""
    return ", ".join(shown[:LISTED]) + more


def _arrow(part: Dataset, column: str) -> pyarrow.Array:
    import pyarrow as pa

    values = part.with_format("arrow")[:][column]
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


@dataclass(frozen=True)
class _Labels:
    """The labels of a split, one per row or of all rows in a row."""

    split: str
    feature: Any
    values: pyarrow.Array
    rows: NDArray[Any] | None = None
    """Row number of each label, where rows have several."""
    option: str = "label"
    """The task's option that names the column."""

    def place(self, index: int) -> str:
        """Return where a label stands, for people."""
        return f"row {(index if self.rows is None else self.rows[index]) + 1} of {self.split}"


def _ids(labels: Mapping[str, _Labels]) -> tuple[dict[str, pyarrow.Array], list[str]]:
    """Return the class id of each label by split, and the names by id."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = {split: _texts(each) for split, each in labels.items()}
    names = _names(labels, texts)
    known = pa.array(names, pa.string())
    return {split: pc.cast(pc.index_in(each, value_set=known), pa.int64()) for split, each in texts.items()}, names


def _replaced(rows: DatasetDict, column: str, values: Mapping[str, pyarrow.Array], feature: Any) -> DatasetDict:
    """Return the rows with other values in a column."""
    from datasets import DatasetDict

    parts = {}
    for split, part in rows.items():
        added = part.add_column(f"{column} encoded", values[split], feature=feature)
        parts[split] = added.remove_columns([column]).rename_column(f"{column} encoded", column)
    return DatasetDict(parts)


def _texts(labels: _Labels) -> pyarrow.Array:
    """Return the labels as text. Raises InputError for missing ones."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from datasets import ClassLabel

    feature, values = labels.feature, labels.values
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if "binary" in str(values.type):  # text that its writer did not mark as such
        values = pc.cast(pc.cast(values, pa.binary()), pa.string())
    kind = values.type
    if isinstance(feature, ClassLabel):
        names = pa.array(feature.names, pa.string())
        values = pc.if_else(pc.greater_equal(values, 0), values, None)
        texts = names.take(values)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        texts = pc.cast(values, pa.string())
        blank = pc.equal(pc.utf8_trim_whitespace(texts), "")
        texts = pc.if_else(blank, None, texts)
    elif pa.types.is_floating(kind):
        texts = _of_floats(labels, values)
    elif pa.types.is_boolean(kind):
        texts = pc.if_else(values, "True", "False")
    elif pa.types.is_integer(kind) or pa.types.is_null(kind):
        texts = pc.cast(values, pa.string())
    elif pa.types.is_nested(kind):
        row = next((number for number, value in enumerate(values) if value.is_valid), 0)
        raise InputError(
            f"task.{labels.option}: expected one value per row, got {values[row].as_py()!r} in {labels.place(row)}; "
            "for several labels per row use type: multi-label-classification"
        )
    else:
        texts = pa.array([None if value is None else str(value) for value in values.to_pylist()], pa.string())
    _complete(labels, texts)
    return texts


def _of_floats(labels: _Labels, values: pyarrow.Array) -> pyarrow.Array:
    """Return whole numbers without their fraction; an integer column with missing values is read as floats."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = pc.cast(values, pa.float64())
    values = pc.if_else(pc.is_nan(values), None, values)
    whole = pc.and_(pc.less(pc.abs(values), 2.0**53), pc.equal(pc.floor(values), values))
    broken = pc.index(whole, False).as_py()
    if broken >= 0:
        raise _measurement(repr(values[broken].as_py()), labels, broken)
    return pc.cast(pc.cast(values, pa.int64()), pa.string())


def _complete(labels: _Labels, texts: pyarrow.Array) -> None:
    import pyarrow.compute as pc

    if texts.null_count:
        row = pc.index(pc.is_null(texts), True).as_py()
        raise InputError(
            f"task.data: {texts.null_count} of {len(texts)} {'rows' if labels.rows is None else 'entries'} of "
            f"{labels.split} have no label, the first is {labels.place(row).partition(' of ')[0]}; complete or remove them"
        )


def _names(labels: Mapping[str, _Labels], texts: Mapping[str, pyarrow.Array]) -> list[str]:
    """Return all classes in the order of their ids."""
    from datasets import ClassLabel

    declared: list[str] = []
    features = [each.feature for each in labels.values()]
    for feature in features:
        if isinstance(feature, ClassLabel):
            declared += [name for name in feature.names if name not in declared]
    same = len({tuple(f.names) if isinstance(f, ClassLabel) else None for f in features}) == 1
    found = {text for part in texts.values() for text in part.unique().to_pylist()}
    names = declared if declared and same else sorted(found | set(declared), key=order)
    if len(names) < 2:
        only = f"every row has the label {names[0]!r}" if names else "no row has a label"
        option = next(iter(labels.values())).option
        raise InputError(f"task.{option}: {only}; at least two classes are needed")
    if not declared:
        _refuse_measurements(labels, texts, found)
    return names


def _refuse_measurements(
    labels: Mapping[str, _Labels], texts: Mapping[str, pyarrow.Array], found: Iterable[str]
) -> None:
    """Raise InputError where all labels are numbers and some are not whole."""
    found = list(found)
    fractions = [name for name in found if _DECIMAL.fullmatch(name) and float(name) % 1]
    if fractions and all(map(_number, found)):
        name = min(fractions, key=float)
        split, row = next((s, part.to_pylist().index(name)) for s, part in texts.items() if name in part.to_pylist())
        raise _measurement(name, labels[split], row)


def _number(text: str) -> bool:
    return bool(_INTEGER.fullmatch(text) or _DECIMAL.fullmatch(text))


def _measurement(text: str, labels: _Labels, index: int) -> InputError:
    return InputError(
        f"task.{labels.option}: {text} ({labels.place(index)}) is a measurement, not a class; for numbers use "
        "type: text-regression"
    )
