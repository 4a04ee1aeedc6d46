"""Which rows train and which evaluate: a validation split set aside, and limits on the number of rows."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from sweepkit.study.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


def with_validation(rows: DatasetDict, fraction: float, seed: int, *, stratify: str | None = None) -> DatasetDict:
    """Return the rows with a validation split: their own, or a seeded, stratified fraction of train."""
    from datasets import DatasetDict

    if "validation" in rows:
        return rows
    train = rows["train"]
    aside = rows_aside(train, fraction)
    column = stratify
    if stratify is not None:
        counts = Counter(train[stratify])
        if min(counts.values()) < 2 or aside < len(counts) or len(train) - aside < len(counts):
            column = None
    parts = train.train_test_split(test_size=aside, seed=seed, stratify_by_column=column)
    return DatasetDict({**rows, "train": parts["train"], "validation": parts["test"]})


def rows_aside(train: Dataset, fraction: float) -> int:
    """Return how many rows to set aside for validation: at least one, but not all. Raises InputError."""
    if len(train) < 2:
        raise InputError(f"task.data: {len(train)} row is too few to set some aside for validation")
    return min(max(1, round(fraction * len(train))), len(train) - 1)


def limit(rows: DatasetDict, samples: dict[str, int | None], seed: int) -> DatasetDict:
    """Return at most ``samples[split]`` rows of each split, drawn with ``seed``; None keeps all in their order."""
    from datasets import DatasetDict

    result = DatasetDict(rows)
    for split, part in rows.items():
        most = samples.get(split)
        if most is not None and most < len(part):
            result[split] = part.shuffle(seed=seed).select(range(most))
    return result
