"""The driver's lock: one driver at a time, named to others, and free the moment its driver is dead."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from making import toy_study
from sweepkit.study.errors import StudyFailed, StudyLocked
from sweepkit.study.locks import StudyLock, lock_owner, lock_owners, lock_since
from sweepkit.study.paths import Place

HOLD = """
import os, sys, time
from pathlib import Path
from sweepkit.study.locks import StudyLock
from sweepkit.study.paths import Place

with StudyLock(Place.of("toy", Path(sys.argv[1])), shared=len(sys.argv) > 2):
    if os.fork() == 0:  # as multiprocessing does; it outlives a killed parent
        print("held", flush=True)
        time.sleep(1)
        os._exit(0)
    time.sleep(60)
"""


@pytest.fixture
def place(project: Path) -> Place:
    return toy_study(project).place


@contextmanager
def holder(place: Place, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process that holds the study's lock; kill it at the end."""
    command = [sys.executable, "-c", HOLD, str(place.home), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_second_driver_is_refused_and_learns_who_holds_the_lock(place: Place) -> None:
    with StudyLock(place):
        owner = f"process {os.getpid()} on {socket.gethostname()}, since {datetime.now():%Y-%m-%d}"
        with pytest.raises(StudyLocked, match=f"study toy is already run by {owner}"):
            StudyLock(place).__enter__()
        assert lock_owner(place) == (os.getpid(), socket.gethostname())
        assert lock_since(place) is not None
    assert lock_owner(place) is None and lock_since(place) is None


@pytest.mark.real
def test_the_lock_of_a_killed_driver_is_free_at_once_though_its_file_names_it(place: Place) -> None:
    with holder(place) as process:
        assert lock_owner(place) == (process.pid, socket.gethostname())
    assert str(process.pid) in place.lock.read_text()
    assert lock_owner(place) is None
    with StudyLock(place):
        assert lock_owner(place) == (os.getpid(), socket.gethostname())


@pytest.mark.real
def test_several_drivers_share_a_study_whose_storage_allows_it(place: Place) -> None:
    with holder(place, "shared") as process:
        with StudyLock(place, shared=True):
            assert {pid for pid, _ in lock_owners(place)} == {process.pid, os.getpid()}
        assert [pid for pid, _ in lock_owners(place)] == [process.pid]


def test_readers_do_not_take_each_other_for_a_driver_nor_need_to_write(place: Place) -> None:
    import fcntl

    with StudyLock(place):
        pass
    place.lock.write_text(
        '{"pid": 1, "host": "elsewhere", "started": "2026-01-01T00:00:00"}'
    )  # left by a killed driver
    place.lock.chmod(0o444)
    with place.lock.open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert lock_owner(place) is None


def test_a_folder_that_is_not_writable_is_said(project: Path, place: Place) -> None:
    (project / "runs").touch()
    with pytest.raises(
        StudyFailed, match=r"runs/toy is not writable \(Not a directory\); the study's results go there"
    ):
        StudyLock(place).__enter__()
