"""Runs a task's ``data()`` once for each set of options and stores the result, which every trial memory-maps."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepkit.study import modules
from sweepkit.study.damage import find_damage, is_whole, note, put_aside, read_json, seal
from sweepkit.study.errors import DamagedFile, InputError, SweepError
from sweepkit.study.files import describe
from sweepkit.study.paths import ABOUT
from sweepkit.tasks import by_value
from sweepkit.tasks.private import temporary_files_in
from sweepkit.tasks.task import Task

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

LIBRARIES = ("datasets", "transformers", "tokenizers")
"""Libraries whose versions are part of the digest: they too decide what the prepared rows look like."""
_AGAIN = "remove the folder, and the data is prepared again"


def prepare(task: Task, folder: Path) -> Path:
    """Return the folder of the task's prepared splits, running ``data()`` if it does not exist, and open them.

    Its name in ``folder`` is the task's :func:`digest`. One process prepares while others wait for it; a killed one
    leaves nothing that a later one would take for prepared data, and what is not as it was written is set aside. Streamed
    training rows are not stored: ``data()`` then runs once more, for them. Raises InputError.
    """
    from filelock import FileLock

    place = folder / digest(task)
    if place not in _held and not is_whole(place):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_name(f"{place.name}.lock")):
            if not is_whole(place):
                if name := place.is_dir() and find_damage(place):
                    note(f"{place / name} is not as it was written; the data is prepared again")
                    put_aside(place)
                for scratch in folder.glob(f".{place.name}-*"):
                    shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed in the middle
                _write(task, place)
    task._splits = load_prepared(place)
    if "train" not in task._splits:
        with tempfile.TemporaryDirectory(prefix="sweepkit-") as steps, _no_cache(Path(steps)):
            task._splits["train"] = _data(task)["train"]
    return place


def prepare_apart(task: Task) -> None:
    """Run ``data()`` for this process alone; what it writes has no name any more, and goes with the process."""
    with tempfile.TemporaryDirectory(prefix="sweepkit-") as steps, _no_cache(Path(steps)):
        task._splits = _stored(task)


_held: dict[Path, DatasetDict] = {}
"""Open splits, shared with all processes forked from this one."""


def hold(task: Task, folder: Path) -> None:
    """Open the task's splits, if they are prepared, for all processes forked from this one."""
    place = folder / digest(task)
    if is_whole(place):
        _held[place] = load_prepared(place)


def load_prepared(path: Path) -> DatasetDict:
    """Return prepared splits, memory-mapped. Raises DamagedFile."""
    from datasets import DatasetDict

    try:
        return DatasetDict(_held[path]) if path in _held else DatasetDict.load_from_disk(str(path))
    except Exception as error:  # whatever a damaged file makes `datasets` raise
        raise DamagedFile(path, f"cannot be opened ({describe(error)})", _AGAIN) from error


def about(path: Path) -> dict[str, Any]:
    """Return ``digest``, ``task``, ``columns`` and, by stored split, ``rows`` and ``classes`` of prepared data.

    ``streamed`` are the splits that are not stored, if there are any.
    """
    known: dict[str, Any] | None = read_json(path / ABOUT, dict[str, Any], _AGAIN)
    if known is None:
        raise DamagedFile(path / ABOUT, "is missing", _AGAIN)
    return known


def digest(task: Task) -> str:
    """Return 16 hexadecimal digits that change with whatever ``data()`` depends on. Raises InputError.

    That is the task's class and source, its options, size and time of the files it reads, and LIBRARIES.
    """
    inputs = [(file, file.stat()) for file in task.inputs()]
    text = json.dumps(
        {
            "class": f"{type(task).__module__}:{type(task).__qualname__}",
            "source": [_source(cls) for cls in type(task).__mro__ if issubclass(cls, Task) and cls is not Task],
            "options": task.model_dump(mode="json", by_alias=True, fallback=repr),
            "inputs": [[str(file), stat.st_size, stat.st_mtime_ns] for file, stat in inputs],
            "libraries": _versions(),
        },
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES}


def _source(cls: type) -> str:
    """Return the digest of a class's module (a study's own file: all Python files beside it), or of its code.

    A class from a notebook has code only.
    """
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    content = hashlib.sha256()
    if file is None or not Path(file).is_file() or cls.__module__ == "__main__":
        content.update(by_value.code_of(cls).encode())
    else:
        own = cls.__module__.startswith(f"{modules.__name__}.")
        for path in sorted(Path(file).parent.glob("*.py")) if own else [Path(file)]:
            content.update(path.read_bytes())
    return content.hexdigest()


def _write(task: Task, place: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        whole, steps = scratch / "whole", scratch / "steps"
        steps.mkdir()
        with _no_cache(steps):
            splits = _stored(task)
            for part in splits.values():
                part.info.download_checksums = None  # by URL, which may hold a secret
            splits.save_to_disk(str(whole))
        known = {
            "digest": place.name,
            "task": f"{type(task).__module__}:{type(task).__qualname__}",
            "rows": {split: len(part) for split, part in splits.items()},
            "columns": next(iter(splits.values())).column_names,
            **({} if "train" in splits else {"streamed": ["train"]}),
            "classes": {split: _classes(part) for split, part in splits.items()},
            "deviations": {split: _deviation(part) for split, part in splits.items()},
        }
        (whole / ABOUT).write_text(json.dumps(known, indent=2) + "\n")
        seal(whole)
        os.replace(whole, place)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _classes(part: Dataset) -> list[int]:
    """Return how many rows each class has; empty where the labels are not whole numbers, one a row."""
    kinds = {name: getattr(part.features.get(name), "dtype", "") for name in ("labels", "label")}
    column = next((name for name, kind in kinds.items() if kind.startswith(("int", "uint"))), None)
    return sorted(Counter(part[column]).values()) if column else []


def _deviation(part: Dataset) -> float | None:
    """Return the standard deviation of labels that are numbers, in the units of the data; None of other labels."""
    kinds = {name: getattr(part.features.get(name), "dtype", "") for name in ("target", "labels", "label")}
    column = next((name for name, kind in kinds.items() if kind.startswith("float")), None)
    return statistics.pstdev(part[column]) if column and len(part) else None


def _data(task: Task) -> dict[str, Any]:
    """Return what ``data()`` returns. Raises InputError where it raises or returns no splits to train on."""
    from datasets import Dataset, IterableDataset

    name = type(task).__name__
    try:
        splits = task.data()
    except SweepError:
        raise
    except Exception as error:  # a person's code may raise anything
        raise InputError(f"{name}.data() raised {describe(error)}") from error
    if not isinstance(splits, dict) or not all(
        isinstance(part, (Dataset, IterableDataset)) for part in splits.values()
    ):
        raise InputError(f"{name}.data() must return a datasets.DatasetDict, got {type(splits).__name__}")
    missing = [split for split in ("train", "validation") if split not in splits]
    if missing:
        found = ", ".join(splits) or "nothing"
        raise InputError(f"{name}.data() returned no {' and no '.join(missing)} split, only {found}")
    return splits


def _stored(task: Task) -> DatasetDict:
    """Return the splits to store: all but streamed training rows; other streams are read to their end."""
    from datasets import Dataset, DatasetDict

    splits = _data(task)
    stored = {
        split: part if isinstance(part, Dataset) else Dataset.from_list(list(part), features=part.features)
        for split, part in splits.items()
        if split != "train" or isinstance(part, Dataset)
    }
    if empty := [split for split, part in stored.items() if not len(part)]:
        raise InputError(f"{type(task).__name__}.data() returned no rows for {', '.join(empty)}")
    return DatasetDict(stored)


@contextmanager
def _no_cache(folder: Path) -> Iterator[None]:
    """Keep ``map``'s steps out of the caches of `datasets`, and in ``folder``; only the result is worth keeping."""
    import datasets

    caching, bars = datasets.is_caching_enabled(), datasets.utils.logging.is_progress_bar_enabled()
    datasets.disable_caching()
    datasets.disable_progress_bars()
    try:
        with temporary_files_in(folder):
            yield
    finally:
        if caching:
            datasets.enable_caching()
        if bars:
            datasets.enable_progress_bars()
