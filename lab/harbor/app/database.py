"""Sessions with PostgreSQL, with the manners of Go's database/sql.

The flows depend on those manners: a broken connection is thrown away and dialled anew, so core survives a
restart of the database; but a connection to a demoted primary that still answers is kept, and writes over it
fail, until it is older than its lifetime or core is restarted.
"""

import contextlib
import logging
import select
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg2
import psycopg2.extensions
import psycopg2.extras

from .settings import DatabaseSettings

log = logging.getLogger("database")
Row = dict[str, Any]
Connection = psycopg2.extensions.connection
Parameters = Sequence[Any] | Mapping[str, Any]


def wait_for_tcp(host: str, port: int, budget: float) -> None:
    """Dial until the database's port accepts, with growing pauses, at most `budget` seconds.

    Raises ConnectionError with Harbor's words; the caller dies of it and Docker starts it again.
    """
    deadline, pause = time.monotonic() + budget, 0.5
    while True:
        try:
            socket.create_connection((host, port), timeout=max(pause, 2.0)).close()
            return
        except OSError as error:
            if time.monotonic() + pause > deadline:
                message = f"failed to connect to tcp:{host}:{port} after {budget:.0f} seconds: {error}"
                raise ConnectionError(message) from error
            time.sleep(pause)
            pause = min(pause * 2, 8.0)


class Session:
    """One transaction: execute statements, fetch rows as dictionaries."""

    def __init__(self, connection: Connection, audit_ext: bool) -> None:
        self.connection = connection
        self.audit_ext = audit_ext

    def run(self, sql: str, parameters: Parameters = ()) -> int:
        """Execute a statement; the number of rows that it touched."""
        with self.connection.cursor() as cursor:
            cursor.execute(sql, parameters or None)
            return cursor.rowcount

    def rows(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """All rows of a query."""
        with self.connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
            cursor.execute(sql, parameters or None)
            return [dict(row) for row in cursor.fetchall()]

    def row(self, sql: str, parameters: Parameters = ()) -> Row | None:
        """The first row, or None."""
        found = self.rows(sql, parameters)
        return found[0] if found else None

    def value(self, sql: str, parameters: Parameters = ()) -> Any:
        """The first column of the first row, or None."""
        found = self.row(sql, parameters)
        return next(iter(found.values())) if found else None


def _is_stale(connection: Connection) -> bool:
    """An idle connection must have nothing to read; end of file or an error means that the peer is gone."""
    if connection.closed:
        return True
    readable, _, broken = select.select([connection.fileno()], [], [connection.fileno()], 0)
    return bool(readable or broken)


class Database:
    """A pool of connections to one PostgreSQL.

    Args:
        settings: where it is.
        audit_ext: the schema has the newer audit log.
    """

    def __init__(self, settings: DatabaseSettings, audit_ext: bool = True) -> None:
        self.settings = settings
        self.audit_ext = audit_ext
        self._idle: list[tuple[Connection, float]] = []
        self._lock = threading.Lock()
        limit = settings.max_open
        self._slots = threading.BoundedSemaphore(limit) if limit > 0 else None

    def dial(self) -> Connection:
        """A new connection outside the pool. Raises psycopg2.OperationalError."""
        settings = self.settings
        return psycopg2.connect(
            host=settings.host,
            port=settings.port,
            user=settings.user,
            password=settings.password,
            dbname=settings.name,
            sslmode=settings.sslmode,
            application_name="harbor",
            options="-c timezone=UTC",
            keepalives_idle=300,  # the dialler of Harbor's driver: five minutes, no connect time-out
        )

    def _take(self) -> tuple[Connection, float]:
        lifetime = self.settings.max_lifetime.total_seconds()
        while True:
            with self._lock:
                if not self._idle:
                    break
                connection, born = self._idle.pop()
            expired = lifetime > 0 and time.monotonic() - born > lifetime
            if not expired and not _is_stale(connection):
                return connection, born
            connection.close()
        return self.dial(), time.monotonic()

    def _give_back(self, connection: Connection, born: float) -> None:
        with self._lock:
            if not connection.closed and len(self._idle) < max(self.settings.max_idle, 1):
                self._idle.append((connection, born))
                return
        connection.close()

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """One transaction on a pooled connection: committed at the end, rolled back on an exception."""
        with self._slots or contextlib.nullcontext():
            connection, born = self._take()
            try:
                yield Session(connection, self.audit_ext)
                connection.commit()
            except BaseException:
                with contextlib.suppress(psycopg2.Error):
                    connection.rollback()
                raise
            finally:
                self._give_back(connection, born)

    def ping(self) -> None:
        """What Harbor calls a healthy database; a read-only standby passes. Raises psycopg2.Error."""
        with self.session() as session:
            session.value("SELECT 1")
