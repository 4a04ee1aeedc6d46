"""A trial's files on their way between a node's own disk and the study's folder, where the study names a ``backend.path``.

The trial trains in a scratch folder of its node. Its checkpoints come to the study's folder as soon as they are told of, its
log at its end; what it goes on from travels the other way. Without a ``backend.path`` all nodes share the study's folder and
nothing travels. Knows no search.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import psutil

from sweepkit.backends.checkpoints import remove
from sweepkit.backends.ray.depot import Depot
from sweepkit.study.errors import InputError
from sweepkit.study.paths import CONSOLE, LAST, SPEC
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Checkpointed, Event, Finished
from sweepkit.trial.trial import TrialSpec

_TOLD_AT_THE_END = (SPEC, CONSOLE)
_SCRATCH = "sweepkit-"


def _depot(study: StudyData) -> Depot | None:
    path = study.backend.path
    if path is None:
        return None
    return Depot(path if "://" in path else str(study.home / path), study.name)


class Node:
    """The node's end of the way."""

    def __init__(self, study: StudyData) -> None:
        self._depot = _depot(study)
        self._scratch = _own_scratch() if self._depot else None

    def receive(self, spec: TrialSpec) -> TrialSpec:
        """Return the spec as this node can train it, with what it goes on from fetched."""
        if self._depot is None or self._scratch is None:
            return spec
        folder = self._scratch / f"{spec.number:04d}"
        remove(folder)
        start = folder / LAST / Path(spec.resume_from).name if spec.resume_from else None
        if start is not None:
            start.parent.mkdir(parents=True)
            self._depot.take(_key(spec.number, "start"), start)
        return replace(spec, directory=str(folder), resume_from=str(start) if start else None)

    def send(self, event: Event) -> Event:
        """Return the event as the driver is told it, with the files that it tells of on their way.

        A path is then one within the trial's folder: where that lies, the driver knows, and a node may not.
        """
        if self._depot is None or self._scratch is None:
            return event
        folder = self._scratch / f"{event.trial:04d}"
        if isinstance(event, Checkpointed):
            here = Path(event.path)
            self._depot.put(_key(event.trial, event.role), here)
            return replace(event, path=str(here.relative_to(folder)))
        if isinstance(event, Finished):
            for name in _TOLD_AT_THE_END:
                if (folder / name).exists():
                    self._depot.put(_key(event.trial, name), folder / name)
            remove(folder)
        return event

    def close(self) -> None:
        """Remove the scratch folder."""
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)


class Home:
    """The study's end of the way. Raises InputError where nothing can be put on it."""

    def __init__(self, study: StudyData) -> None:
        self._study = study
        try:
            self._depot = _depot(study)
            if self._depot is not None:
                self._depot.begin()
        except Exception as error:  # each kind of place has errors of its own
            raise InputError(f"backend.path: nothing can be written there: {error}") from error

    def send(self, spec: TrialSpec) -> None:
        """Put what a trial goes on from where its node fetches it."""
        if self._depot is not None and spec.resume_from:
            self._depot.put(_key(spec.number, "start"), Path(spec.resume_from))

    def receive(self, event: Event) -> Event:
        """Return the event as it is here, with what it tells of in the trial's folder."""
        if self._depot is None:
            return event
        folder = self._study.place.trial(event.trial)
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(event, Checkpointed):
            here, arrived = folder / event.path, folder / f"{event.role}.arrived.new"
            if self._depot.take(_key(event.trial, event.role), arrived):
                _place(arrived, here, alone=event.role == "last")
            return replace(event, path=str(here))
        if isinstance(event, Finished):
            for name in _TOLD_AT_THE_END:
                self._depot.take(_key(event.trial, name), folder / name)
        return event

    def close(self) -> None:
        """Remove what nobody fetched."""
        if self._depot is not None:
            self._depot.clear()


def _own_scratch() -> Path:
    """Make a folder on this node's disk that bears its process's id; those of processes that were killed go."""
    host = f"@{os.uname().nodename}"  # the disk may be one that machines share
    for folder in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*{host}"):
        if not psutil.pid_exists(int(folder.name.split("-")[1])):
            remove(folder)
    return Path(tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}-", suffix=host))


def _place(arrived: Path, target: Path, *, alone: bool) -> None:
    """Set a whole folder in its place; ``alone``: its neighbours are older than it and go."""
    old = target.with_name(f"{target.name}.old")
    target.parent.mkdir(exist_ok=True)
    if not alone and target.exists():
        remove(old)
        os.rename(target, old)
    remove(target)
    os.rename(arrived, target)
    remove(old)
    for other in target.parent.iterdir() if alone else ():
        if other != target:
            remove(other)


def _key(number: int, part: str) -> str:
    return f"{number:04d}/{part}"
