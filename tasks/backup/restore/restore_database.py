"""A dump back into PostgreSQL: beside what is there, compared with the manifest, then renamed into place."""

import posixpath
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from tasks.backup.format.manifest import Database, Manifest
from tasks.backup.night.snapshot import COUNTS
from tasks.backup.restore.fetch import Origin, deliver
from tasks.backup.restore.load import load
from tasks.backup.server import Server, query
from tasks.errors import HarborHaError, Refused
from tasks.hosts.connection import Host
from tasks.hosts.directories import make_directory
from tasks.postgres.layout import RESTORING

# Owned by postgres and readable for nobody else: the dump in it is decrypted.
WORK_DIRECTORY = "/var/lib/postgresql/harbor-ha-restore"
_NAMED_AT_MOST = 10


class RestoreDiffers(HarborHaError):
    """A restored database does not hold what the manifest says."""


@dataclass(frozen=True)
class RestoredDatabase:
    """A database that was restored and compared.

    Attributes:
        changed: False when an earlier run had restored it already.
        seconds: download and pg_restore, zero when nothing was done.
        left_out: what could not be restored, or is not on purpose, one sentence each.
    """

    name: str
    changed: bool
    tables: int
    rows: int
    seconds: float
    left_out: tuple[str, ...] = ()


def restore_database(
    host: Host,
    server: Server,
    origin: Origin,
    manifest: Manifest,
    database: str,
    *,
    owner: str,
    loader: Server | None = None,
    jobs: int = 2,
    work_directory: str = WORK_DIRECTORY,
    timeout: float,
) -> RestoredDatabase:
    """Restore one database of a backup and prove that every table has its rows.

    It is loaded under another name and renamed last, so that a database of this name is always a whole one,
    and a run that was killed is simply repeated.

    Args:
        host: the node; its server must be a primary.
        server: its PostgreSQL, of the dump's major version or newer.
        origin: the backup.
        manifest: its manifest.
        database: which database.
        owner: the role that owns everything in it; it must exist.
        loader: the server as the owner logs in to it, which nobody does with more rights; else by the socket alone.
        jobs: connections that load at a time.
        work_directory: for the decrypted dump; created for us alone, removed in the end.
        timeout: seconds for download and load, each.

    Raises:
        Refused: a database of this name exists, is not empty, and did not come from this backup.
        ArtifactDamaged, DecryptionFailed: before anything was loaded.
        DumpNotLoaded: a table, its rows, or a rule for them could not be made.
        RestoreDiffers: the row counts differ; the database was not put in place.
    """
    wanted = manifest.database(database)
    artifact = manifest.artifact("database", database)
    mark = f"restored by harbor-ha from {manifest.backup_id}"
    if _present(host, server, database) and not _may_replace(host, server, database, mark):
        return RestoredDatabase(database, False, len(wanted.tables), sum(wanted.tables.values()), 0.0)
    started = time.monotonic()
    with private_directory(host, server.user, work_directory) as directory:
        dump = posixpath.join(directory, "dump")
        save = ["sh", "-c", 'umask 077; exec cat > "$0"', dump]
        deliver(host, origin, artifact, save, user=server.user, timeout=timeout)
        _create(host, server, wanted, owner)
        loader = loader or replace(server, role=owner)
        loaded = load(host, server, loader, RESTORING, dump, jobs=jobs, timeout=timeout)
    # Its owner may have set something for whoever comes next, and that is us.
    query(host, server, "postgres", 'ALTER DATABASE :"v0" RESET ALL;', values=[RESTORING])
    # Harbor's first page after a restore without statistics is a sequential scan of everything. A function of
    # somebody's index that fails there is no reason to have no database: autovacuum comes to the same table.
    analyze = server.command("vacuumdb", "--analyze-only", "-q", "-j", str(jobs), "-d", RESTORING)
    host.run(analyze, user=server.user, timeout=timeout, check=False)
    compare_rows(host, server, wanted, RESTORING, loaded.tables)
    _put_in_place(host, server, database, mark)
    seconds = time.monotonic() - started
    counted = {table: rows for table, rows in wanted.tables.items() if table not in loaded.tables}
    return RestoredDatabase(database, True, len(counted), sum(counted.values()), seconds, loaded.left_out)


@contextmanager
def private_directory(host: Host, user: str, path: str) -> Iterator[str]:
    """A fresh directory on the node that only `user` can enter; removed in the end, whatever happened.

    What a killed run left under the same path is removed first.
    """
    host.run(["rm", "-rf", "--", path])
    make_directory(host, path, mode=0o700, owner=user)
    try:
        yield path
    finally:
        host.run(["rm", "-rf", "--", path], timeout=120)


def _present(host: Host, server: Server, database: str) -> bool:
    sql = "SELECT 1 FROM pg_database WHERE datname = :'v0';"
    return bool(query(host, server, "postgres", sql, values=[database]))


def _may_replace(host: Host, server: Server, database: str, mark: str) -> bool:
    """Whether the existing database is empty; False when it is ours already; Refused for anything else."""
    sql = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = :'v0';"
    if query(host, server, "postgres", sql, values=[database]) == [[mark]]:
        return False
    tables = [row[0] for row in query(host, server, database, COUNTS)]
    if tables:
        raise Refused(
            f"The database {database} on {host.name} is not empty.",
            [
                f"It has {len(tables)} tables ({', '.join(tables[:3])}…) and does not come from this backup. "
                f"Restore on another machine, or drop it yourself if it is not needed: dropdb {database}"
            ],
        )
    return True


def _create(host: Host, server: Server, wanted: Database, owner: str) -> None:
    """Make an empty database; where the encoding is not the cluster's, with the one locale that fits them all."""
    query(
        host,
        server,
        "postgres",
        """
        DROP DATABASE IF EXISTS :"v0" WITH (FORCE);
        CREATE DATABASE :"v0" OWNER :"v1" TEMPLATE template0 ENCODING :'v2' """
        + ("" if wanted.encoding == "UTF8" else "LC_COLLATE 'C' LC_CTYPE 'C'")
        + ";",
        values=[RESTORING, owner, wanted.encoding],
    )


def compare_rows(
    host: Host, server: Server, wanted: Database, name: str, left_out: Collection[str] = ()
) -> None:
    """Count the rows of every table and compare with the manifest, but for those left out; raises RestoreDiffers."""
    found = {row[0]: int(row[1]) for row in query(host, server, name, COUNTS, timeout=3600)}
    apart = {*left_out, *(row[0] for row in query(host, server, name, _OF_EXTENSIONS))}
    expected = {table: rows for table, rows in wanted.tables.items() if table not in apart}
    differences = row_differences(expected, found)
    if differences:
        more = len(differences) - _NAMED_AT_MOST
        named = "; ".join(differences[:_NAMED_AT_MOST]) + (f"; and {more} more" if more > 0 else "")
        raise RestoreDiffers(
            f"The restored database differs from its manifest: {named}.",
            where=f"{host.name}, database {name}",
            meaning="It was not put in place.",
            remedy="Use another backup, and keep this one for analysis.",
        )


# Backups of before counted them, too; an extension fills them by itself.
_OF_EXTENSIONS = r"""
SELECT translate(n.nspname || '.' || c.relname, E'\t\n\r', '   ') FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_class c ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = d.objid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE d.deptype = 'e' AND c.relkind = 'r';
"""


def row_differences(wanted: Mapping[str, int], found: Mapping[str, int]) -> list[str]:
    """Say, table by table, where two counts differ; empty when they are equal."""
    return [
        f"{table} has {found.get(table, 'no table')} rows, {wanted.get(table, 'none')} expected"
        for table in sorted({*wanted, *found})
        if wanted.get(table) != found.get(table)
    ]


def _put_in_place(host: Host, server: Server, database: str, mark: str) -> None:
    sql = """
    COMMENT ON DATABASE :"v1" IS :'v2';
    DROP DATABASE IF EXISTS :"v0";
    ALTER DATABASE :"v1" RENAME TO :"v0";
    """
    query(host, server, "postgres", sql, values=[database, RESTORING, mark])
