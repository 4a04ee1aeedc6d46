"""A driver that dies while it writes Optuna's journal leaves a torn record and a lock; the same command survives both."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from making import toy_study
from sweepkit.driver.run import run
from sweepkit.search.storage import open_storage
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import Ending

pytestmark = pytest.mark.real


KILLED_WHILE_WRITING = """
import os, resource, signal, sys
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

storage = JournalStorage(JournalFileBackend(sys.argv[1]))
study = storage.get_study_id_from_name("toy")
# The kernel writes up to the limit, then kills: the record is torn, and who held the lock cannot give it back.
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
limit = os.path.getsize(sys.argv[1]) + 20
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
storage.set_study_user_attr(study, "note", "a record much longer than what there is room for" * 10)
"""


@pytest.fixture
def torn(project: Path) -> StudyData:
    """Return a study of two trials whose journal was left by a process that was killed in the middle of a record."""
    study = toy_study(project, budget={"trials": 2}, backend={"parallel": 1})
    run(study)
    journal = str(study.place.journal)
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, journal], timeout=180, check=False)
    assert killed.returncode == -signal.SIGXFSZ
    assert not study.place.journal.read_bytes().endswith(b"\n"), "the last record is torn"
    assert Path(f"{journal}.lock").is_symlink(), "the lock is left"
    return study


def test_the_same_command_goes_on_and_keeps_a_copy_of_what_it_cut(torn: StudyData, project: Path) -> None:
    before = torn.place.journal.read_bytes()
    outcome = run(toy_study(project, budget={"trials": 4}, backend={"parallel": 1}))
    assert [(row.number, row.ending) for row in outcome.rows] == [(number, Ending.complete) for number in range(4)]
    (backup,) = torn.place.folder.glob("optuna.journal.torn-*")
    assert backup.read_bytes() == before
    assert torn.place.journal.read_bytes().startswith(before[: before.rfind(b"\n") + 1])


def test_a_stale_lock_is_not_waited_for(torn: StudyData) -> None:
    began = time.monotonic()
    storage = open_storage(torn.place, torn, repair=True)
    storage.set_study_user_attr(storage.get_study_id_from_name("toy"), "note", 1)
    assert time.monotonic() - began < 5, "Optuna by itself waits 30 s"
