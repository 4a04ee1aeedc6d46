"""What a model predicts for each row, in the words of its data: a class and its probability, tags, a span, a text, a number.

Also makes a file's rows the test split of a task, labelled or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepkit.study.errors import InputError
from sweepkit.tasks.data import SUFFIXES, DataSpec, read
from sweepkit.tasks.metrics import Decided, first_array

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from sweepkit.tasks.task import Task

PREDICTION, PROBABILITY, LABEL = "prediction", "probability", "label"
"""Columns of predictions; ``label`` is what the row should have been."""
_FILE_OPTIONS = ("format", "separator", "columns", "header", "quotes", "encoding")


def columns(decided: Decided, outputs: Any, names: Mapping[int, str]) -> dict[str, list[Any]]:
    """Return the columns of what was decided; ``names`` are the classes' by id, as a model's configuration has them."""
    for kind in ("answers", "texts", "tags"):
        if kind in decided.predictions:
            return {PREDICTION: list(decided.predictions[kind]), LABEL: list(decided.references)}
    if "classes" not in decided.predictions:
        return {PREDICTION: decided.predictions["numbers"].tolist(), LABEL: decided.references.tolist()}
    found, scores = decided.predictions["classes"], first_array(outputs)

    def named(ids: Any) -> list[Any]:
        if getattr(ids, "ndim", 1) == 2:
            return [[names.get(int(at), int(at)) for at in row.nonzero()[0]] for row in ids]
        return [names.get(int(each), int(each)) for each in ids]

    result: dict[str, list[Any]] = {PREDICTION: named(found), LABEL: named(decided.references)}
    if "numbers" in decided.predictions:  # a threshold on each logit
        share = _sigmoid(decided.predictions["numbers"])
        if found.ndim == 2:
            result[PROBABILITY] = [row[picked > 0].tolist() for row, picked in zip(share, found, strict=True)]
        else:
            result[PROBABILITY] = [float(p if picked else 1 - p) for p, picked in zip(share, found, strict=True)]
    elif scores.ndim == 2 and len(scores) == len(found):
        result[PROBABILITY] = _softmax(scores).max(axis=-1).tolist()
    return result


def _sigmoid(logits: Any) -> Any:
    import numpy as np

    return 1 / (1 + np.exp(-np.clip(np.asarray(logits, dtype=np.float64), -500, 500)))


def _softmax(logits: Any) -> Any:
    import numpy as np

    exponents = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def test_on(task: Task, file: Path, labels: Sequence[str]) -> tuple[Dataset, bool]:
    """Make a file's rows the task's test split; return them as they are read, and whether they have labels.

    The file is read like the study's own, and rows without ``labels`` (columns) are given any, which nothing is then compared
    with.
    Raises InputError where the task has no ``data`` to read it with.
    """
    source = getattr(task, "source", None)
    if not isinstance(source, DataSpec):
        raise InputError(f"--data: {type(task).__name__} reads no files by itself; leave --data out for its test split")
    options = {name: getattr(source, name) for name in _FILE_OPTIONS}
    if SUFFIXES.get(file.suffix.lower()) not in (None, options["format"]):
        options["format"] = None
    own = DataSpec.model_construct(**{**DataSpec(path=str(file)).model_dump(), **options})
    rows = read(own, task.home)["train"]
    missing = [name for name in labels if name not in rows.column_names or _empty(rows[name])]

    def given(splits: DatasetDict) -> Dataset:
        first, found = next(iter(splits["train"])), rows
        for name in missing:
            values = [task.any_label(first[name], row) for row in rows]
            found = found.remove_columns([name] if name in found.column_names else [])
            found = found.add_column(name, values, feature=splits["train"].features[name])
        return found

    source._test, task._labelled = given, not missing
    return rows, not missing


def _empty(values: Sequence[Any]) -> bool:
    return all(value is None or value == "" for value in values)


def unknown_classes(trained: Dataset, now: Dataset) -> list[str]:
    """Return the classes among the features of these rows that those of the training do not have."""

    def names(rows: Dataset) -> set[str]:
        kinds = [getattr(kind, "feature", kind) for kind in rows.features.values()]
        return {name for kind in kinds for name in getattr(kind, "names", None) or ()}

    return sorted(names(now) - names(trained))
