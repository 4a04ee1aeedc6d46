"""Class labels: turns a column into class ids, and describes unusual class counts.

A class is the text exactly as its source writes it: ``01``, ``1`` and ``007`` are three classes. Numbers in typed sources
(Parquet, Arrow) are printed. Ids depend only on the names over all splits, not on the order of rows or files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sweepkit.study.errors import InputError

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset, DatasetDict

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
    from datasets import ClassLabel, DatasetDict

    texts = {split: _texts(part, split, column) for split, part in rows.items()}
    names = _names(rows, texts, column)
    feature = ClassLabel(names=names)
    encoded = {split: _with_ids(part, texts[split], column, feature) for split, part in rows.items()}
    return DatasetDict(encoded), names


def order(name: str) -> tuple[int, int, str]:
    """Return the key that classes are sorted by.

    >>> sorted(["na", "10", "007", "-1", "9"], key=order)
    ['-1', '007', '9', '10', 'na']
    """
    return (0, int(name), name) if _INTEGER.fullmatch(name) else (1, 0, name)


def unlabelled(part: Dataset, column: str, classes: Iterable[str] = ()) -> bool:
    """Whether a split has no labels: all missing, or all -1 where -1 is not a class of the training rows."""
    values = set(part.unique(column))
    return values <= {None} or (values <= {None, -1, "-1"} and "-1" not in set(classes))


def notes(rows: DatasetDict, column: str = "labels") -> list[str]:
    """Return sentences about classes that look alike, and, with counts, that are missing from a split, alone or rare."""
    names: list[str] = rows["train"].features[column].names
    counts = {split: Counter(part[column]) for split, part in rows.items()}
    alike: dict[str | float, list[str]] = {}
    for name in names:
        plain = name.strip().casefold()
        alike.setdefault(float(plain) if _number(plain) else plain, []).append(name)
    found = [f"{_listed(map(repr, group))} are different classes" for group in alike.values() if len(group) > 1]
    for split, count in counts.items():
        if len(count) == 1 and len(names) > 1:
            number = next(iter(count))
            found.append(f"{split} has only one class: all {count[number]} rows are {names[number]!r}")
        elif missing := [number for number in range(len(names)) if not count[number]]:
            listed = _listed(f"{names[number]!r} ({_elsewhere(counts, split, number)})" for number in missing)
            found.append(f"{split} has no rows of {len(missing)} of {len(names)} classes: {listed}")
    train = counts["train"]
    total = sum(train.values())
    rare = [number for number in range(len(names)) if 0 < train[number] < RARE * total]
    if rare:
        listed = _listed(f"{names[number]!r} {train[number]}" for number in rare)
        found.append(
            f"train is very unbalanced: of {total} rows, {listed}; the most frequent class has {max(train.values())}"
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


def _texts(part: Dataset, split: str, column: str) -> pyarrow.Array:
    """Return the column as text. Raises InputError for missing labels."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from datasets import ClassLabel

    feature = part.features[column]
    values = part.with_format("arrow")[:][column]
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
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
        texts = _of_floats(values, split, column)
    elif pa.types.is_boolean(kind):
        texts = pc.if_else(values, "True", "False")
    elif pa.types.is_integer(kind) or pa.types.is_null(kind):
        texts = pc.cast(values, pa.string())
    elif pa.types.is_nested(kind):
        row = next((number for number, value in enumerate(values) if value.is_valid), 0)
        raise InputError(
            f"task.label: expected one value per row, got {values[row].as_py()!r} in row {row + 1} of {split}; "
            "several labels per row need your own Task (task.path)"
        )
    else:
        texts = pa.array([None if value is None else str(value) for value in values.to_pylist()], pa.string())
    _complete(texts, split)
    return texts


def _of_floats(values: pyarrow.Array, split: str, column: str) -> pyarrow.Array:
    """Return whole numbers without their fraction; an integer column with missing values is read as floats."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = pc.cast(values, pa.float64())
    values = pc.if_else(pc.is_nan(values), None, values)
    whole = pc.and_(pc.less(pc.abs(values), 2.0**53), pc.equal(pc.floor(values), values))
    broken = pc.index(whole, False).as_py()
    if broken >= 0:
        raise _measurement(repr(values[broken].as_py()), split, broken)
    return pc.cast(pc.cast(values, pa.int64()), pa.string())


def _complete(texts: pyarrow.Array, split: str) -> None:
    import pyarrow.compute as pc

    if texts.null_count:
        row = pc.index(pc.is_null(texts), True).as_py()
        raise InputError(
            f"task.data: {texts.null_count} of {len(texts)} rows of {split} have no label, "
            f"the first is row {row + 1}; complete or remove them"
        )


def _names(rows: DatasetDict, texts: dict[str, pyarrow.Array], column: str) -> list[str]:
    """Return all classes in the order of their ids."""
    from datasets import ClassLabel

    declared: list[str] = []
    features = [part.features[column] for part in rows.values()]
    for feature in features:
        if isinstance(feature, ClassLabel):
            declared += [name for name in feature.names if name not in declared]
    same = len({tuple(f.names) if isinstance(f, ClassLabel) else None for f in features}) == 1
    found = {text for part in texts.values() for text in part.unique().to_pylist()}
    names = declared if declared and same else sorted(found | set(declared), key=order)
    if len(names) < 2:
        raise InputError(f"task.label: every row has the label {names[0]!r}; at least two classes are needed")
    if not declared:
        _refuse_measurements(texts, found)
    return names


def _refuse_measurements(texts: dict[str, pyarrow.Array], found: Iterable[str]) -> None:
    """Raise InputError where all labels are numbers and some are not whole."""
    found = list(found)
    fractions = [name for name in found if _DECIMAL.fullmatch(name) and float(name) % 1]
    if fractions and all(map(_number, found)):
        name = min(fractions, key=float)
        split, row = next((s, part.to_pylist().index(name)) for s, part in texts.items() if name in part.to_pylist())
        raise _measurement(name, split, row)


def _number(text: str) -> bool:
    return bool(_INTEGER.fullmatch(text) or _DECIMAL.fullmatch(text))


def _measurement(text: str, split: str, row: int) -> InputError:
    return InputError(
        f"task.label: {text} (row {row + 1} of {split}) is a measurement, not a class; for numbers use type: text-regression"
    )


def _with_ids(part: Dataset, texts: pyarrow.Array, column: str, feature: Any) -> Dataset:
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = pc.index_in(texts, value_set=pa.array(feature.names, pa.string()))
    numbers = ids.to_numpy(zero_copy_only=False).astype("int64")
    encoded = part.add_column(f"{column} encoded", numbers, feature=feature)
    return encoded.remove_columns([column]).rename_column(f"{column} encoded", column)
