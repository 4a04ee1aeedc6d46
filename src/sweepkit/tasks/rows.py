"""The rows of built-in tasks once they are read: chosen columns, and nothing missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from sweepkit.study.errors import InputError, nearest
from sweepkit.tasks.labels import has_no_labels

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


def pair(column: str | Sequence[str]) -> dict[str, str]:
    """Return new name → column for one text column, or two that form a pair."""
    names = [column] if isinstance(column, str) else list(column)
    return dict(zip(("text", "text_pair"), names, strict=False))


def choose(rows: DatasetDict, columns: dict[str, str], labels: Collection[str] = ("labels",)) -> DatasetDict:
    """Return the chosen columns; ``columns`` is new name → name in the source, or ``name.key`` in a column of mappings.

    Raises InputError. A test split without a label column is left out.
    """
    from datasets import DatasetDict

    if twice := [name for name, count in Counter(columns.values()).items() if count > 1]:
        raise InputError(f"task.data: the column {twice[0]} is named for two purposes; each needs a column of its own")
    rows = DatasetDict({split: _flat(part, columns.values()) for split, part in rows.items()})
    for split, part in list(rows.items()):
        missing = [name for name in columns.values() if name not in part.column_names]
        if split == "test" and missing and missing == [columns[name] for name in labels if name in columns]:
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


def _flat(part: Dataset, names: Iterable[str]) -> Dataset:
    """Return the rows with a column ``name.key`` for each key of the mappings in a column, where one is asked for."""
    roots = {name.partition(".")[0] for name in names if name not in part.column_names}
    return part.flatten() if any(isinstance(part.features.get(root), dict) for root in roots) else part


def as_text(rows: DatasetDict, columns: dict[str, str]) -> DatasetDict:
    """Return the rows if ``columns``, new name → name in the source, hold one value each; bytes are decoded as UTF-8.

    Raises InputError for lists, mappings, images and the like.
    """
    from datasets import Value

    for new, old in columns.items():
        for split, part in rows.items():
            kind = part.features[new]
            if not isinstance(kind, Value):
                found = str(part[0][new])[:60] if len(part) else kind
                raise InputError(
                    f"task.{new.partition('_')[0]}: expected one text per row, but {old} of {split} holds {found}"
                )
            if "binary" in kind.dtype:
                rows[split] = part.cast_column(new, Value("string"))
    return rows


def complete(
    rows: DatasetDict, *, label: str | None, drop_duplicates: bool = False, optional: Collection[str] = ()
) -> DatasetDict:
    """Return the rows if no split is empty and no text or label, ``optional`` columns aside, is missing. Raises InputError.

    A label that consists of blanks is missing. A test split without labels is left out.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    from datasets import DatasetDict

    result: dict[str, Dataset] = {}
    for split, part in rows.items():
        if not len(part):
            raise InputError(f"task.data: {split} is empty")
        if label is not None and split == "test" and has_no_labels(part, label, rows["train"]):
            continue
        for column in [name for name in part.column_names if name not in optional]:
            values = part.with_format("arrow")[:][column]
            missing = pc.is_null(values)
            if column == label and pa.types.is_string(values.type):
                missing = pc.or_kleene(
                    missing, pc.equal(pc.utf8_trim_whitespace(values), "")
                )  # as encode_labels has it
            empty = [number for number, value in enumerate(missing.to_pylist()) if value]
            if empty:
                what = "no label" if column == label else f"no {column}"
                raise InputError(
                    f"task.data: {len(empty)} of {len(part)} rows of {split} have {what}, "
                    f"the first is row {empty[0] + 1}; complete or remove them"
                )
        result[split] = _without_duplicates(part) if drop_duplicates else part
    return DatasetDict(result)


def _without_duplicates(part: Dataset) -> Dataset:
    import pandas

    keys = pandas.DataFrame({name: [repr(value) for value in part[name]] for name in part.column_names})
    return part.select((~keys.duplicated()).to_numpy().nonzero()[0])
