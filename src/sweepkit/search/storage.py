"""Opens a study's Optuna storage, and repairs what a killed process left behind.

The embedded storage is one journal file. A kill can leave two kinds of damage: a stale lock file, for which every writer
waits 30 s, and a torn last record, which makes the file unreadable for good once another record is written after it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from sweepkit.search.folding import fold, unfoldable
from sweepkit.search.private import journal_backend
from sweepkit.study.errors import DamagedFile, InputError
from sweepkit.study.files import describe, first_line, text_of
from sweepkit.study.garbage import without_collection
from sweepkit.study.identity import missing_secret
from sweepkit.study.paths import Place
from sweepkit.study.secrets import HIDDEN, scrub_url
from sweepkit.study.study import StudyData

CONNECT_SECONDS = "30"
"""How long a PostgreSQL server may take to answer; PGCONNECT_TIMEOUT wins."""
TABLES = 5
"""How often two drivers may meet at making the tables of a new database, before one of them gives up."""
LOST = "it holds the study's trials: put it back from a copy, or start over with --fresh, which archives what is left of them"


def open_storage(place: Place, study: StudyData, *, repair: bool = False) -> BaseStorage:
    """Return the study's Optuna storage.

    ``repair`` removes a stale storage lock and cuts an incomplete last record, after a backup copy; the caller must hold the
    study's lock, so that no other process is writing. Raises InputError if the storage cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if study.storage == "journal":
        place.folder.mkdir(parents=True, exist_ok=True)
        if repair:
            remove_lock(place.journal)
            repair_journal(place.journal)
        return open_journal(place)
    if HIDDEN in study.storage:
        raise missing_secret("storage", study.storage)
    return _open_database(place, study, repair)


def _open_database(place: Place, study: StudyData, repair: bool) -> BaseStorage:
    import sqlalchemy  # a third of a second, which studies with a journal need not wait for

    url = database_url(place, study.storage)
    os.environ.setdefault("PGCONNECT_TIMEOUT", CONNECT_SECONDS)
    # Readers are short-lived parts of long-lived processes: they must not keep a connection.
    engine: dict[str, object] = {"pool_pre_ping": True} if repair else {"poolclass": sqlalchemy.NullPool}
    if url.startswith("sqlite"):
        engine = {"connect_args": {"timeout": 60}}
    try:
        for _ in range(TABLES):
            # Another driver may make tables at the same moment; by the time this is known, they are there.
            with suppress(sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError):
                return get_storage(RDBStorage(url, engine_kwargs=engine))
        return get_storage(RDBStorage(url, engine_kwargs=engine))
    except (ImportError, sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = first_line(text_of(error.__cause__ or error).replace(url, scrub_url(url)))
        if isinstance(error, ImportError):
            reason = f"{reason} (for PostgreSQL: pip install 'psycopg[binary]' and a URL postgresql+psycopg://…)"
        raise InputError(f"storage {scrub_url(url)} cannot be opened: {reason}") from None


def open_journal(place: Place) -> JournalStorage:
    """Return the storage in the study's journal. Raises DamagedFile where Optuna cannot read it."""
    if place.journal.is_symlink():
        raise DamagedFile(place.journal, "is a link", LOST)
    try:
        with without_collection():  # among the many objects of a long study is none, and looking takes half the time
            return JournalStorage(_Journal(place.journal))
    except Exception as error:  # whatever a damaged file makes Optuna raise
        fault = f"cannot be read by Optuna {optuna.__version__} ({describe(error)})"
        raise DamagedFile(place.journal, fault, LOST) from error


def ensure_whole(study: StudyData, place: Place, logged: int, stored: int) -> None:
    """Raise DamagedFile where trials in ``place`` have logs (``logged`` was read first) that the storage does not know."""
    if logged > stored:
        where = study.place.journal if study.storage == "journal" else scrub_url(study.storage)
        fault = f"has {stored} of the {logged} trials that have logs in {place.trials}: it was lost, emptied or cut"
        raise DamagedFile(where, fault, LOST)


def database_url(place: Place, url: str) -> str:
    """Return the URL with a relative SQLite path made absolute, from the project root."""
    head, slashes, path = url.partition(":///")
    if not head.startswith("sqlite") or not slashes or path.startswith(("/", ":memory:", "file:")) or not path:
        return url
    return f"{head}:///{place.root / path}"


class _Journal(JournalFileBackend):
    """The journal file; records written :meth:`together` cost one lock, one write and one wait for the disk."""

    def __init__(self, path: Path) -> None:
        self._path, self._turn = path, _RepairingLock(str(path))
        super().__init__(str(path), lock_obj=self._turn)
        self._held: list[dict[str, Any]] | None = None
        self._given = self._end = 0  # records that were read, and where the last of them ends

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield the records after those read before; on opening, those of a trial are folded into one."""
        assert log_number_from in (0, self._given), "a storage reads its journal in order"
        if log_number_from == 0:
            self._given = self._end = 0
            for record in self._opening():
                self._given += 1
                yield record
        opened = os.open(self._path, os.O_RDONLY)  # not stat: on NFS only opening a file shows what others wrote
        if os.fstat(opened).st_size == self._end:
            os.close(opened)
            return  # nothing new, the usual case: a storage looks before each trial that it returns
        with os.fdopen(opened, "rb") as file:
            file.seek(self._end)
            for line in file:
                if not file.peek(1) and not _is_record(line):
                    return  # another process is writing it
                record = json.loads(line)
                self._given, self._end = self._given + 1, self._end + len(line)
                yield record

    def _opening(self) -> list[dict[str, Any]]:
        """Return the whole records of the file, folded."""
        end = _whole(self._path, self._path.stat().st_size)

        def lines() -> Iterator[bytes]:
            with self._path.open("rb") as file:
                left = end
                while left > 0 and (line := file.readline()):
                    left -= len(line)
                    yield line

        apart = unfoldable(lines())
        if apart is None:
            return []
        self._end = end
        return fold(lines(), apart)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write records, or collect them within :meth:`together`."""
        if self._held is None:
            self._append(logs)
        else:
            self._held += logs

    def _append(self, logs: list[dict[str, Any]]) -> None:
        """Write records, all of them or, on a full disk, none."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        self._turn.acquire()
        try:
            with self._path.open("ab", buffering=0) as file:
                end = os.fstat(file.fileno()).st_size
                try:
                    while lines:
                        lines = lines[file.write(lines) :]
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(end)
                    raise
        finally:
            self._turn.release()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Collect the records written in this context and write them all, in order, at its end; one inside another adds to it.

        Until then none of them is read.
        """
        if self._held is not None:
            yield
            return
        held: list[dict[str, Any]] = []
        self._held = held
        try:
            yield
        finally:
            self._held = None
            if held:
                self._append(held)


def together(storage: BaseStorage) -> AbstractContextManager[None]:
    """Return a context whose records a journal writes all at once, at its end; it has no effect on other storages."""
    backend = journal_backend(storage)
    return backend.together() if isinstance(backend, _Journal) else nullcontext()


class _RepairingLock(JournalFileSymlinkLock):
    """Optuna's own lock on the journal; it repairs a torn last record before anything is written after it."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._journal = Path(path)

    def acquire(self) -> bool:
        """Acquire the lock, as other processes that use Optuna do, then repair the end of the file if necessary."""
        super().acquire()
        with self._journal.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return True
            file.seek(-1, os.SEEK_END)
            whole = file.read(1) == b"\n"
        if not whole:
            repair_journal(self._journal)
        return True


def remove_lock(journal: Path) -> None:
    """Remove the storage lock that a killed process left."""
    for path in (Path(f"{journal}.lock"), *journal.parent.glob(f"{journal.name}.lock*.rename")):
        with suppress(FileNotFoundError):
            path.unlink()


def repair_journal(journal: Path) -> Path | None:
    """Cut an incomplete last record, after a backup copy, and return the copy; None if the journal is intact."""
    if not journal.exists():
        return None
    size = journal.stat().st_size
    keep = _whole(journal, size)
    if keep == size:
        return None
    backup = journal.with_name(f"{journal.name}.torn-{datetime.now():%Y%m%d-%H%M%S-%f}")
    shutil.copy2(journal, backup)
    with journal.open("rb+") as file:
        file.truncate(keep)
        os.fsync(file.fileno())
    return backup


def _is_record(line: bytes) -> bool:
    """Whether a line is complete: ends, and is JSON."""
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _whole(journal: Path, size: int, block: int = 65536) -> int:
    """Return the length of the journal without an incomplete last record."""
    with journal.open("rb") as file:
        tail, start = b"", size
        while start > 0 and tail.rstrip(b"\n").count(b"\n") == 0:
            start = max(0, start - block)
            file.seek(start)
            tail = file.read(size - start)
    *_, last = tail.removesuffix(b"\n").rpartition(b"\n")
    complete = tail.endswith(b"\n") and _is_record(last + b"\n")
    return size if complete or size == 0 else size - len(last) - tail.endswith(b"\n")


def set_aside(storage: BaseStorage, name: str) -> str | None:
    """Rename a study in a database, for ``--fresh``, and return the new name; None if there is no such study.

    The embedded storage does not need this: its file moves with the study's folder.
    """
    if name not in optuna.get_all_study_names(storage):
        return None
    archived = f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    optuna.copy_study(from_study_name=name, from_storage=storage, to_storage=storage, to_study_name=archived)
    optuna.delete_study(study_name=name, storage=storage)
    return archived
