"""What a file or folder holds that a person names as data: rows by split, CoNLL sentences, or images by class."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepkit.study.errors import InputError
from sweepkit.tasks.data import SUFFIXES
from sweepkit.tasks.lines import open_text
from sweepkit.tasks.separated import other_separator

if TYPE_CHECKING:
    from datasets import Dataset

_SPLITS = {
    "train": "train|training",
    "validation": "validation|valid|val|dev|eval",
    "test": "test|testing",
}
_TAGGED = (".txt", ".bio", ".iob", ".iob2", ".tags")
_TAG = re.compile(r"[A-Z][A-Z$]*([-_][A-Za-z_]+)?|[.,:`'$#()]+|-[A-Z]+-")
_IMAGES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")
_JSON = {".csv": "", ".txt": "{"}
"""How a file of JSON may begin, by its suffix; by default as an object or an array."""
NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
_LOOKED_AT = 500
"""Rows that tell whether the first line is one."""
_MOST_WORDS = 6
"""Words of the longest column name; a longer one is a value."""


def locate(path: Path) -> dict[str, Any]:
    """Return the options of DataSpec that read a local file or folder, with absolute paths. Raises InputError.

    A training file brings those of validation and test along that lie beside it under the same name.
    """
    if path.is_dir():
        return _folder(path)
    split, rest = _split(path)
    if split == "train":
        beside = [file for file in _files(path.parent) if _split(file)[1] == rest]
        return {**_by_split([path, *(file for file in beside if _split(file)[0] != "train")]), **_format(path)}
    return {"path": str(path), **_format(path)}


def _folder(folder: Path) -> dict[str, Any]:
    children = sorted(child for child in folder.iterdir() if not child.name.startswith("."))
    files = _files(folder)
    named = [file for file in files if _is(file, "|".join(_SPLITS.values()))]
    if train := _trains(named):
        return {**_by_split(named), **_format(train[0])}
    if train := _trains(files):
        named = [file for file in files if _split(file)[1] == _split(train[0])[1]]
        return {**_by_split(named), **_format(train[0])}
    if images := _images(folder, [child for child in children if child.is_dir()]):
        return images
    if len(files) == 1:
        return locate(files[0])
    there = ", ".join(child.name for child in children[:8]) or "nothing"
    raise InputError(
        f"{folder}: expected one data file ({', '.join(SUFFIXES)}), files or folders named train, validation and test, or a "
        f"folder of images per class; there is {there}"
    )


def _images(folder: Path, inside: list[Path]) -> dict[str, Any]:
    """Return how a folder of images is read, by split or by class; empty for none."""
    splits = {split: str(each) for split, names in _SPLITS.items() for each in reversed(inside) if _is(each, names)}
    if "train" in splits and _holds_images(Path(splits["train"])):
        return splits
    return {"path": str(folder)} if len(inside) > 1 and all(map(_holds_images, inside)) else {}


def _trains(files: list[Path]) -> list[Path]:
    return [file for file in files if _split(file)[0] == "train"]


def _files(folder: Path) -> list[Path]:
    found = sorted(child for child in folder.iterdir() if child.is_file() and not child.name.startswith("."))
    return [file for file in found if _suffix(file) in SUFFIXES or _suffix(file) in _TAGGED]


def _by_split(files: list[Path]) -> dict[str, Any]:
    """Return split → file or files."""
    found = {split: [str(file) for file in files if _split(file)[0] == split] for split in _SPLITS}
    return {split: listed[0] if len(listed) == 1 else listed for split, listed in found.items() if listed}


def _split(path: Path) -> tuple[str, str]:
    """Return the split that a file's name says, and the rest of its name; empty for none."""
    for split, names in _SPLITS.items():
        if match := re.fullmatch(rf"(|.*[-_.])({names})([-_.].*|)", path.name.lower()):
            return split, f"{match[1]}|{match[3]}"
    return "", ""


def _format(file: Path) -> dict[str, Any]:
    """Return how a file must be read, where its suffix does not say."""
    suffix = _suffix(file)
    if suffix in _TAGGED and (suffix != ".txt" or _is_conll(file)):
        return {"format": "conll"}
    if suffix in SUFFIXES and suffix not in (".csv", ".txt"):
        return {}
    lines = _head(file, 200)
    text = "".join(lines).lstrip()
    if suffix not in SUFFIXES and ("\0" in text or "\ufffd" in text or not text):
        return {}
    if text and text[0] in _JSON.get(suffix, "{["):
        return {"format": "json"}
    mark = _separator(lines, "\t|" if suffix == ".txt" else ",\t;|")
    if not mark:
        return {} if suffix in SUFFIXES else {"format": "text"}
    read = {} if suffix == ".csv" and mark != "\t" else {"format": "tsv" if mark == "\t" else "csv"}
    return read if mark in ",\t" else {**read, "separator": mark}


def _separator(lines: list[str], marks: str) -> str:
    """Return what separates the fields of the lines; empty where nothing does."""
    for mark in marks:
        if _even(lines, mark):
            return mark
    return other_separator(lines[0]) if lines and "," in marks and "," not in lines[0] else ""


def _even(lines: list[str], mark: str) -> bool:
    """Whether a separator gives each line of a file's head, but for the last, as many fields, and more than one."""
    rows = csv.reader(lines, delimiter=mark, quoting=csv.QUOTE_NONE if mark == "\t" else csv.QUOTE_MINIMAL)
    widths = {len(row) for row in list(rows)[: max(1, len(lines) - 1)]}
    return len(widths - {0}) == 1 and max(widths) > 1


def _is_conll(file: Path) -> bool:
    """Whether the lines of a text file are words with their tags."""
    rows = [line.split() for line in _head(file, 200) if line.strip() and not line.startswith("#")]
    widths = {len(row) for row in rows}
    return len(widths) == 1 and min(widths) > 1 and all(_TAG.fullmatch(row[-1]) for row in rows)


def name_columns(rows: Dataset, source: Mapping[str, Any]) -> list[str]:
    """Return names for the columns of a csv file whose first line is a row of values; empty where it names them."""
    names = rows.column_names
    suffix = _suffix(Path(str(source.get("path") or source.get("train"))))
    if {"columns", "header", "name"} & source.keys() or source.get("format", SUFFIXES.get(suffix)) not in (
        "csv",
        "tsv",
    ):
        return []
    head = rows[:_LOOKED_AT]
    votes = [_vote(name, [str(value).strip() for value in head[name] if value is not None]) for name in names]
    row = "row" in votes or ("perhaps" in votes and "name" not in votes)
    return [f"column{number + 1}" for number in range(len(names))] if row and "header" not in votes else []


def _vote(name: str, values: list[str]) -> str:
    """Return what a column says of the first line: a ``row``, ``perhaps`` one, the column's ``name``, surely a ``header``."""
    number, different = NUMBER.fullmatch(name.strip()), set(values)
    if values and all(map(NUMBER.fullmatch, values)):
        return "row" if number else "header"
    if len(different) <= len(values) / 2:
        return "row" if name.strip() in different else "name"
    return "perhaps" if len(name.split()) > _MOST_WORDS else ""


def _head(file: Path, count: int) -> list[str]:
    with open_text(str(file), errors="replace") as stream:
        return list(islice(stream, count))


def _suffix(file: Path) -> str:
    return Path(file.name.removesuffix(".gz")).suffix.lower()


def _is(path: Path, names: str) -> bool:
    return bool(re.fullmatch(rf"({names})([-_.].*)?", path.name.lower()))


def _holds_images(folder: Path) -> bool:
    return any(file.suffix.lower() in _IMAGES for file in islice(folder.rglob("*"), 1000))
