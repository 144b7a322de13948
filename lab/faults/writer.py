"""A load that behaves like Harbor's core: it keeps connections to whichever database accepts writes.

Each id is inserted until it is acknowledged, as a client repeats its request; an id that was committed without
the answer getting through is found there by the next attempt. What was acknowledged, and when, is on disk before
the next id is drawn.
"""

import itertools
import json
import random
import threading
import time
from pathlib import Path
from typing import Any

import psycopg2

from blocks.site_file import read_site_file

CONNECTIONS = 2
_PAUSE_S = 0.05
_TABLE = """
CREATE TABLE IF NOT EXISTS faults_writes (
    id bigint PRIMARY KEY, written timestamptz NOT NULL DEFAULT clock_timestamp(), filler text)
"""


def write(site_file: str, log: str, size: int = 100, each_node: bool = False) -> None:
    """Write until killed.

    Args:
        site_file: names the nodes and the role.
        log: gets a line for each attempt (with its transaction) and for each acknowledgement.
        size: bytes of each row.
        each_node: one connection a node that knows no other. Where seconds are measured, it shows when a node begins
            to accept writes; one that goes from node to node waits up to two seconds for the dead one in between.
    """
    site = read_site_file(Path(site_file))
    dsn: dict[str, Any] = {
        "dbname": site.postgres.database,
        "user": site.postgres.application.user,
        "password": site.postgres.application.password.get_secret_value(),
        "port": site.postgres.port,
        "connect_timeout": 2,
        "tcp_user_timeout": 2000,
        "options": "-c statement_timeout=5000",
    }
    hosts = [node.address for node in site.nodes if node.runs_postgres]
    # Increasing over all runs: the table stays from one scenario to the next.
    ids = itertools.count(int(time.time() * 1000) * 1000)
    guard = threading.Lock()
    with Path(log).open("a", encoding="utf-8") as file:

        def note(**line: Any) -> None:
            with guard:
                file.write(json.dumps({"t": time.time(), **line}) + "\n")
                file.flush()

        threads = [
            threading.Thread(target=_write_with_one, args=(dsn, known, ids, note, size), daemon=True)
            for known in ([[host] for host in hosts] if each_node else [hosts] * CONNECTIONS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _write_with_one(dsn: dict[str, Any], hosts: list[str], ids: Any, note: Any, size: int) -> None:
    hosts = list(hosts)
    connection: Any = None
    number: int | None = None
    while True:
        try:
            if connection is None:
                connection = psycopg2.connect(host=hosts[0], **dsn)
                _expect_primary(connection)
            if number is None:
                number = next(ids)
            _insert(connection, number, note, hosts[0], size)
            number = None
            time.sleep(_PAUSE_S)
        except psycopg2.Error:
            if connection is not None:
                connection.close()
            connection = None
            hosts.append(hosts.pop(0))
            time.sleep(random.uniform(0.05, 0.1))


def _expect_primary(connection: Any) -> None:
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_is_in_recovery()")
        if cursor.fetchone()[0]:
            raise psycopg2.OperationalError("a standby")
        cursor.execute(_TABLE)


def _insert(connection: Any, number: int, note: Any, host: str, size: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO faults_writes (id, filler) VALUES (%s, %s) ON CONFLICT DO NOTHING "
            "RETURNING txid_current() & 4294967295",
            (number, "x" * size),
        )
        row = cursor.fetchone()
        note(attempt=number, xid=row[0] if row else None, host=host)
        connection.commit()
    note(ack=number, host=host)
