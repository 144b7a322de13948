"""A client that commits as often as it can on whichever node accepts writes, and knows when each was acknowledged."""

import threading
import time
from collections.abc import Mapping
from contextlib import closing
from types import TracebackType
from typing import Any

import psycopg2

from benchmarks.peers.commits import Commit
from lab.shell import LabError

PAUSE_S = 0.05
_TABLE = (
    "CREATE TABLE IF NOT EXISTS peers_writes (id bigserial PRIMARY KEY, written timestamptz DEFAULT now())"
)
# pg_basebackup streams WAL, too.
_STREAMS = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND application_name <> 'pg_basebackup'"
_JOIN_S = 15.0

# No statement_timeout: it would end a commit's wait for its standby with an acknowledgement.
# A dead host is given up on after a second, also while it owes the answer to a commit. Versions of libpq before 17
# make two seconds of a connect_timeout of one.
_PATIENCE: dict[str, Any] = {
    "dbname": "postgres",
    "user": "postgres",
    "connect_timeout": 1,
    "tcp_user_timeout": 1000,
    "keepalives_idle": 1,
    "keepalives_interval": 1,
    "keepalives_count": 1,
}


class Writer:
    """Writes from `with` to its end; each node has a thread of its own, so that a dead one costs the other no time.

    Attributes:
        commits: what was acknowledged so far.
    """

    def __init__(self, addresses: Mapping[str, str]) -> None:
        self.commits: list[Commit] = []
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._write_on, args=node, daemon=True) for node in addresses.items()
        ]

    def __enter__(self) -> "Writer":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(_JOIN_S)

    def _write_on(self, node: str, address: str) -> None:
        connection: Any = None
        session = 0.0
        while not self._ended.wait(PAUSE_S):
            try:
                if connection is None:
                    session = time.monotonic()
                    connection = psycopg2.connect(host=address, **_PATIENCE)
                with connection, connection.cursor() as cursor:
                    cursor.execute("INSERT INTO peers_writes DEFAULT VALUES")
                self.commits.append(Commit(time.monotonic(), node, session))
            except psycopg2.errors.ReadOnlySqlTransaction:
                # A standby; the same connection can write as soon as it is promoted.
                continue
            except psycopg2.Error:
                if connection is not None:
                    connection.close()
                connection = None
        if connection is not None:
            connection.close()


def make_table(address: str) -> None:
    """Make the table on the primary, for those that write later.

    Raises:
        LabError: it does not accept writes.
    """
    try:
        with closing(psycopg2.connect(host=address, **_PATIENCE)) as connection, connection:
            connection.cursor().execute(_TABLE)
    except psycopg2.Error as error:
        raise LabError(f"The primary does not accept writes: {error}", where=address) from error


def is_streamed_from(address: str) -> bool:
    """Whether a standby streams from this node; a node that does not answer has none."""
    try:
        with closing(psycopg2.connect(host=address, **_PATIENCE)) as connection:
            cursor = connection.cursor()
            cursor.execute(_STREAMS)
            found: tuple[int] | None = cursor.fetchone()
            return bool(found and found[0])
    except psycopg2.Error:
        return False
