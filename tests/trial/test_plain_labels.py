"""Multi-label classification reports what a plain Trainer with ``problem_type: multi_label_classification`` reports."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datasets import Dataset
from sklearn import metrics
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

import toys
from by_hand import plain, reported
from sweepkit.study.errors import InputError
from sweepkit.study.study import TaskSpec
from sweepkit.tasks.load import load_task
from sweepkit.tasks.task import Task

pytestmark = pytest.mark.real
NAMES = ["long", "now", "spam"]
Rows = dict[str, list[tuple[str, list[str]]]]


def rows() -> Rows:
    """Texts with none to three labels, which the words give away."""
    return {
        split: [
            (
                text,
                [
                    name
                    for name, holds in zip(NAMES, (len(text) > 26, "now" in text, label == "spam"), strict=True)
                    if holds
                ],
            )
            for text, label in toys.messages(count, seed)
        ]
        for seed, (split, count) in enumerate({"train": 60, "validation": 32}.items())
    }


def written(folder: Path, format_: str, found: Rows) -> dict[str, Any]:
    """Write each split in a format and return the task's options."""
    more: dict[str, Any] = {"lists": {}, "texts": {"label_separator": ";"}, "columns": {"label": NAMES}}[
        format_.partition(" ")[0]
    ]
    suffix = {"lists": "jsonl", "lists of parquet": "parquet", "columns of parquet": "parquet"}.get(format_, "csv")
    for split, part in found.items():
        file = folder / f"{split}.{suffix}"
        table = [{"text": text, "label": labels} for text, labels in part]
        if format_.startswith("columns"):
            table = [{"text": text, **{name: int(name in labels) for name in NAMES}} for text, labels in part]
        if suffix == "parquet":
            pd.DataFrame(table).to_parquet(file)
        elif suffix == "jsonl":
            file.write_text("".join(json.dumps(row) + "\n" for row in table))
        else:
            with file.open("w", newline="") as stream:
                writer = csv.DictWriter(stream, list(table[0]))
                writer.writeheader()
                writer.writerows({**row, "label": " ; ".join(row["label"])} if "label" in row else row for row in table)
    return {"data": {split: str(folder / f"{split}.{suffix}") for split in found}, **more}


def scores(prediction: Any) -> dict[str, float]:
    """scikit-learn's metrics of labels whose probability is above one half."""
    true, found = prediction.label_ids.astype(int), (prediction.predictions > 0).astype(int)
    averages = {
        f"f1_{average}": metrics.f1_score(true, found, average=average, zero_division=0)
        for average in ("micro", "macro")
    }
    samples = metrics.f1_score(true, found, average="samples", zero_division=0)
    return {**averages, "accuracy": metrics.accuracy_score(true, found), "f1": samples}


@pytest.mark.parametrize("format_", ["lists of parquet", "texts", "columns"])
def test_several_labels_are_scored_as_by_a_plain_trainer(format_: str, project: Path, tiny_bert: Path) -> None:
    found = rows()
    task = {"type": "multi-label-classification", "model": str(tiny_bert), **written(project, format_, found)}
    names = ["f1_micro", "f1_macro", "accuracy", {"f1": {"average": "samples"}}]
    mine = reported(project, {**task, "metrics": names}, per_device_train_batch_size=4)
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    splits = {
        split: Dataset.from_list(
            [{**tokenizer(text), "labels": [float(name in labels) for name in NAMES]} for text, labels in part]
        )
        for split, part in found.items()
    }

    def model_init() -> Any:
        return AutoModelForSequenceClassification.from_pretrained(
            tiny_bert, num_labels=len(NAMES), problem_type="multi_label_classification"
        )

    collator = DataCollatorWithPadding(tokenizer)
    wanted = plain(project, model_init, splits, collator, scores, per_device_train_batch_size=4)
    for name in ("loss", "f1_micro", "f1_macro", "accuracy", "f1"):
        assert mine[f"eval_{name}"] == pytest.approx(wanted[f"eval_{name}"], abs=1e-6), name
    assert mine["eval_f1_micro"] > 0.3


def loaded(home: Path, model: Path, content: str, **spec: Any) -> Task:
    file = home / f"m.{'jsonl' if content.startswith('{') else 'csv'}"
    file.write_text(content)
    options = {"data": {"path": file.name}, **spec}
    return load_task(TaskSpec(type="multi-label-classification", model=str(model), **options), home)


@pytest.mark.parametrize(
    ("content", "spec", "message"),
    [
        (
            "text,label\na,x;y\n",
            {},
            r"expected a list of labels per row, got 'x;y' in row 1 of train; set task.label_separator",
        ),
        (
            "text,a,b\nx,1,0\ny,2,0\n",
            {"label": ["a", "b"]},
            "a is '2' in row 2 of train; a column per label holds 0 and 1",
        ),
        (
            "text,a,b\nx,1,0\ny,,0\n",
            {"label": ["a", "b"]},
            "a is None in row 2 of train; a column per label holds 0 and 1",
        ),
        ("text,a,b\nx,1,0\ny,,\n", {"label": ["a", "b"]}, "1 of 2 rows of train have no label, the first is row 2"),
        (
            '{"text": "x", "label": [0, 1]}\n{"text": "y", "label": [1, 0]}',
            {},
            "every row of train holds 2 values that are 0 or 1",
        ),
        (
            '{"text": "x", "label": ["a"]}\n{"text": "y", "label": [null]}',
            {},
            "1 of 2 entries of train have no label, the first is row 2",
        ),
        (
            '{"text": "x", "label": ["a"]}\n{"text": "y", "label": null}',
            {},
            "1 of 2 rows of train have no label, the first is row 2",
        ),
        (
            "text,label\nx,a\ny,a\n",
            {"label_separator": ";"},
            "every row has the label 'a'; at least two classes are needed",
        ),
        ("text,a\nx,1\ny,0\n", {"label": ["a", "text"]}, "the column text is named for two purposes"),
        (
            "text,label\nx,\ny,a\n",
            {"label": ["lable"]},
            "train has no column lable; its columns are text, label; did you mean label",
        ),
    ],
)
def test_labels_of_another_shape_are_refused(
    content: str, spec: dict[str, Any], message: str, tmp_path: Path, tiny_bert: Path
) -> None:
    with pytest.raises(InputError, match=message):
        loaded(tmp_path, tiny_bert, content, **spec).data()


def test_a_row_may_have_no_label_which_is_noted_and_ids_follow_from_the_names(tmp_path: Path, tiny_bert: Path) -> None:
    task = loaded(tmp_path, tiny_bert, "text,label\n" + "x,b|10\ny,\nz,10 |a\n" * 4, label_separator="|")
    splits = task.splits
    assert splits["train"].features["classes"].feature.names == ["10", "a", "b"]
    found = {tuple(row["labels"]) for part in splits.values() for row in part}
    assert found == {(1.0, 0.0, 1.0), (0.0, 0.0, 0.0), (1.0, 1.0, 0.0)}
    assert "rows of train have none of the labels" in task.data_notes()[0]
    config = task.model_init().config
    assert (config.problem_type, config.id2label) == ("multi_label_classification", {0: "10", 1: "a", 2: "b"})


@pytest.mark.parametrize("test", ["text,label\na,\nb,\n", "text\na\nb\n"])
def test_a_test_split_without_labels_is_left_out(test: str, tmp_path: Path, tiny_bert: Path) -> None:
    (tmp_path / "test.csv").write_text(test)
    data = {"train": "m.csv", "validation": "m.csv", "test": "test.csv"}
    task = loaded(tmp_path, tiny_bert, "text,label\n" + "x,b|10\ny,\n" * 4, label_separator="|", data=data)
    assert [*task.splits] == ["train", "validation"]


def test_columns_keep_the_order_in_which_the_study_lists_them(tmp_path: Path, tiny_bert: Path) -> None:
    task = loaded(tmp_path, tiny_bert, "text,b,a\n" + "x,1,0\ny,0.0,TRUE\n" * 4, label=["b", "a"])
    assert task.splits["train"].features["classes"].feature.names == ["b", "a"]


def test_one_label_per_row_refuses_lists_and_names_the_kind_for_them(tmp_path: Path, tiny_bert: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"text": "x", "label": ["a", "b"]}\n' * 4)
    task = load_task(TaskSpec(type="text-classification", model=str(tiny_bert), data={"path": "m.jsonl"}), tmp_path)
    with pytest.raises(InputError, match="for several labels per row use type: multi-label-classification"):
        task.data()
