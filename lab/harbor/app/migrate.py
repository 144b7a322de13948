"""The schema, brought up to date at start, under an advisory lock, by whichever core comes first."""

import logging
import re
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg2

from .database import Connection, Database
from .habits import Habits

log = logging.getLogger("migrate")
DIRECTORY = Path(__file__).parent / "migrations"
LOCK = 1486121317  # any constant; all cores of one database must agree on it
LOCK_TIMEOUT = 15.0


class MigrationFailed(Exception):
    """The schema is not what this version needs; core ends, Docker starts it again."""


@dataclass(frozen=True)
class Step:
    """One migration file, e.g. `0160_2.13.0_schema.up.sql`."""

    version: int
    path: Path


def steps(newest: int, directory: Path = DIRECTORY) -> list[Step]:
    """The migrations of a version in order, up to and with the newest that it brings."""
    found = [(re.match(r"(\d{4})_.*\.up\.sql$", path.name), path) for path in directory.iterdir()]
    known = [Step(int(m[1]), path) for m, path in found if m and int(m[1]) <= newest]
    return sorted(known, key=lambda step: step.version)


def pending(known: list[Step], version: int | None, dirty: bool) -> list[Step]:
    """What is to be applied. Raises MigrationFailed for a dirty or a newer schema."""
    if dirty:
        raise MigrationFailed(f"Dirty database version {version}. Fix and force version.")
    if version is not None and version not in {step.version for step in known}:
        raise MigrationFailed(f"no migration found for version {version}")
    return [step for step in known if version is None or step.version > version]


def _lock(connection: Connection) -> None:
    deadline = time.monotonic() + LOCK_TIMEOUT
    with connection.cursor() as cursor:
        while True:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,))
            row = cursor.fetchone()
            if row and row[0]:
                return
            if time.monotonic() > deadline:
                raise MigrationFailed("timeout: can't acquire database lock")
            time.sleep(0.2)


def _recorded(connection: Connection, creates_first: bool) -> tuple[int | None, bool]:
    """Version and dirty flag. Creates the version table only when it is missing.

    Looking first is what lets Harbor from 2.5 on start on a read-only standby without any complaint; before, it asked
    for the table to be created in any case, and ended there.
    """
    with connection.cursor() as cursor:
        if creates_first:
            cursor.execute(
                "CREATE TABLE IF NOT EXISTS schema_migrations (version bigint PRIMARY KEY, dirty boolean NOT NULL)"
            )
        cursor.execute(
            "SELECT 1 FROM information_schema.tables"
            " WHERE table_schema = current_schema() AND table_name = 'schema_migrations'"
        )
        if cursor.fetchone() is None:
            cursor.execute(
                "CREATE TABLE schema_migrations (version bigint PRIMARY KEY, dirty boolean NOT NULL)"
            )
        cursor.execute("SELECT version, dirty FROM schema_migrations LIMIT 1")
        row = cursor.fetchone()
    return (int(row[0]), bool(row[1])) if row else (None, False)


def _apply(connection: Connection, step: Step) -> None:
    log.info("applying %s", step.path.name)
    with connection.cursor() as cursor:
        for dirty in (True, False):
            # One statement text is one transaction: a kill in between must not leave the table empty.
            cursor.execute(
                "TRUNCATE schema_migrations; INSERT INTO schema_migrations VALUES (%s, %s)",
                (step.version, dirty),
            )
            if dirty:
                cursor.execute(step.path.read_text())


def migrate(database: Database, known: Habits) -> int:
    """Apply what a version brings and what is missing; the number of steps. Raises MigrationFailed."""
    connection = database.dial()
    connection.autocommit = True
    try:
        _lock(connection)
        version, dirty = _recorded(connection, known.creates_first)
        todo = pending(steps(known.schema), version, dirty)
        for step in todo:
            _apply(connection, step)
        return len(todo)
    except psycopg2.Error as error:
        raise MigrationFailed(str(error)) from error
    finally:
        connection.close()
