"""Where the rows of built-in tasks come from: the hub, files, pip packages. Knows no model and changes no row."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from sweepkit.study.errors import InputError
from sweepkit.tasks import references as places

if TYPE_CHECKING:
    from datasets import DatasetDict

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "text",
}
"""File suffix → format."""
SPLITS = ("train", "validation", "test")


class DataSpec(BaseModel):
    """Where rows come from: a data set of the hub (``name``), one source (``path``) or files by split."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, strict=True)

    name: str | None = None
    """Id of a data set on the hub."""
    config: str | None = None
    """Configuration of the hub's data set."""
    revision: str | None = None
    """Revision of the hub's data set: branch, tag or commit."""
    path: str | list[str] | None = None
    """One or more files (or a folder of images) without splits; ``package:NAME/sub/path`` came with pip."""
    train: str | list[str] | None = None
    """Training files; with ``name``: the split, for example ``train[:80%]``."""
    validation: str | list[str] | None = None
    """Validation files; with ``name``: the split. Without them a fraction of the training rows is set aside."""
    test: str | list[str] | None = None
    """Test files; with ``name``: the split."""
    format: Literal["csv", "tsv", "json", "parquet", "arrow", "text", "imagefolder"] | None = None
    """Format of the files; by default what their suffix says."""
    separator: str | None = None
    """Between the columns of a csv file; by default a comma, a tab for tsv."""
    columns: list[str] | None = None
    """Names of a csv file's columns; the file then has no header unless ``header: true``."""
    header: bool | None = None
    """Whether a csv file begins with its columns' names."""
    drop_duplicates: bool = False
    """Keep only the first of rows that are equal in the columns the task uses."""

    @model_validator(mode="after")
    def _one(self) -> DataSpec:
        by_split = self.train is not None
        if sum((self.name is not None, self.path is not None, by_split and self.name is None)) != 1:
            raise ValueError("exactly one of name (hub), path (one source) and train (files by split) is needed")
        if self.path is not None and (self.validation is not None or self.test is not None):
            raise ValueError("path has no splits; call it train to give validation or test beside it")
        if self.name is None and (self.config or self.revision):
            raise ValueError("config and revision belong to a data set of the hub (name)")
        if self.header is False and self.columns is None:
            raise ValueError("without a header columns must name the columns")
        return self

    def files(self, home: Path) -> dict[str, list[str]]:
        """Return split → files (a single source is all ``train``); empty for the hub. Missing ones raise InputError."""
        if self.name is not None:
            return {}
        train = self.path if self.path is not None else self.train
        given = {"train": train, "validation": self.validation, "test": self.test}
        found: dict[str, list[str]] = {}
        for split, value in given.items():
            texts = _listed(value)
            local = [text for text in texts if not places.is_url(text)]
            paths = [str(path) for path in places.find_all(local, home)] + [t for t in texts if places.is_url(t)]
            if paths:
                found[split] = paths
        return found

    def local_files(self, home: Path) -> list[Path]:
        """Return every local file behind it, folders with all they hold. Raises InputError for missing ones."""
        found = self.files(home).values()
        return listed_files(text for texts in found for text in texts if not places.is_url(text))


def _listed(value: str | list[str] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else value


def read(spec: DataSpec, home: Path) -> DatasetDict:
    """Return the raw rows by split, as they stand in the source. Raises InputError."""
    from datasets import DatasetDict, load_dataset

    try:
        if spec.name is not None:
            return _from_hub(spec)
        files = spec.files(home)
        builder, options = _builder(spec, [file for listed in files.values() for file in listed])
        if builder == "imagefolder":
            loaded = {s: load_dataset(builder, data_dir=listed[0], split="train") for s, listed in files.items()}
        else:
            loaded = {s: load_dataset(builder, data_files={s: f}, split=s, **options) for s, f in files.items()}
        return DatasetDict(loaded)
    except InputError:
        raise
    except Exception as error:  # pandas, pyarrow and the hub each fail in their own way; all of it is input
        root = error
        while root.__cause__ is not None:
            root = root.__cause__  # type: ignore[assignment]  # a cause is an Exception here
        what = spec.name or ", ".join(_listed(spec.path if spec.path is not None else spec.train))
        if type(root).__name__ == "EmptyDataError" or "corresponds to no data" in str(root):
            raise InputError(f"task.data: {what} is empty: no row was found") from error
        first = (str(root).strip().splitlines() or [type(root).__name__])[0]
        raise InputError(f"task.data: {what} cannot be read: {type(root).__name__}: {first}") from error


def _from_hub(spec: DataSpec) -> DatasetDict:
    from datasets import DatasetDict, get_dataset_split_names, load_dataset

    asked = {split: getattr(spec, split) for split in SPLITS if getattr(spec, split) is not None}
    if not asked:
        loaded = load_dataset(spec.name, spec.config, revision=spec.revision)
        return DatasetDict({split: loaded[split] for split in SPLITS if split in loaded})
    try:
        known = get_dataset_split_names(spec.name, spec.config, revision=spec.revision)
    except Exception:  # noqa: BLE001  # only for a better message; loading itself says what is wrong
        known = []
    for split, name in asked.items():
        plain = str(name).partition("[")[0]
        if known and not isinstance(name, list) and "+" not in plain and plain not in known:
            raise InputError(f"task.data.{split}: {spec.name} has no split {plain}; its splits are {', '.join(known)}")
    if "train" not in asked:
        asked = {"train": "train", **asked}
    names = {split: "+".join(_listed(name)) for split, name in asked.items()}
    hub = {"path": spec.name, "name": spec.config, "revision": spec.revision}
    return DatasetDict({split: load_dataset(**hub, split=name) for split, name in names.items()})


def _builder(spec: DataSpec, files: list[str]) -> tuple[str, dict[str, Any]]:
    """Return the builder of `datasets` for the files, and its options."""
    format_ = spec.format
    if format_ is None:
        if any(Path(file).is_dir() for file in files):
            format_ = "imagefolder"
        else:
            suffixes = {Path(file.removesuffix(".gz")).suffix.lower() for file in files}
            if len(suffixes) != 1 or not suffixes <= SUFFIXES.keys():
                raise InputError(
                    f"task.data: files must share one suffix of {', '.join(SUFFIXES)}, "
                    f"got {', '.join(sorted(suffixes))}; say format: csv (tsv, json, parquet, text) otherwise"
                )
            format_ = SUFFIXES[suffixes.pop()]  # type: ignore[assignment]  # the table holds the formats' names
    if format_ == "text":
        return "text", {"keep_linebreaks": True}
    if format_ not in ("csv", "tsv"):
        return str(format_), {}
    separator = spec.separator or ("\t" if format_ == "tsv" else ",")
    # Only an empty field is missing: "NA", "null" and "None" are texts that people write.
    options: dict[str, Any] = {"sep": separator, "keep_default_na": False, "na_values": [""]}
    if separator == "\t":
        options["quoting"] = 3  # csv.QUOTE_NONE: in tab-separated text a quotation mark is a quotation mark
    if spec.columns is not None:
        options |= {"names": spec.columns, "header": 0 if spec.header else None}
    return "csv", options


def listed_files(paths: Iterable[str | Path]) -> list[Path]:
    """Return the files behind files and folders (folders with everything below them)."""
    found: list[Path] = []
    for path in map(Path, paths):
        found += sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return found
