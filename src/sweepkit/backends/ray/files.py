"""Moves a trial's files between a node's own disk and the study's folder, by way of the study's ``backend.path``.

The trial trains in a scratch folder of its node. Each checkpoint is copied to the study's folder when the trial reports it,
the log when the trial ends; the checkpoint to resume from goes the other way. Without a ``backend.path`` all nodes share the
study's folder and nothing moves.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from dataclasses import replace
from pathlib import Path

import psutil

from sweepkit.study.damage import settle
from sweepkit.study.errors import InputError
from sweepkit.study.files import remove
from sweepkit.study.paths import CONSOLE, LAST, SPEC
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Checkpointed, Event, Finished
from sweepkit.trial.trial import TrialSpec

_SENT_AT_THE_END = (SPEC, CONSOLE)
_COMPLETE = ".whole"
"""Suffix of the marker that is written once everything under a key is uploaded."""


class Depot:
    """A folder ``name`` at ``url``: a shared folder, or any fsspec URL. Keys are paths in it.

    An upload can be downloaded once it is complete, and only once.
    """

    def __init__(self, url: str, name: str) -> None:
        import fsspec

        self._files, root = fsspec.core.url_to_fs(url)
        self._root = f"{root.rstrip('/')}/{name}"

    @classmethod
    def of(cls, study: StudyData) -> Depot | None:
        """Return the depot of a study; None where it has no ``backend.path``."""
        path = study.backend.path
        return None if path is None else cls(path if "://" in path else str(study.home / path), study.name)

    def prepare(self) -> None:
        """Remove what an earlier driver left. Raises the file system's own error where nothing can be written."""
        self.clear()
        self._files.makedirs(self._root, exist_ok=True)
        self._files.pipe_file(f"{self._root}/{_COMPLETE}", b"")

    def upload(self, key: str, source: Path) -> None:
        """Copy a file or a folder to a key."""
        folder = f"{self._root}/{key}"
        self._remove(folder)  # incomplete, from a killed node
        self._files.makedirs(folder, exist_ok=True)
        self._files.put(str(source), f"{folder}/{source.name}", recursive=True)
        self._files.pipe_file(f"{self._root}/{key}{_COMPLETE}", source.name.encode())

    def download(self, key: str, target: Path) -> bool:
        """Move what lies at a key to ``target``, replacing it; False where there is no complete upload."""
        self._files.invalidate_cache()
        marker = f"{self._root}/{key}{_COMPLETE}"
        if not self._files.exists(marker):
            return False
        folder = f"{self._root}/{key}"
        new = target.with_name(f"{target.name}.new")
        remove(new)
        new.parent.mkdir(parents=True, exist_ok=True)
        self._files.get(f"{folder}/{self._files.cat_file(marker).decode()}", str(new), recursive=True)
        remove(target)
        os.rename(new, target)
        self._files.rm_file(marker)
        self._remove(folder)
        return True

    def clear(self) -> None:
        """Remove everything, for instance what a killed node uploaded."""
        self._remove(self._root)

    def _remove(self, folder: str) -> None:
        if self._files.exists(folder):
            self._files.rm(folder, recursive=True)


class NodeFiles:
    """The node's side of the transfer."""

    def __init__(self, study: StudyData) -> None:
        self._depot = Depot.of(study)
        self._scratch = make_scratch() if self._depot else None

    def receive(self, spec: TrialSpec) -> TrialSpec:
        """Return the spec with this node's paths, after fetching the checkpoint to resume from."""
        if self._depot is None or self._scratch is None:
            return spec
        folder = self._scratch / f"{spec.number:04d}"
        remove(folder)
        start = folder / LAST / Path(spec.resume_from).name if spec.resume_from else None
        if start is not None:
            start.parent.mkdir(parents=True)
            self._depot.download(_key(spec.number, "start"), start)
        return replace(spec, directory=str(folder), resume_from=str(start) if start else None)

    def send(self, event: Event) -> Event:
        """Upload the files that an event reports; return the event with paths relative to the trial's folder.

        Only the driver knows where that folder lies.
        """
        if self._depot is None or self._scratch is None:
            return event
        folder = self._scratch / f"{event.trial:04d}"
        if isinstance(event, Checkpointed):
            checkpoint = Path(event.path)
            self._depot.upload(_key(event.trial, event.role), checkpoint)
            return replace(event, path=str(checkpoint.relative_to(folder)))
        if isinstance(event, Finished):
            for name in _SENT_AT_THE_END:
                if (folder / name).exists():
                    self._depot.upload(_key(event.trial, name), folder / name)
            remove(folder)
        return event

    def close(self) -> None:
        """Remove the scratch folder."""
        if self._scratch is not None:
            remove(self._scratch)


class DriverFiles:
    """The driver's side of the transfer. Raises InputError where nothing can be written to ``backend.path``."""

    def __init__(self, study: StudyData) -> None:
        self._place = study.place
        try:
            self._depot = Depot.of(study)
            if self._depot is not None:
                self._depot.prepare()
        except Exception as error:  # each file system has errors of its own
            raise InputError(f"backend.path: nothing can be written there: {error}") from error

    def send(self, spec: TrialSpec) -> None:
        """Upload the checkpoint that a trial resumes from."""
        if self._depot is not None and spec.resume_from:
            self._depot.upload(_key(spec.number, "start"), Path(spec.resume_from))

    def receive(self, event: Event) -> Event:
        """Download the files that an event reports; return the event with this machine's paths."""
        if self._depot is None:
            return event
        folder = self._place.trial(event.trial)
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(event, Checkpointed):
            target, arrived = folder / event.path, folder / f"{event.role}.arrived.new"
            if self._depot.download(_key(event.trial, event.role), arrived):
                _install(arrived, target, alone=event.role == "last")
            return replace(event, path=str(target))
        if isinstance(event, Finished):
            for name in _SENT_AT_THE_END:
                self._depot.download(_key(event.trial, name), folder / name)
        return event

    def close(self) -> None:
        """Remove uploads that were never fetched."""
        if self._depot is not None:
            self._depot.clear()


def make_scratch() -> Path:
    """Make a temporary folder that only this user can open, and remove this user's of processes that were killed.

    Its path is short, as the sockets that Ray puts there want it.
    """
    host = "@" + hashlib.sha256(os.uname().nodename.encode()).hexdigest()[:4]  # machines may share the disk
    for folder in Path(tempfile.gettempdir()).glob(f"sweepkit-*{host}"):
        process = re.fullmatch(r"sweepkit-(\d+)-\w+", folder.name.removesuffix(host))
        if process and folder.lstat().st_uid == os.getuid() and not psutil.pid_exists(int(process[1])):
            remove(folder)
    return Path(tempfile.mkdtemp(prefix=f"sweepkit-{os.getpid()}-", suffix=host))


def _install(arrived: Path, target: Path, *, alone: bool) -> None:
    """Move a complete folder to its place; with ``alone`` older folders beside it are removed."""
    old = target.with_name(f"{target.name}.old")
    target.parent.mkdir(exist_ok=True)
    if not alone and target.exists():
        remove(old)
        os.rename(target, old)
    settle(arrived)
    remove(target)
    os.rename(arrived, target)
    remove(old)
    for other in target.parent.iterdir() if alone else ():
        if other != target:
            remove(other)


def _key(number: int, part: str) -> str:
    return f"{number:04d}/{part}"
