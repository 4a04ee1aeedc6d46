"""Carries files between machines by way of a place that all of them reach: a shared folder, or any fsspec URL such as s3.

What is put there is whole before it can be taken, and taken once. Knows no trial, no process and no Ray.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sweepkit.backends.checkpoints import remove

_WHOLE = ".whole"
"""Ends the name of the mark that says that everything under a key is there."""


class Depot:
    """The folder ``name`` at ``url``; keys are paths in it."""

    def __init__(self, url: str, name: str) -> None:
        import fsspec

        self._files, root = fsspec.core.url_to_fs(url)
        self._root = f"{root.rstrip('/')}/{name}"

    def begin(self) -> None:
        """Remove what an earlier driver left, and raise whatever the place raises where nothing can be written."""
        self.clear()
        self._files.makedirs(self._root, exist_ok=True)
        self._files.pipe_file(f"{self._root}/{_WHOLE}", b"")

    def put(self, key: str, source: Path) -> None:
        """Copy a file or a folder to a key."""
        for file in _files(source):
            target = f"{self._root}/{key}/{file.relative_to(source.parent).as_posix()}"
            self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._files.put_file(str(file), target)
        self._files.pipe_file(f"{self._root}/{key}{_WHOLE}", source.name.encode())

    def take(self, key: str, target: Path) -> bool:
        """Move what lies at a key to ``target``, which it replaces; False where nothing whole lies there."""
        self._files.invalidate_cache()
        mark = f"{self._root}/{key}{_WHOLE}"
        if not self._files.exists(mark):
            return False
        folder = f"{self._root}/{key}/{self._files.cat_file(mark).decode()}"
        new = target.with_name(f"{target.name}.new")
        remove(new)
        for file in self._files.find(folder):
            inside = new if file == folder else new / file[len(folder) + 1 :]
            inside.parent.mkdir(parents=True, exist_ok=True)
            self._files.get_file(file, str(inside))
        remove(target)
        os.rename(new, target)
        self._files.rm_file(mark)
        self._files.rm(f"{self._root}/{key}", recursive=True)
        return True

    def clear(self) -> None:
        """Remove everything, for instance what a killed machine put and nobody took."""
        if self._files.exists(self._root):
            self._files.rm(self._root, recursive=True)


def _files(source: Path) -> Iterator[Path]:
    if source.is_file():
        yield source
    for folder, _, names in os.walk(source):
        yield from (Path(folder) / name for name in names)
