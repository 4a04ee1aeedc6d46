"""Runs a task's ``data()`` once for each set of options and keeps the result on disk, memory-mapped by every trial.

Knows nothing of trials: whoever comes first prepares, whoever comes at the same time waits.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from sweepkit.study.errors import InputError, SweepError
from sweepkit.study.paths import ABOUT
from sweepkit.tasks import by_value, files
from sweepkit.tasks.private import temporary_files_in
from sweepkit.tasks.task import Task

if TYPE_CHECKING:
    from datasets import DatasetDict

LIBRARIES = ("datasets", "transformers", "tokenizers")
"""Whose versions decide, besides the task, what the prepared rows look like."""


def prepare(task: Task, folder: Path) -> Path:
    """Return the folder with the task's prepared splits, running ``data()`` only where no one did before.

    It lies under ``folder`` by a digest of the task's class and source, all its options and the files it reads. A
    process that comes while another prepares waits for it; one that was killed in the middle leaves nothing that
    counts. From then on ``task.splits`` are the prepared ones. Raises InputError.
    """
    from filelock import FileLock

    name = digest(task)
    place = folder / name
    if not place.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{name}.lock"):
            if not place.is_dir():
                for left in folder.glob(f".{name}-*"):
                    shutil.rmtree(left, ignore_errors=True)  # of a process that was killed in the middle
                _write(task, place)
    task._splits = load_prepared(place)
    return place


_held: dict[Path, DatasetDict] = {}
"""Prepared splits that are open for all processes forked from this one."""


def hold(task: Task, folder: Path) -> None:
    """Open the task's splits once for all processes forked from this one, where they are prepared already."""
    place = folder / digest(task)
    if place.is_dir():
        _held[place] = load_prepared(place)


def load_prepared(path: Path) -> DatasetDict:
    """Return prepared splits, memory-mapped."""
    from datasets import DatasetDict

    return DatasetDict(_held[path]) if path in _held else DatasetDict.load_from_disk(str(path))


def about(path: Path) -> dict[str, Any]:
    """Return what is known of prepared data without opening it: digest, task, rows by split, columns."""
    found: dict[str, Any] = json.loads((path / ABOUT).read_text())
    return found


def digest(task: Task) -> str:
    """Return 16 hexadecimal digits that change when ``data()`` could return something else. Raises InputError."""
    stamps = []
    for file in task.inputs():
        found = file.stat()
        stamps.append([str(file), found.st_size, found.st_mtime_ns])
    text = json.dumps(
        {
            "class": f"{type(task).__module__}:{type(task).__qualname__}",
            "source": [_source(cls) for cls in type(task).__mro__ if issubclass(cls, Task) and cls is not Task],
            "options": task.model_dump(mode="json", by_alias=True, fallback=repr),
            "inputs": stamps,
            "libraries": _versions(),
        },
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES}


def _source(cls: type) -> str:
    """The digest of a class's module (a task's file: of all Python files beside it); in a notebook of its code."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    found = hashlib.sha256()
    if file is None or not Path(file).is_file() or cls.__module__ == "__main__":
        found.update(repr(_code(cls, set())).encode())
    else:
        own = cls.__module__.startswith(f"{files.__name__}.")
        for path in sorted(Path(file).parent.glob("*.py")) if own else [Path(file)]:
            found.update(path.read_bytes())
    return found.hexdigest()


def _code(value: Any, seen: set[int]) -> Any:
    """What goes by value to the trials, with all it refers to, free of addresses, file names and line numbers.

    ``seen`` are the functions and classes that were met before.
    """
    if isinstance(value, CodeType):
        return value.co_code.hex(), value.co_names, [_code(constant, seen) for constant in value.co_consts]
    if isinstance(value, (str, bytes, int, float, complex, type(None))):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return [_code(part, seen) for part in value]
    if isinstance(value, (set, frozenset)):
        return sorted(repr(_code(part, seen)) for part in value)
    if isinstance(value, dict):
        return sorted((repr(key), repr(_code(part, seen))) for key, part in value.items())
    if isinstance(value, ModuleType):
        return value.__name__
    if by_value.goes_by_name(value):
        return f"{value.__module__}.{value.__qualname__}"
    value = inspect.unwrap(getattr(value, "__func__", getattr(value, "fget", value)))
    if not isinstance(value, (FunctionType, type)):
        return hashlib.sha256(by_value.plain_dumps(value)).hexdigest()
    if id(value) in seen:
        return value.__qualname__
    seen.add(id(value))
    if isinstance(value, FunctionType):
        parts = [value.__code__, value.__defaults__, value.__kwdefaults__]
        used = [(name, _code(part, seen)) for name, part in by_value.references(value)]
        return [_code(part, seen) for part in parts], used
    own = {name: part for name, part in vars(value).items() if name[:2] != "__" and name != "_abc_impl"}
    return [_code(base, seen) for base in value.__bases__], _code(own, seen)


def _write(task: Task, place: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        whole, steps = scratch / "whole", scratch / "steps"
        steps.mkdir()
        with _no_cache(steps):
            splits = _checked(task)
            splits.save_to_disk(str(whole))
        known = {
            "digest": place.name,
            "task": f"{type(task).__module__}:{type(task).__qualname__}",
            "rows": {split: len(part) for split, part in splits.items()},
            "columns": splits["train"].column_names,
        }
        (whole / ABOUT).write_text(json.dumps(known, indent=2) + "\n")
        os.replace(whole, place)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _checked(task: Task) -> DatasetDict:
    """The splits of ``data()``, or an InputError that says what is wrong with them."""
    from datasets import Dataset, DatasetDict

    name = type(task).__name__
    try:
        splits = task.data()
    except SweepError:
        raise
    except Exception as error:  # a person's code may raise anything
        raise InputError(f"{name}.data() raised {type(error).__name__}: {error}") from error
    if not isinstance(splits, dict) or not all(isinstance(part, Dataset) for part in splits.values()):
        raise InputError(f"{name}.data() must return a datasets.DatasetDict, got {type(splits).__name__}")
    missing = [split for split in ("train", "validation") if split not in splits]
    if missing:
        found = ", ".join(splits) or "nothing"
        raise InputError(f"{name}.data() returned no {' and no '.join(missing)} split, only {found}")
    if empty := [split for split, part in splits.items() if not len(part)]:
        raise InputError(f"{name}.data() returned no rows for {', '.join(empty)}")
    return DatasetDict(splits)


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
