"""Rows made fit for training: columns chosen, gaps refused, labels numbered, splits made. Knows no source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sweepkit.study.errors import InputError, nearest

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


def pair(column: str | Sequence[str]) -> dict[str, str]:
    """Return new name → source name for one text column, or two that are read as a pair."""
    names = [column] if isinstance(column, str) else list(column)
    return dict(zip(("text", "text_pair"), names, strict=False))


def choose(rows: DatasetDict, columns: dict[str, str]) -> DatasetDict:
    """Return only the columns asked for; ``columns`` is new name → name in the source.

    A test split without labels is left out. Raises InputError.
    """
    from datasets import DatasetDict

    rows = DatasetDict(rows)
    for split, part in list(rows.items()):
        missing = [name for name in columns.values() if name not in part.column_names]
        if split == "test" and missing == [columns.get("labels")]:
            del rows[split]
        elif missing:
            found = ", ".join(part.column_names)
            raise InputError(
                f"task.data: {split} has no column {', '.join(missing)}; its columns are {found}"
                f"{nearest(missing[0], part.column_names)}"
            )
    chosen = rows.select_columns(list(dict.fromkeys(columns.values())))
    for new, old in columns.items():
        if new != old:
            chosen = chosen.rename_column(old, new)
    return chosen


def complete(rows: DatasetDict, *, label: str | None, drop_duplicates: bool = False) -> DatasetDict:
    """Return the rows, checked: none empty, no text missing, no label missing (a test split without labels is dropped).

    Raises InputError.
    """
    from datasets import DatasetDict

    result: dict[str, Dataset] = {}
    for split, part in rows.items():
        if not len(part):
            raise InputError(f"task.data: {split} is empty: no row was found")
        if label is not None and split == "test" and all(value in (None, -1) for value in part[label]):
            continue
        for column in part.column_names:
            nulls = part.with_format("arrow")[:][column].is_null().to_pylist()
            empty = [number for number, value in enumerate(nulls) if value]
            if empty:
                what = "no label" if column == label else f"no {column}"
                raise InputError(
                    f"task.data: {len(empty)} of {len(part)} rows of {split} have {what}, "
                    f"the first is row {empty[0] + 1}; complete or remove them"
                )
        result[split] = _without_duplicates(part) if drop_duplicates else part
    return DatasetDict(result)


def _without_duplicates(part: Dataset) -> Dataset:
    frame = part.to_pandas()
    kept = (~frame.astype(str).duplicated()).to_numpy().nonzero()[0]
    return part.select(kept)


def encode_labels(rows: DatasetDict, column: str = "labels") -> tuple[DatasetDict, list[str]]:
    """Return the rows with class numbers in ``column`` and the classes' names, sorted (numbers as numbers)."""
    from datasets import ClassLabel

    feature = next(iter(rows.values())).features[column]
    if isinstance(feature, ClassLabel):
        _no_negative(rows, column)
        return rows, list(feature.names)
    values = sorted({value for part in rows.values() for value in part.unique(column)}, key=_order)
    if broken := [value for value in values if isinstance(value, float) and value != int(value)]:
        raise InputError(f"task.label: {broken[0]} is no class; for numbers take type: text-regression")
    if any(isinstance(value, (list, dict)) for value in values):
        raise InputError(f"task.label: a label is one value, got {values[0]!r}")
    if len(values) < 2:
        raise InputError(f"task.label: every row has the label {values[0]!r}; at least two classes are needed")
    names = [str(int(value)) if isinstance(value, float) else str(value) for value in values]
    number_of = {value: number for number, value in enumerate(values)}
    feature = ClassLabel(names=names)
    encoded = rows.map(
        lambda batch: {column: [number_of[value] for value in batch[column]]}, batched=True, remove_columns=[column]
    ).cast_column(column, feature)
    return encoded, names


def _order(value: Any) -> tuple[int, Any]:
    return (0, value) if isinstance(value, (bool, int, float)) else (1, str(value))


def _no_negative(rows: DatasetDict, column: str) -> None:
    for split, part in rows.items():
        if negative := sum(value < 0 for value in part[column]):
            raise InputError(f"task.data: {negative} of {len(part)} rows of {split} have no label (-1)")


def with_validation(rows: DatasetDict, fraction: float, seed: int, *, stratify: str | None = None) -> DatasetDict:
    """Return the rows with a validation split: the given one, or a seeded, stratified fraction of train."""
    from datasets import DatasetDict

    if "validation" in rows:
        return rows
    train = rows["train"]
    if len(train) < 2:
        raise InputError(f"task.data: {len(train)} row is too few to set some aside for validation")
    aside = min(max(1, round(fraction * len(train))), len(train) - 1)
    column = stratify
    if stratify is not None:
        counts = Counter(train[stratify])
        if min(counts.values()) < 2 or aside < len(counts) or len(train) - aside < len(counts):
            column = None
    parts = train.train_test_split(test_size=aside, seed=seed, stratify_by_column=column)
    return DatasetDict({**rows, "train": parts["train"], "validation": parts["test"]})


def limit(rows: DatasetDict, samples: dict[str, int | None], seed: int) -> DatasetDict:
    """Return at most ``samples[split]`` rows of each split, drawn with ``seed``; None keeps all as they are."""
    from datasets import DatasetDict

    result = DatasetDict(rows)
    for split, part in rows.items():
        most = samples.get(split)
        if most is not None and most < len(part):
            result[split] = part.shuffle(seed=seed).select(range(most))
    return result
