"""Reads the rows of built-in tasks from the hub, files or pip packages.

Values of untyped sources (csv, tsv, json) stay the text that was written: ``01`` is not 1.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, PrivateAttr, model_validator

from sweepkit.study.errors import InputError
from sweepkit.study.files import first_line
from sweepkit.tasks import references, sources
from sweepkit.tasks.conll import read_conll
from sweepkit.tasks.separated import Separated

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "text",
    ".conll": "conll",
}
"""File suffix → format."""
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Column:
    """Marks an option of a task that names columns of its data: ``text: Annotated[str, Column()] = "text"``."""

    label: bool = False
    """Whether a test split may lack it."""


def columns_of(task: BaseModel) -> Iterator[tuple[str, list[str], Column]]:
    """Yield each option of a task that names columns, with these."""
    for name, field in type(task).model_fields.items():
        for mark in field.metadata:
            if isinstance(mark, Column) and (value := getattr(task, name)) is not None:
                yield field.alias or name, _listed(value), mark


class DataSpec(BaseModel):
    """Where rows come from: a data set on the hub (``name``), one source (``path``) or files by split (``train``)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, strict=True)

    name: str | None = None
    """Id of a data set on the hub."""
    config: str | None = None
    """Configuration of the hub's data set."""
    revision: str | None = None
    """Revision of the hub's data set: branch, tag or commit."""
    path: str | list[str] | None = None
    """Files, or a folder of images, without splits; ``package:NAME/sub/path`` is in a pip package."""
    train: str | list[str] | None = None
    """Training files; with ``name`` the split, for example ``train[:80%]``."""
    validation: str | list[str] | None = None
    """Validation files; with ``name`` the split. By default a fraction of the training rows is set aside."""
    test: str | list[str] | None = None
    """Test files; with ``name`` the split."""
    format: Literal["csv", "tsv", "json", "parquet", "arrow", "text", "conll", "imagefolder"] | None = None
    """Format of the files; by default from their suffix."""
    separator: str | None = None
    """Separator of a csv file; by default a comma, a tab for tsv. More than one character is a regular expression."""
    quotes: bool | None = None
    """Whether fields of a csv file may be quoted; by default they may, except where tabs separate them."""
    encoding: str | None = None
    """Encoding of text files, such as ``cp1252``; by default UTF-8, or UTF-16 where a byte order mark says
    so."""
    lines: Literal["error", "skip"] = "error"
    """What is done with lines of csv and JSON files that have too many fields or cannot be read: an error, or left out and
    counted before the first trial. With ``skip``, lines with too few fields are left out, too."""
    columns: list[str] | None = None
    """Column names of a csv file, which then has no header unless ``header: true``, or of a CoNLL file."""
    header: bool | None = None
    """Whether a csv file begins with its column names."""
    streaming: bool = False
    """Read the training rows while training, in the order of the source, without storing them; needs ``max_steps``."""
    drop_duplicates: bool = False
    """Keep only the first of rows that are equal in the columns that the task uses."""
    _test: Callable[[DatasetDict], Dataset] | None = PrivateAttr(default=None)
    """Returns the rows to take for the test split."""

    @model_validator(mode="after")
    def _one(self) -> DataSpec:
        by_split = self.train is not None
        if sum((self.name is not None, self.path is not None, by_split and self.name is None)) != 1:
            raise ValueError("expected exactly one of name (hub), path (one source) and train (files by split)")
        if self.path is not None and (self.validation is not None or self.test is not None):
            raise ValueError("path has no splits; rename it to train to add validation or test")
        if self.streaming and (self.validation is None or self.drop_duplicates):
            raise ValueError(
                "streaming needs validation, as no rows of a stream can be set aside, and no drop_duplicates"
            )
        if self.name is None and (self.config or self.revision):
            raise ValueError("config and revision belong to a data set of the hub (name)")
        if self.encoding is not None and not _known_encoding(self.encoding):
            raise ValueError(f"encoding: there is no encoding {self.encoding}; for example utf-16 or cp1252")
        if self.header is False and self.columns is None:
            raise ValueError("header: false needs columns, the names of the columns")
        return self

    def files(self, home: Path) -> dict[str, list[str]]:
        """Return split → files, ``path`` as ``train``; empty for the hub. Raises InputError for missing files."""
        if self.name is not None:
            return {}
        splits = {"train": self.path or self.train, "validation": self.validation, "test": self.test}
        found: dict[str, list[str]] = {}
        for split, value in splits.items():
            texts = _listed(value)
            urls = [text for text in texts if references.is_url(text)]
            paths = references.find_all([text for text in texts if text not in urls], home)
            if texts:
                found[split] = [*map(str, paths), *urls]
        return found

    def local_files(self, home: Path) -> list[Path]:
        """Return every local file, with those in folders. Raises InputError for missing files."""
        return listed_files(
            text for texts in self.files(home).values() for text in texts if not references.is_url(text)
        )


def _known_encoding(name: str) -> bool:
    try:
        "".encode(name)
    except (LookupError, UnicodeError):
        return False
    return True


def _listed(value: str | list[str] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else value


def read(spec: DataSpec, home: Path, columns: Collection[str] = ()) -> DatasetDict:
    """Return the raw rows by split; ``columns`` are those that will be used.

    Values of csv, tsv and JSON files come as texts, exactly as written; lists and objects of JSON keep their structure.
    Raises InputError, also where files of one split hold a column as different types.
    """
    from datasets import DatasetDict
    from pandas.errors import ParserWarning

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ParserWarning)  # rows of a hub's csv file with more fields than its header
            found = _from_hub(spec) if spec.name is not None else _by_split(spec, home, columns)
        return found if spec._test is None else DatasetDict({**found, "test": spec._test(found)})
    except InputError:
        raise
    except Exception as error:  # pandas, pyarrow and the hub each fail in their own way
        root = error
        while root.__cause__ is not None:
            root = root.__cause__  # type: ignore[assignment]  # a cause is an Exception here
        if isinstance(root, OSError) and root.filename and (cache := _cache_above(root.filename)):
            raise InputError(
                f"task.data: the cache folder {cache} cannot be written ({root.strerror}); "
                "set HF_HOME to a folder that can be"
            ) from error
        what = spec.name or ", ".join(_listed(spec.path or spec.train))
        if type(root).__name__ == "EmptyDataError" or "corresponds to no data" in str(root):
            raise InputError(f"task.data: {what} is empty") from error
        raise InputError(f"task.data: {what} cannot be read: {type(root).__name__}: {first_line(root)}") from error


def _by_split(spec: DataSpec, home: Path, columns: Collection[str]) -> DatasetDict:
    from datasets import DatasetDict

    files = spec.files(home)
    builder, options = _builder(spec, [file for listed in files.values() for file in listed])
    found: dict[str, Any] = {}
    if spec.streaming:
        found["train"] = sources.stream(builder, files.pop("train"), options)
    found |= {split: _from_files(builder, each, options, columns) for split, each in files.items()}
    return DatasetDict(found)


def _cache_above(path: str | bytes) -> str:
    """The cache folder of `datasets` that a path lies in or above; empty for other paths."""
    from datasets import config

    cache, place = Path(config.HF_DATASETS_CACHE), Path(str(path))
    return str(cache) if place == cache or cache in place.parents or place in cache.parents else ""


def columns(spec: DataSpec, home: Path) -> dict[str, tuple[str, list[str]]]:
    """Return split → (first file, its columns), for local files whose head tells them.

    Raises InputError, OSError and ValueError.
    """
    files = spec.files(home)
    if not files:
        return {}
    builder, options = _builder(spec, [file for listed in files.values() for file in listed])
    found = {
        split: (listed[0], sources.columns(builder, listed[0], options)) for split, listed in files.items() if listed
    }
    return {split: (file, names) for split, (file, names) in found.items() if names is not None}


def _from_files(builder: str, files: list[str], options: dict[str, Any], columns: Collection[str]) -> Dataset:
    """Return the rows of one split's files."""
    from datasets import load_dataset

    if builder == "imagefolder":
        sources.check_metadata(files[0], columns)
        return load_dataset(builder, data_dir=files[0], split="train")
    if builder == "untyped":
        return sources.read_untyped(files, options["how"])
    if builder == "conll":
        return read_conll(files, **options)
    if builder in ("parquet", "arrow"):
        sources.check_types(builder, files, columns)
    return load_dataset(builder, data_files={"train": files}, split="train", **options)


def _from_hub(spec: DataSpec) -> DatasetDict:
    from datasets import DatasetDict, get_dataset_split_names, load_dataset

    hub = {"path": spec.name, "name": spec.config, "revision": spec.revision}
    hub |= {} if spec.streaming else sources.hub_options(hub)
    wanted = {split: getattr(spec, split) for split in SPLITS if getattr(spec, split) is not None}
    if not wanted:
        loaded = load_dataset(**hub)
        return DatasetDict({split: loaded[split] for split in SPLITS if split in loaded})
    try:
        known = get_dataset_split_names(spec.name, spec.config, revision=spec.revision)
    except Exception:  # noqa: BLE001  # only for a better message; loading itself raises
        known = []
    for split, name in wanted.items():
        plain = str(name).partition("[")[0]
        if known and not isinstance(name, list) and "+" not in plain and plain not in known:
            raise InputError(f"task.data.{split}: {spec.name} has no split {plain}; its splits are {', '.join(known)}")
    if "train" not in wanted:
        wanted = {"train": "train", **wanted}
    names = {split: "+".join(_listed(name)) for split, name in wanted.items()}
    streamed = {split: {"streaming": True} if spec.streaming and split == "train" else {} for split in names}
    return DatasetDict({split: load_dataset(**hub, split=name, **streamed[split]) for split, name in names.items()})


def _builder(spec: DataSpec, files: list[str]) -> tuple[str, dict[str, Any]]:
    """Return the name and options of the builder in `datasets` that reads the files."""
    format_ = spec.format
    if format_ is None:
        if any(Path(file).is_dir() for file in files):
            format_ = "imagefolder"
        else:
            suffixes = {Path(file.removesuffix(".gz")).suffix.lower() for file in files}
            if len(suffixes) != 1 or not suffixes <= SUFFIXES.keys():
                raise InputError(
                    f"task.data: files must share one suffix of {', '.join(SUFFIXES)}, "
                    f"got {', '.join(sorted(suffixes))}; else set format: csv (tsv, json, parquet, text)"
                )
            format_ = SUFFIXES[suffixes.pop()]  # type: ignore[assignment]  # the table holds the formats' names
    encoding = {"encoding": spec.encoding} if spec.encoding else {}
    if format_ == "text":
        return "text", {"keep_linebreaks": True, **encoding}
    if format_ == "conll":
        return "conll", {"names": spec.columns, **encoding}
    if format_ not in ("csv", "tsv", "json"):
        return str(format_), {}
    separator = spec.separator or ("\t" if format_ == "tsv" else ",")
    separated = Separated(
        separator=separator,
        quotes=separator != "\t" if spec.quotes is None else spec.quotes,
        columns=None if spec.columns is None else tuple(spec.columns),
        header=spec.columns is None or bool(spec.header),
    )
    how = sources.Untyped(
        separated=None if format_ == "json" else separated, encoding=spec.encoding, skip=spec.lines == "skip"
    )
    return "untyped", {"how": how}


def count_skipped(spec: DataSpec, home: Path) -> dict[str, int]:
    """Return split → number of lines that ``lines: skip`` leaves out, where there are any."""
    if spec.lines == "error" or spec.name is not None:
        return {}
    files = spec.files(home)
    builder, options = _builder(spec, [file for listed in files.values() for file in listed])
    found = (
        {split: options["how"].count_skipped(listed) for split, listed in files.items()} if builder == "untyped" else {}
    )
    return {split: count for split, count in found.items() if count}


def listed_files(paths: Iterable[str | Path]) -> list[Path]:
    """Return files as they are, and folders as all files below them."""
    found: list[Path] = []
    for path in map(Path, paths):
        found += sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return found
