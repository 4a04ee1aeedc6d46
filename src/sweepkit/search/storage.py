"""Opens the Optuna storage a study asks for, and mends what a killed process left behind. Knows no trial.

The embedded storage is one journal file. Two traps of it, both met after a kill: a stale lock file makes every writer wait
30 s, and a torn last record makes the file unreadable for good as soon as something is written behind it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from sweepkit.search.private import journal_backend
from sweepkit.study.errors import InputError
from sweepkit.study.paths import Place
from sweepkit.study.secrets import scrub_url
from sweepkit.study.study import StudyData


def open_storage(place: Place, study: StudyData, *, repair: bool = False) -> BaseStorage:
    """Return the study's Optuna storage.

    ``repair`` removes a stale storage lock and cuts an incomplete last record (after a backup copy); the caller then holds
    the study's lock, for only then is nobody else at work. Raises InputError when the storage cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if study.storage == "journal":
        place.folder.mkdir(parents=True, exist_ok=True)
        if repair:
            unlock(place.journal)
            mend(place.journal)
        return JournalStorage(Journal(place.journal))
    url = database_url(place, study.storage)
    # Whoever only reads comes and goes in a process that lives on: it keeps no connection.
    engine: dict[str, object] = {"pool_pre_ping": True} if repair else {"poolclass": sqlalchemy.NullPool}
    if url.startswith("sqlite"):
        engine = {"connect_args": {"timeout": 60}}
    try:
        return get_storage(RDBStorage(url, engine_kwargs=engine))
    except (ImportError, sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0].replace(url, scrub_url(url))
        if isinstance(error, ImportError):
            reason = f"{reason} (for PostgreSQL: pip install 'psycopg[binary]' and a URL postgresql+psycopg://…)"
        raise InputError(f"storage {scrub_url(url)} cannot be opened: {reason}") from None


def database_url(place: Place, url: str) -> str:
    """Return the URL with a relative SQLite path made to lie under the project root."""
    head, slashes, path = url.partition(":///")
    if not head.startswith("sqlite") or not slashes or path.startswith(("/", ":memory:", "file:")) or not path:
        return url
    return f"{head}:///{place.root / path}"


def several_drivers(study: StudyData) -> bool:
    """Whether the study's storage may be shared by several drivers (PostgreSQL); any other is one driver's alone."""
    return study.storage.startswith("postgres")


class Journal(JournalFileBackend):
    """The journal file; what is written together is one write, one lock and one wait for the disk."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), lock_obj=MendingLock(str(path)))
        self._held: list[dict[str, Any]] | None = None

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write records, or hold them back until all that belong together are there."""
        if self._held is None:
            super().append_logs(logs)
        else:
            self._held += logs

    @contextmanager
    def together(self) -> Iterator[None]:
        """Hold back what is written meanwhile, which nobody sees before the end; then write it, in its order."""
        held: list[dict[str, Any]] = []
        self._held = held
        try:
            yield
        finally:
            self._held = None
            if held:
                super().append_logs(held)


def together(storage: BaseStorage) -> AbstractContextManager[None]:
    """Return a context whose records are written at its end at once, where the storage is a journal."""
    backend = journal_backend(storage)
    return backend.together() if isinstance(backend, Journal) else nullcontext()


class MendingLock(JournalFileSymlinkLock):
    """Optuna's own lock on the journal, mending a torn last record before anything is written behind it."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._journal = Path(path)

    def acquire(self) -> bool:
        """Take the lock, as Optuna's other processes do, then look at the end of the file."""
        super().acquire()
        with self._journal.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return True
            file.seek(-1, os.SEEK_END)
            whole = file.read(1) == b"\n"
        if not whole:
            mend(self._journal)
        return True


def unlock(journal: Path) -> None:
    """Remove the lock a killed process left on the journal."""
    for path in (Path(f"{journal}.lock"), *journal.parent.glob(f"{journal.name}.lock*.rename")):
        with suppress(FileNotFoundError):
            path.unlink()


def mend(journal: Path) -> Path | None:
    """Cut an incomplete last record and return the backup copy made before; None when the journal is whole."""
    if not journal.exists():
        return None
    with journal.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        keep = _whole(journal, size)
    if keep == size:
        return None
    backup = journal.with_name(f"{journal.name}.torn-{datetime.now():%Y%m%d-%H%M%S-%f}")
    shutil.copy2(journal, backup)
    with journal.open("rb+") as file:
        file.truncate(keep)
        os.fsync(file.fileno())
    return backup


def _whole(journal: Path, size: int, block: int = 65536) -> int:
    """Return the length of the journal without an incomplete last record."""
    with journal.open("rb") as file:
        tail, start = b"", size
        while start > 0 and tail.rstrip(b"\n").count(b"\n") == 0:
            start = max(0, start - block)
            file.seek(start)
            tail = file.read(size - start)
    *_, last = tail.removesuffix(b"\n").rpartition(b"\n")
    try:
        complete = tail.endswith(b"\n") and isinstance(json.loads(last), dict)
    except ValueError:
        complete = False
    return size if complete or size == 0 else size - len(last) - tail.endswith(b"\n")


def set_aside(storage: BaseStorage, name: str) -> str | None:
    """Give a study in a database another name, for ``--fresh``, and return it; None when there is no such study.

    The embedded storage needs none of this: its file moves with the study's folder.
    """
    if name not in optuna.get_all_study_names(storage):
        return None
    archived = f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    optuna.copy_study(from_study_name=name, from_storage=storage, to_storage=storage, to_study_name=archived)
    optuna.delete_study(study_name=name, storage=storage)
    return archived
