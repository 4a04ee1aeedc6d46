"""What a file or folder holds that a person names as data: rows by split, CoNLL sentences, or images by class."""

from __future__ import annotations

import csv
import re
from itertools import islice
from pathlib import Path
from typing import Any

from sweepkit.study.errors import InputError
from sweepkit.tasks.data import SUFFIXES

_SPLITS = {
    "train": "train|training",
    "validation": "validation|valid|val|dev|eval",
    "test": "test|testing",
}
_TAGGED = (".txt", ".bio", ".iob", ".iob2", ".tags")
_TAG = re.compile(r"[A-Z][A-Z$]*([-_][A-Za-z_]+)?|[.,:`'$#()]+|-[A-Z]+-")
_IMAGES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")
_MOST_WORDS = 6
"""Words of the longest column name; a longer one is a value."""


def located(path: Path) -> dict[str, Any]:
    """Return the options of DataSpec that read a local file or folder, with absolute paths. Raises InputError."""
    if path.is_dir():
        return _folder(path)
    return {"path": str(path), **_format(path)}


def _folder(folder: Path) -> dict[str, Any]:
    children = sorted(child for child in folder.iterdir() if not child.name.startswith("."))
    files = [
        child for child in children if child.is_file() and (_suffix(child) in SUFFIXES or _suffix(child) in _TAGGED)
    ]
    by_split = {split: [file for file in files if _is(file, names)] for split, names in _SPLITS.items()}
    if by_split["train"]:
        found = {split: [str(file) for file in listed] for split, listed in by_split.items() if listed}
        return {**{split: _one(listed) for split, listed in found.items()}, **_format(by_split["train"][0])}
    folders = [child for child in children if child.is_dir()]
    split_folders = {split: [each for each in folders if _is(each, names)] for split, names in _SPLITS.items()}
    if split_folders["train"] and _holds_images(split_folders["train"][0]):
        return {split: str(listed[0]) for split, listed in split_folders.items() if listed}
    if len(folders) > 1 and all(map(_holds_images, folders)):
        return {"path": str(folder)}
    if len(files) == 1:
        return located(files[0])
    there = ", ".join(child.name for child in children[:8]) or "nothing"
    raise InputError(
        f"{folder}: expected one data file ({', '.join(SUFFIXES)}), files or folders named train, validation and test, or a "
        f"folder of images per class; there is {there}"
    )


def _format(file: Path) -> dict[str, Any]:
    """Return how a file must be read, where its suffix does not say."""
    if file.name.endswith(".gz"):
        return {}
    if file.suffix.lower() in _TAGGED:
        return {"format": "conll"} if file.suffix.lower() != ".txt" or _is_conll(file) else {}
    if file.suffix.lower() == ".csv":
        lines = _head(file, 200)
        marks = [mark for mark in ",\t;|" if _even(lines, mark)]
        if marks and marks[0] != ",":
            return {"format": "tsv"} if marks[0] == "\t" else {"separator": marks[0]}
    return {}


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


def headless(names: list[str]) -> str:
    """Return names to give where a file's column names look like the values of a row; empty where they do not."""
    if not any(re.fullmatch(r"[-+]?\d+(\.\d+)?", name.strip()) or len(name.split()) > _MOST_WORDS for name in names):
        return ""
    longest = max(range(len(names)), key=lambda index: len(names[index]))
    others = "label" if len(names) == 2 else "column{}"
    return ", ".join("text" if index == longest else others.format(index + 1) for index in range(len(names)))


def _head(file: Path, count: int) -> list[str]:
    with file.open(encoding="utf-8-sig", errors="replace") as stream:
        return list(islice(stream, count))


def _suffix(file: Path) -> str:
    return Path(file.name.removesuffix(".gz")).suffix.lower()


def _is(path: Path, names: str) -> bool:
    return bool(re.fullmatch(rf"({names})([-_.].*)?", path.name.lower()))


def _holds_images(folder: Path) -> bool:
    return any(file.suffix.lower() in _IMAGES for file in islice(folder.rglob("*"), 1000))


def _one(listed: list[str]) -> str | list[str]:
    return listed[0] if len(listed) == 1 else listed
