"""Several drivers on one study: which of them are alive, and whose turn it is.

With PostgreSQL each driver holds an advisory lock of its own in its database session. The server releases it the moment the
session ends, however the driver died, so no clock or heartbeat decides who is dead. A second lock, one per study, gives the
drivers turns, so that no two of them ask for a trial or take over a dead driver's trials at the same time.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sweepkit.study.study import StudyData

if TYPE_CHECKING:
    import sqlalchemy  # a third of a second, which studies with a journal need not wait for


class OneDriver:
    """The study's lock allows only one driver, so a trial that is not its own was left by a dead one."""

    me: str | None = None
    """This driver's id, recorded with its trials; None, as there is only one driver."""

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the study's turn, which no other driver takes."""
        yield

    def alive(self, driver: str | None) -> bool:
        """Return False: another driver must be dead."""
        return False


class ManyDrivers:
    """One of several drivers on a PostgreSQL database. It connects at its first turn; a process that only reads never does."""

    def __init__(self, url: str, study_name: str) -> None:
        import sqlalchemy

        self._engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT")
        self._turn = int.from_bytes(hashlib.sha256(study_name.encode()).digest()[:7])
        self._me = secrets.randbits(62)
        self._session: sqlalchemy.Connection | None = None

    @property
    def me(self) -> str:
        """This driver's id, recorded with its trials."""
        return str(self._me)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the study's turn and hold it."""
        self._call("pg_advisory_lock", self._turn)
        try:
            yield
        finally:
            self._call("pg_advisory_unlock", self._turn)

    def alive(self, driver: str | None) -> bool:
        """Return whether the driver's session still holds its lock. Call it while holding the turn."""
        if driver is None or driver == self.me:
            return driver is not None
        free = bool(self._call("pg_try_advisory_lock", int(driver)))
        if free:
            self._call("pg_advisory_unlock", int(driver))
        return not free

    def _call(self, function: str, key: int) -> object:
        import sqlalchemy

        statement = sqlalchemy.text(f"SELECT {function}(:key)").bindparams(key=key)
        try:
            return self._connection().execute(statement).scalar()
        except sqlalchemy.exc.DBAPIError as error:
            if not error.connection_invalidated:
                raise
            # The server restarted or the connection broke: take the driver's lock again in a new session.
            self._session = None
            return self._connection().execute(statement).scalar()

    def _connection(self) -> sqlalchemy.Connection:
        import sqlalchemy

        if self._session is None:
            self._session = self._engine.connect()
            # Notice a vanished machine within a minute, not after TCP's two hours.
            for setting, seconds in (("idle", 30), ("interval", 10), ("count", 3)):
                self._session.execute(sqlalchemy.text(f"SET tcp_keepalives_{setting} = {seconds}"))
            self._session.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)").bindparams(key=self._me))
        return self._session


def drivers_of(study: StudyData, study_name: str) -> OneDriver | ManyDrivers:
    """Return the drivers of a study, seen from a new one."""
    return ManyDrivers(study.storage, study_name) if study.several_drivers else OneDriver()
