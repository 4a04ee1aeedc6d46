"""Each row is trained as the class its text names, whatever the file format, or the data is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from sweepkit.study.errors import InputError
from sweepkit.tasks.data import DataSpec, read
from sweepkit.tasks.labels import encode_labels, notes
from sweepkit.tasks.rows import as_text, choose, complete

CODES = ["01", "1", "007", "01", "1", "007"]
OPINIONS = ["-1", "0", "1", "na", "na", "1", "0", "-1"]


def written(folder: Path, format_: str, texts: list[Any]) -> DataSpec:
    """A file with a column ``label`` that holds these texts, and how it is read."""
    name, arrow = {"parquet-large": ("parquet", pa.large_string()), "parquet-view": ("parquet", pa.string_view())}.get(
        format_, (format_, pa.string())
    )
    file = folder / f"rows.{name}"
    rows = [{"text": f"row {number}", "label": text} for number, text in enumerate(texts)]
    if name in ("csv", "tsv"):
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(
                stream,
                delimiter="\t" if name == "tsv" else ",",
                quoting=csv.QUOTE_NONE if name == "tsv" else csv.QUOTE_MINIMAL,
            )
            writer.writerows([["text", "label"], *([row["text"], row["label"]] for row in rows)])
    elif name == "jsonl":
        file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    elif name == "json":
        file.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    else:
        parquet.write_table(pa.table({"text": [row["text"] for row in rows], "label": pa.array(texts, arrow)}), file)
    return DataSpec(path=str(file))


def classes(spec: DataSpec, home: Path) -> tuple[list[str], list[str]]:
    """The names of the classes, and the name of each row's class."""
    used = {"text": "text", "labels": "label"}
    rows = complete(choose(read(spec, home, used.values()), used), label="labels")
    encoded, names = encode_labels(rows)
    return names, [names[number] for number in encoded["train"]["labels"]]


PARQUET = ["parquet", "parquet-large", "parquet-view"]
FORMATS = ["csv", "tsv", "json", "jsonl", *PARQUET]


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize(
    ("texts", "names"),
    [(CODES, ["007", "01", "1"]), (OPINIONS, ["-1", "0", "1", "na"]), (["b", "B", "10", "9"], ["9", "10", "B", "b"])],
)
def test_the_same_texts_are_the_same_classes_in_every_format(
    format_: str, texts: list[str], names: list[str], tmp_path: Path
) -> None:
    found, rows = classes(written(tmp_path, format_, texts), tmp_path)
    assert sorted(found) == sorted(names)
    assert rows == texts


def test_class_ids_follow_from_the_names_alone(tmp_path: Path) -> None:
    backwards = tmp_path / "backwards"
    backwards.mkdir()
    assert (
        classes(written(tmp_path, "csv", OPINIONS), tmp_path)[0]
        == classes(written(backwards, "jsonl", OPINIONS[::-1]), tmp_path)[0]
        == ["-1", "0", "1", "na"]
    )


def test_files_of_one_split_are_decided_together(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\nx,1\ny,2\n")
    (tmp_path / "b.csv").write_text("text,label\nz,01\nw,two\n")
    names, rows = classes(DataSpec(path=["a.csv", "b.csv"]), tmp_path)
    assert (names, rows) == (["01", "1", "2", "two"], ["1", "2", "01", "two"])


def test_parquet_files_that_hold_a_label_as_two_types_are_refused(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"text": ["a"], "label": [1]}), tmp_path / "a.parquet")
    parquet.write_table(pa.table({"text": ["b"], "label": ["01"]}), tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"label is a whole number in \S*a.parquet and text in \S*b.parquet"):
        classes(DataSpec(path=["a.parquet", "b.parquet"]), tmp_path)


def test_splits_with_other_types_name_the_same_classes(tmp_path: Path) -> None:
    rows = DatasetDict(
        train=Dataset.from_dict({"labels": [0, 10, 9]}),
        validation=Dataset.from_dict({"labels": ["9", "0"]}),
    )
    encoded, names = encode_labels(rows)
    assert names == ["0", "9", "10"]
    assert (encoded["train"]["labels"][:], encoded["validation"]["labels"][:]) == ([0, 2, 1], [1, 0])


def test_splits_that_number_their_classes_differently_are_joined_by_name() -> None:
    def split(names: list[str], numbers: list[int]) -> Dataset:
        return Dataset.from_dict({"labels": numbers}, features=Features({"labels": ClassLabel(names=names)}))

    encoded, names = encode_labels(DatasetDict(train=split(["cat", "dog"], [0, 1]), validation=split(["dog"], [0])))
    assert names == ["cat", "dog"]
    assert encoded["validation"]["labels"][:] == [1]


def test_a_declared_order_of_classes_is_kept() -> None:
    features = Features({"labels": ClassLabel(names=["low", "high"])})
    _, names = encode_labels(DatasetDict(train=Dataset.from_dict({"labels": [0, 1]}, features=features)))
    assert names == ["low", "high"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([["a"], ["a", "b"]], r"expected one value per row, got \['a'\] in row 1 of train"),
        ([1.5, 2.0], r"1\.5 \(row 1 of train\) is a measurement, not a class; for numbers use type: text-regression"),
        (["3", "2.5"], r"2\.5 \(row 2 of train\) is a measurement"),
        (["a", " ", "b"], r"1 of 3 rows of train have no label, the first is row 2"),
        ([1.0, float("nan")], r"1 of 2 rows of train have no label, the first is row 2"),
        ([float("inf"), 1.0], r"inf \(row 1 of train\) is a measurement"),
        (["a", "a"], r"every row has the label 'a'; at least two classes are needed"),
    ],
)
def test_what_is_no_class_is_refused_with_its_row(labels: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        encode_labels(DatasetDict(train=Dataset.from_dict({"labels": labels})))


def test_a_value_and_a_list_in_one_json_column_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "x", "label": "a"}\n{"text": "y", "label": ["a", "b"]}\n')
    with pytest.raises(
        InputError, match=r"label is one value in some rows \('a'\) and several in others \(\['a', 'b'\]\)"
    ):
        read(DataSpec(path="rows.jsonl"), tmp_path)


def test_broken_json_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "x"}\n\n{"text": "y"\n')
    with pytest.raises(InputError, match=r"rows\.jsonl:3: not valid JSON"):
        read(DataSpec(path="rows.jsonl"), tmp_path)


def test_json_rows_keep_arrays_and_what_only_some_of_them_have(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('[{"a": [1, 2.5], "b": 1e2}, {"a": [3], "c": true}]')
    rows = read(DataSpec(path="rows.json"), tmp_path)["train"]
    assert rows[:] == {"a": [[1.0, 2.5], [3.0]], "b": ["1e2", None], "c": [None, "true"]}


def test_codes_in_the_texts_stay_as_written(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n007,a\n1.50,b\n")
    assert read(DataSpec(path="rows.csv"), tmp_path)["train"]["text"][:] == ["007", "1.50"]


def test_a_folder_with_a_csv_keeps_its_texts(tmp_path: Path) -> None:
    folder = tmp_path / "codes"
    folder.mkdir()
    (folder / "train.csv").write_text("text,label\na,01\nb,1\n")
    assert classes(DataSpec(name=str(folder)), tmp_path)[0] == ["01", "1"]


def test_labels_of_pictures_that_would_be_read_as_numbers_are_refused(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (2, 2)).save(folder / name)
    (folder / "metadata.csv").write_text("file_name,label\na.png,01\nb.png,1\n")
    with pytest.raises(InputError, match=r"metadata\.csv: label holds 01, which would be read as numbers"):
        read(DataSpec(path=str(folder)), tmp_path, ["image", "label"])


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (pa.array([b"pos", b"neg"]), ["pos", "neg"]),
        (pa.array([b"pos", b"neg"], pa.binary(3)), ["pos", "neg"]),
        (pa.array([True, False]), ["True", "False"]),
        (pa.array([1, 10]).dictionary_encode(), ["1", "10"]),
        (pa.array([1.0, 2.0], pa.float16()), ["1", "2"]),
        (pa.array([2**63 + 1, 5], pa.uint64()), ["9223372036854775809", "5"]),
    ],
    ids=["bytes", "fixed bytes", "bool", "dictionary", "half", "unsigned"],
)
def test_every_type_of_parquet_names_its_classes(values: pa.Array, names: list[str], tmp_path: Path) -> None:
    parquet.write_table(pa.table({"text": ["a", "b"], "label": values}), tmp_path / "rows.parquet")
    assert classes(DataSpec(path="rows.parquet"), tmp_path)[1] == names


@pytest.mark.parametrize("text", ["text,label\na,x,more\nb,y,more\n", "text,label\na,x,more\nb,y\n"])
def test_rows_with_more_fields_than_the_header_are_refused_and_not_shifted(text: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(text)
    refused = r"rows\.csv:2: expected 2 fields, got 3: .a,x,more.*\[column1, text, label\].*lines: skip"
    with pytest.raises(InputError, match=refused):
        read(DataSpec(path="rows.csv"), tmp_path)


def test_a_comma_at_the_end_of_each_row_shifts_nothing(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\na,x,\nb,y,\n")
    assert read(DataSpec(path="rows.csv"), tmp_path)["train"][:] == {"text": ["a", "b"], "label": ["x", "y"]}


def test_nan_of_json_is_a_missing_label(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "x", "label": NaN}\n{"text": "y", "label": "NaN"}\n')
    with pytest.raises(InputError, match="1 of 2 rows of train have no label, the first is row 1"):
        classes(DataSpec(path="rows.jsonl"), tmp_path)


def test_what_a_folders_readme_declares_decides(tmp_path: Path) -> None:
    declared = "dataset_info:\n  features:\n  - name: text\n    dtype: string\n  - name: label\n    dtype:"
    names = '\n      class_label:\n        names:\n          "0": "2"\n          "1": "1"\n'
    for name, kind, rows, found in (
        ("texts", " string\n", "a,01\nb,1\n", ["01", "1"]),
        ("ids", names, "a,0\nb,1\n", ["2", "1"]),
    ):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "README.md").write_text(f"---\n{declared}{kind}---\n")
        (folder / "train.csv").write_text(f"text,label\n{rows}")
        assert classes(DataSpec(name=str(folder)), tmp_path)[1] == found


@pytest.mark.parametrize("texts", [[["hello"], ["x"]], [{"en": "hello"}, {"en": "x"}]], ids=["lists", "mappings"])
def test_a_text_that_is_several_is_refused(texts: list[Any]) -> None:
    rows = DatasetDict(train=Dataset.from_dict({"text": texts}))
    with pytest.raises(InputError, match=r"task\.text: expected one text per row, but review of train holds .*hello"):
        as_text(rows, {"text": "review"})


def test_text_that_its_writer_did_not_mark_as_text_is_decoded() -> None:
    rows = DatasetDict(train=Dataset.from_dict({"text": ["é".encode(), b"x"]}))
    assert as_text(rows, {"text": "text"})["train"]["text"][:] == ["é", "x"]


def test_classes_that_look_alike_are_noted() -> None:
    rows = DatasetDict(train=Dataset.from_dict({"labels": ["1", "01", "1.0", "a", " A", "b"]}))
    assert notes(encode_labels(rows)[0]) == [
        "'01', '1', '1.0' are different classes",
        "' A', 'a' are different classes",
    ]


def test_unusual_classes_are_noted_with_counts() -> None:
    rows = DatasetDict(
        train=Dataset.from_dict({"labels": ["a"] * 300 + ["b"]}),
        validation=Dataset.from_dict({"labels": ["a", "c", "a"]}),
        test=Dataset.from_dict({"labels": ["a", "a"]}),
    )
    encoded, _ = encode_labels(rows)
    assert notes(encoded) == [
        "train has no rows of 1 of 3 classes: 'c' (1 in validation)",
        "validation has no rows of 1 of 3 classes: 'b' (1 in train)",
        "test has only one class: all 2 rows are 'a'",
        "train is very unbalanced: of 301 rows, 'b' 1; the most frequent class has 300",
    ]


texts = some.text(some.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=4)
digits = some.from_regex(r"[+-]?0{0,2}[0-9]{1,2}(\.0)?", fullmatch=True)
values = some.one_of(texts, digits, some.integers(-3, 12), some.booleans(), some.none(), some.floats(-2, 2))


@given(labels=some.lists(values, min_size=2, max_size=8), format_=some.sampled_from(["csv", "jsonl", "json"]))
@settings(deadline=None, suppress_health_check=list(HealthCheck))
def test_a_row_is_the_class_its_text_names_or_the_data_is_refused(
    labels: list[Any], format_: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("drawn")
    try:
        _, rows = classes(written(folder, format_, labels), folder)
    except InputError:
        return
    if format_ == "csv":  # a csv file writes a missing value as nothing, and a bool as Python does
        assert rows == [str(label) for label in labels]
    else:
        assert rows == [label if isinstance(label, str) else json.dumps(label) for label in labels]


@given(labels=some.lists(some.one_of(texts, digits), min_size=2, max_size=8), format_=some.sampled_from(PARQUET))
@settings(deadline=None, suppress_health_check=list(HealthCheck))
def test_texts_of_parquet_name_their_classes(
    labels: list[str], format_: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("drawn")
    try:
        _, rows = classes(written(folder, format_, labels), folder)
    except InputError:
        return
    assert rows == labels


def test_integers_of_parquet_count_as_the_texts_that_print_them() -> None:
    features = Features({"labels": Value("int64")})
    encoded, names = encode_labels(DatasetDict(train=Dataset.from_dict({"labels": [10, -1, 9]}, features=features)))
    assert (names, encoded["train"]["labels"][:]) == (["-1", "9", "10"], [2, 0, 1])


def test_a_cache_that_cannot_be_written_is_named_and_not_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet.write_table(pa.table({"text": ["a"], "label": ["b"]}), tmp_path / "rows.parquet")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", Path("/proc/nohome/.cache"))
    with pytest.raises(InputError, match=r"the cache folder /proc/nohome/.cache cannot be written .*; set HF_HOME"):
        read(DataSpec(path="rows.parquet"), tmp_path)
