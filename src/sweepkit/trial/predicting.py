"""Writes what a trial's best model predicts for the rows of the test split, or of a file, beside the rows themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas
from datasets import Dataset, List, Value

from sweepkit.study.errors import InputError
from sweepkit.study.files import jsonable, write_whole
from sweepkit.study.study import StudyData
from sweepkit.tasks.data import DataSpec, read
from sweepkit.tasks.load import task_of
from sweepkit.tasks.predictions import LABEL, test_on, unknown_classes
from sweepkit.tasks.prepared import prepare, prepare_apart
from sweepkit.tasks.task import Task
from sweepkit.trial.objective import build_trainer, load_best
from sweepkit.trial.reading import read as read_metrics
from sweepkit.trial.trial import TrialSpec

PUBLIC = 0o644
"""Mode of the written file: it is a person's, not the study's."""


def predict(study: StudyData, spec: TrialSpec, model: Path, output: Path, data: Path | None) -> dict[str, Any]:
    """Write the predictions to ``output``, csv or jsonl by its name; return ``metrics`` and ``rows``.

    There are metrics where the rows have labels. Raises InputError.
    """
    values = study.by_consumer(spec.hyperparameters)
    task = task_of(study, values.task)
    prepare(task, study.place.data)
    if data is None:
        labelled, rows = True, _original(task)
        if "test" not in task.splits:
            raise InputError(f"the data has no test split, only {', '.join(task.splits)}; name a file with --data")
    else:
        task, rows, labelled = _with_file(study, values.task, task, data)
    trainer = build_trainer(study, spec, task, values, None)
    load_best(trainer, model)
    columns, reported = task.predict(trainer, task.splits["test"])
    numbers = read_metrics(reported, ()).numbers if labelled else {}
    metrics = {re.sub("^eval_", "test_", name): value for name, value in numbers.items()}
    if not columns:
        said = ", ".join(f"{name} {value:.4g}" for name, value in sorted(metrics.items()))
        raise InputError(f"--predict: {type(task).__name__} makes no prediction for a row by itself; metrics: {said}")
    count = len(next(iter(columns.values())))
    if rows is not None and len(rows) != count:
        if data is not None:
            raise InputError(
                f"--data: {data} has {len(rows)} rows, of which the task reads {count}: see drop_duplicates"
            )
        rows = None  # the split is a part of what the source holds
    if rows is not None or not labelled:
        columns.pop(LABEL, None)  # the row has it, in its own words
    _write(output, {**(_plain(rows, columns) if rows is not None else {}), **columns})
    return {"metrics": metrics, "rows": count}


def _with_file(study: StudyData, options: Mapping[str, Any], known: Task, data: Path) -> tuple[Task, Dataset, bool]:
    """Return the task with a file's rows as its test split, all of them; the rows; and whether they have labels."""
    limits = {"eval_samples": None} if "eval_samples" in type(known).model_fields else {}
    task = task_of(study, options).model_copy(update=limits)
    rows, labelled = test_on(task, data, known.label_columns())
    prepare_apart(task)
    if strange := unknown_classes(known.splits["train"], task.splits["train"]):
        raise InputError(f"--data: {data} has labels that the model does not know: {', '.join(strange[:8])}")
    if task.splits["train"].features != known.splits["train"].features:
        raise InputError(f"--data: with {data}, its classes are not the model's, or not in the same order")
    return task, rows, labelled


def _original(task: Task) -> Dataset | None:
    """Return the test split as it is read; None for a task that reads no source by itself."""
    source = getattr(task, "source", None)
    return read(source, task.home).get("test") if isinstance(source, DataSpec) else None


def _plain(rows: Dataset, columns: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the columns of texts, numbers and lists, renamed where a column of predictions has their name."""
    kept = [name for name, kind in rows.features.items() if isinstance(kind, (Value, List, dict))]
    return {f"data.{name}" if name in columns else name: list(rows[name]) for name in kept}


def _write(output: Path, columns: Mapping[str, list[Any]]) -> None:
    if output.suffix == ".csv":
        flat = {
            name: [json.dumps(jsonable(v), ensure_ascii=False) if isinstance(v, (list, dict)) else v for v in values]
            for name, values in columns.items()
        }
        text = pandas.DataFrame(flat).to_csv(index=False)
    else:
        lines = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
        text = "".join(json.dumps(jsonable(line), ensure_ascii=False) + "\n" for line in lines)
    write_whole(output, text, mode=PUBLIC)
