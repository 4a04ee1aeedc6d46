"""Several drivers on one study: who lives, and whose turn it is. Knows no trial.

With PostgreSQL each driver holds an advisory lock of its own in its database session, which the server gives back the
moment the session ends, however the driver died; no clock and no heartbeat decides who is dead. A second lock, one per
study, gives drivers turns, so that asking for a trial and taking over a dead driver's are never done by two at once.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import sqlalchemy
from sqlalchemy.exc import DBAPIError

from sweepkit.search.storage import several_drivers
from sweepkit.study.study import StudyData


class Drivers(Protocol):
    """All drivers of one study."""

    @property
    def me(self) -> str | None:
        """This driver's name, noted with its trials; None where there is only one driver."""

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the study's turn."""

    def alive(self, driver: str | None) -> bool:
        """Whether that driver, another one, still runs."""


class Alone:
    """The only driver, by the study's lock: whatever runs is its own or a dead one's."""

    me = None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Go ahead."""
        yield

    def alive(self, driver: str | None) -> bool:
        """Nobody else lives."""
        return False


class Shared:
    """One of several drivers on a PostgreSQL database; whoever never takes a turn, and only reads, never connects."""

    def __init__(self, url: str, study_name: str) -> None:
        self._engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT")
        self._turn = int.from_bytes(hashlib.sha256(study_name.encode()).digest()[:7])
        self._me = secrets.randbits(62)
        self._session: sqlalchemy.Connection | None = None

    @property
    def me(self) -> str:
        """This driver's name."""
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
        """Whether the driver's session still holds its lock; asked during this driver's turn."""
        if driver is None or driver == self.me:
            return driver is not None
        free = bool(self._call("pg_try_advisory_lock", int(driver)))
        if free:
            self._call("pg_advisory_unlock", int(driver))
        return not free

    def _call(self, function: str, key: int) -> object:
        statement = sqlalchemy.text(f"SELECT {function}(:key)").bindparams(key=key)
        try:
            return self._connection().execute(statement).scalar()
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            # The server was restarted or the line broke: a new session takes the driver's lock again.
            self._session = None
            return self._connection().execute(statement).scalar()

    def _connection(self) -> sqlalchemy.Connection:
        if self._session is None:
            self._session = self._engine.connect()
            # A machine that vanishes is noticed within a minute, not after TCP's two hours.
            for setting, seconds in (("idle", 30), ("interval", 10), ("count", 3)):
                self._session.execute(sqlalchemy.text(f"SET tcp_keepalives_{setting} = {seconds}"))
            self._session.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)").bindparams(key=self._me))
        return self._session


def drivers_of(study: StudyData, study_name: str) -> Drivers:
    """Return the drivers of a study, this one among them."""
    return Shared(study.storage, study_name) if several_drivers(study) else Alone()
