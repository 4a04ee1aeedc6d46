"""Reads untyped files (csv, JSON) as text, exactly as written, and checks typed ones for one type per column.

Type inference would lose what was written: ``01`` becomes 1, and a mixture takes the type of its first values.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from sweepkit.study.errors import InputError
from sweepkit.tasks import conll
from sweepkit.tasks.lines import SKIP, Lines, Unreadable, open_text
from sweepkit.tasks.separated import Separated

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset, IterableDataset

CHUNK = 10_000
"""Rows per Arrow table."""
JSON_BYTES = 10_000_000
"""Size of the largest JSON file that is opened only to see its columns."""


class _Number(float):
    """A number of a JSON file, with its spelling there."""

    written: str

    def __new__(cls, text: str) -> _Number:
        number = super().__new__(cls, text)
        number.written = text
        return number


@dataclass(frozen=True, kw_only=True)
class Untyped:
    """How csv, tsv or JSON files are read."""

    separated: Separated | None = None
    """How the fields of a line are separated; None for JSON: one object per line, or one array of objects."""
    encoding: str | None = None
    skip: bool = False
    """Whether lines that cannot be read are left out."""

    def rows(self, file: str, lines: Lines | None = None) -> Iterator[dict[str, Any]]:
        """Yield the rows of a file. Raises InputError with file and line."""
        lines = lines or Lines(skip=self.skip)
        with open_text(file, self.encoding) as stream:
            if self.separated is None:
                yield from _records(stream, file, lines)
            else:
                yield from self.separated.rows(stream, file, lines)

    def count_skipped(self, files: Sequence[str]) -> int:
        """Return the number of lines that are left out."""
        lines = Lines(skip=self.skip)
        for file in files if self.skip else ():
            deque(self.rows(file, lines), maxlen=0)
        return lines.skipped


def read_untyped(files: Sequence[str], how: Untyped) -> Dataset:
    """Return the rows of csv or JSON files.

    Texts, numbers, true and false at the top of a row come as text, as written. Raises InputError with file and line.
    """
    import pyarrow as pa
    from datasets import Dataset

    tables = []
    for file in files:
        records = how.rows(file)
        while chunk := list(islice(records, CHUNK)):
            tables.append(_table(chunk, file))
    if not tables:
        left = " where lines that cannot be read are left out" if how.skip else ""
        raise InputError(f"task.data: {', '.join(files)} is empty{left}")
    return Dataset(pa.concat_tables(tables, promote_options="permissive"))


def stream(builder: str, files: list[str], options: dict[str, Any]) -> IterableDataset:
    """Return the rows of one split's files as a stream; those of JSON files as :func:`read_json` returns them."""
    from datasets import Dataset, Features, IterableDataset, Value, load_dataset

    if builder == "untyped":
        how: Untyped = options["how"]
        head = Dataset.from_list(list(islice(_written_rows(files, how), CHUNK))).features
        features = Features({name: Value("string") for name in head}) if how.separated else head
        return IterableDataset.from_generator(_written_rows, gen_kwargs={"files": files, "how": how}, features=features)
    return load_dataset(builder, data_files={"train": files}, split="train", streaming=True, **options)


def _written_rows(files: Sequence[str], how: Untyped) -> Iterator[dict[str, Any]]:
    for file in files:
        for row in how.rows(file):
            yield {name: each if isinstance(each, (list, dict)) else _written(each) for name, each in row.items()}


def _records(stream: TextIO, file: str, lines: Lines) -> Iterator[dict[str, Any]]:
    """Yield the objects of an open JSON file."""
    filled = ((number, text) for number, text in enumerate(stream, 1) if text.strip())
    number, line = next(filled, (1, ""))
    if line.strip() == "{" or line.lstrip().startswith("["):
        whole = _parsed(line + stream.read(), file, number)  # one object or array over several lines
    else:
        whole = _line(line, file, number, lines) if line else None
    after = next(filled, None)
    if after is None and isinstance(whole, dict):
        whole = _inside(whole, file)
    if isinstance(whole, list):
        places: Iterator[tuple[str, Any]] = ((f"{file} row {n}", row) for n, row in enumerate(whole, 1))
    else:
        rest = chain([after] if after else [], filled)
        places = chain(
            [(f"{file}:{number}", whole)], ((f"{file}:{n}", _line(text, file, n, lines)) for n, text in rest)
        )
    for place, row in places:
        if isinstance(row, dict):
            yield row
        elif row is not None or isinstance(whole, list):
            lines.refuse(Unreadable(f"{place}: expected an object, got {str(row)[:60]}", SKIP))


def _line(text: str, file: str, number: int, lines: Lines) -> Any:
    """Return what a line holds, None where it is left out."""
    try:
        return _parsed(text, file, number)
    except Unreadable as error:
        lines.refuse(error)
        return None


def _inside(whole: dict[str, Any], file: str) -> Any:
    """Return the rows that the only object of a file holds: a list of them, or columns; else the object itself."""
    if isinstance(whole.get("data"), list) and whole.keys() <= {"version", "data"}:
        return [row for each in whole["data"] for row in _of_squad(each)]
    if not file.removesuffix(".gz").endswith(".json"):
        return whole
    values, tables = list(whole.values()), list(_tables(whole))
    if len(tables) == 1:
        return tables[0]
    if len(values) > 1 and all(isinstance(each, list) and len(each) == len(values[0]) for each in values):
        return _across(whole, values)
    return _across(whole, [each.values() for each in values]) if _of_pandas(values) else whole


def _tables(inside: dict[str, Any]) -> Iterator[list[Any]]:
    """Yield the lists of objects that an object holds, at any depth."""
    for each in inside.values():
        if isinstance(each, dict):
            yield from _tables(each)
        elif isinstance(each, list) and each and all(isinstance(row, dict) for row in each):
            yield each


def _of_pandas(values: Sequence[Any]) -> bool:
    """Whether these are columns as pandas writes them: mappings of the rows' numbers."""
    if not values or not all(isinstance(each, dict) for each in values):
        return False
    return all(list(each) == list(values[0]) and all(map(str.isdecimal, each)) for each in values)


def _across(names: Iterable[str], columns: Iterable[Iterable[Any]]) -> list[dict[str, Any]]:
    """Return the rows of columns."""
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _of_squad(article: Any) -> Iterator[Any]:
    """Yield an entry of ``data``, or the questions of an article of SQuAD as rows."""
    if not isinstance(article, dict) or "paragraphs" not in article:
        yield article
        return
    for paragraph in article["paragraphs"]:
        for each in paragraph["qas"]:
            answers = [] if each.get("is_impossible") else each.get("answers", [])
            told = {name: [answer[name] for answer in answers] for name in ("text", "answer_start")}
            yield {"id": each.get("id"), "question": each["question"], "context": paragraph["context"], "answers": told}


def _parsed(text: str, file: str, line: int) -> Any:
    try:
        return json.loads(text.rstrip(), parse_float=_Number, parse_constant=_Number)
    except json.JSONDecodeError as error:
        place = f"{file}:{line + error.lineno - 1}"
        raise Unreadable(f"{place}: not valid JSON, {error.msg} (column {error.colno})", SKIP) from error


def _table(rows: list[dict[str, Any]], file: str) -> pyarrow.Table:
    import pyarrow as pa

    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    return pa.table({name: _column(name, values, file) for name, values in columns.items()})


def _column(name: str, values: list[Any], file: str) -> pyarrow.Array:
    import pyarrow as pa

    nested = [isinstance(value, (list, dict)) for value in values]
    if not any(nested):
        return pa.array([_written(value) for value in values], pa.string())
    if all(value is None or inside for value, inside in zip(values, nested, strict=True)):
        return pa.array(values)
    single = next(value for value, inside in zip(values, nested, strict=True) if value is not None and not inside)
    several = values[nested.index(True)]
    raise InputError(
        f"task.data: {file}: {name} is one value in some rows ({single!r}) and several in others ({several!r})"
    )


def _written(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, _Number):
        return None if math.isnan(value) else value.written
    return None if value is None else str(value)


def check_types(builder: str, files: Sequence[str], columns: Collection[str]) -> None:
    """Raise InputError where a used column has different types in a split's local Parquet or Arrow files."""
    found: dict[str, tuple[str, str]] = {}
    for file in files:
        if not Path(file).exists():  # a URL; the builder reads it
            continue
        for field in _schema(builder, file):
            if field.name not in columns:
                continue
            kind = _kind(field.type)
            first_file, first_kind = found.setdefault(field.name, (file, kind))
            if kind not in ("null", first_kind) and first_kind != "null":
                raise InputError(
                    f"task.data: {field.name} is {first_kind} in {first_file} and {kind} in {file}; write it as one type"
                )


def _schema(builder: str, file: str) -> pyarrow.Schema:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    if builder == "parquet":
        return parquet.read_schema(file)
    with pa.memory_map(file) as source:
        try:
            return pa.ipc.open_stream(source).schema
        except pa.ArrowInvalid:
            return pa.ipc.open_file(source).schema


def _kind(type_: pyarrow.DataType) -> str:
    from pyarrow import types

    if types.is_dictionary(type_):
        type_ = type_.value_type
    if types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_):
        return "text"
    if types.is_integer(type_):
        return "a whole number"
    return "a decimal number" if types.is_floating(type_) else str(type_)


def check_metadata(folder: str, columns: Collection[str]) -> None:
    """Raise InputError where the metadata.csv of an image folder has text that would be read as another number."""
    import pandas

    for file in sorted(Path(folder).rglob("metadata.csv")):
        written = pandas.read_csv(file, dtype=str, keep_default_na=False)
        inferred = pandas.read_csv(file)
        for name in set(columns) & set(written.columns):
            known = set(map(str, inferred[name].unique()))
            if lost := [text for text in written[name].unique() if text and text not in known]:
                raise InputError(
                    f"task.data: {file}: {name} holds {', '.join(lost[:5])}, which would be read as numbers; "
                    "write the labels as words, or one folder of images per class"
                )


def hub_options(hub: dict[str, Any]) -> dict[str, Any]:
    """Return options for ``load_dataset`` that keep the values of a csv or JSON data set as text, or as it declares them."""
    from datasets import ClassLabel, Features, Value, load_dataset, load_dataset_builder

    builder = load_dataset_builder(**hub)
    if builder.info.builder_name not in ("csv", "json"):
        return {}
    options = {"index_col": False} if builder.info.builder_name == "csv" else {}
    if (declared := builder.info.features) is not None:
        # Numbers in a column of class labels are ids, which a column read as text would take for names.
        named = any(isinstance(kind, ClassLabel) for kind in declared.values())
        return options if named else {"features": declared, **options}
    inferred = next(iter(load_dataset(**hub, **options).values())).features
    texts = {name: Value("string") if isinstance(kind, Value) else kind for name, kind in inferred.items()}
    return {"features": Features(texts), **options}


def columns(builder: str, file: str, options: dict[str, Any]) -> list[str] | None:
    """Return the columns of a local file from its head, of JSON those of the first row; None where that cannot tell."""
    if builder in ("parquet", "arrow"):
        return list(_schema(builder, file).names)
    if builder == "conll":
        return options["names"] or list(conll.COLUMNS)
    if builder != "untyped":
        return ["text"] if builder == "text" else None
    how: Untyped = options["how"]
    if how.separated is not None:
        with open_text(file, how.encoding) as stream:
            return how.separated.names(stream, file)
    if Path(file).stat().st_size < JSON_BYTES:
        return next((list(row) for row in how.rows(file)), None)
    return None
