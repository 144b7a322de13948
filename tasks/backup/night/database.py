"""Databases into the bucket: dumps from one snapshot, and the roles."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tasks.backup.format.blobs import BlobFile, needed_line
from tasks.backup.format.contents import contents_of
from tasks.backup.format.layout import GLOBALS, dump_name
from tasks.backup.format.manifest import Artifact, Database, Source
from tasks.backup.format.restorable import World, foreign_owners, left_out, told
from tasks.backup.night.snapshot import SnapshotFacts, open_snapshot
from tasks.backup.night.stored import Destination, store_output
from tasks.backup.server import Server, query
from tasks.backup.tools import Command, NodeTools, dump_command, find_tools
from tasks.errors import RemoteCommandFailed
from tasks.hosts.connection import Host

# Harbor up to 2.8 with notary keeps two more databases, under these names.
NOTARY_DATABASES = ("notarysigner", "notaryserver")


@dataclass(frozen=True)
class DumpedDatabase:
    """A database that is in the bucket.

    Attributes:
        facts: of the snapshot that the dump, the counts and the list of blobs share.
        left_out: what a restore will not bring back.
    """

    facts: SnapshotFacts
    artifact: Artifact
    left_out: tuple[str, ...] = ()

    @property
    def entry(self) -> Database:
        """Its entry in the manifest."""
        facts = self.facts
        return Database(
            name=facts.database,
            owner=facts.owner,
            encoding=facts.encoding,
            collation=facts.collation,
            snapshot=facts.snapshot,
            tables=facts.tables,
            schema_version=facts.schema_version,
            schema_dirty=facts.schema_dirty,
            left_out=self.left_out,
        )


def databases_to_dump(host: Host, server: Server, registry: str) -> list[str]:
    """The databases of Harbor that exist on this server, its main one first.

    Args:
        registry: the name of Harbor's main database; listed even when it is missing, so that the dump fails
            loudly instead of a backup being made without it.
    """
    rows = query(host, server, "postgres", "SELECT datname FROM pg_database WHERE NOT datistemplate;")
    present = {row[0] for row in rows}
    return [registry, *(name for name in NOTARY_DATABASES if name in present and name != registry)]


def dump_database(
    host: Host,
    server: Server,
    database: str,
    to: Destination,
    *,
    blobs: BlobFile | None = None,
    timeout: float,
    seen: Callable[[int], None] = lambda size: None,
) -> DumpedDatabase:
    """Dump one database, and list the blobs that it needs, as of the same instant.

    Args:
        host: the node; a hot standby will do.
        server: its PostgreSQL.
        database: which database.
        to: the backup.
        blobs: where the list goes, sorted by digest; nowhere when empty.
        timeout: seconds for all of it.
        seen: called with the size of each block of the compressed dump.

    Raises:
        RemoteCommandFailed: PostgreSQL refused, or a standby cancelled us (`is_recovery_conflict`).
        StorageError: the bucket refused. In either case the bucket holds nothing of this dump.
    """
    tools = find_tools(host, server)
    with open_snapshot(host, server, database, timeout=timeout) as snapshot:
        facts = snapshot.facts
        if blobs is not None:
            blobs.write(needed_line(blob) for blob in snapshot.blobs())
        command = dump_command(server, database, facts.snapshot, facts.version_num, tools)
        produced = store_output(
            host,
            command,
            to,
            dump_name(database, ()),
            role="database",
            subject=database,
            user=server.user,
            timeout=timeout,
            seen=seen,
        )
        foretold = foretell(host, server, facts)
    return DumpedDatabase(facts, produced.artifact, foretold)


def foretell(host: Host, server: Server, facts: SnapshotFacts) -> tuple[str, ...]:
    """Say what a restore of the snapshot will leave out, by the restore's own rules; only definitions are read.

    Args:
        host: the node.
        server: its PostgreSQL.
        facts: of the snapshot, which is still open.
    """
    dump = server.command("pg_dump", "-Fc", "-s", f"--snapshot={facts.snapshot}", "-d", facts.database)
    printed = host.run(
        ["bash", "-c", _LIST, f"{server.programs}/pg_restore", *dump], user=server.user, timeout=600
    ).stdout
    listing, _, statements = printed.partition(f"\n{_MARK}\n")
    contents = contents_of(listing, statements)
    lines = told(contents, left_out(contents, World(facts.owner)))
    lines += [
        f"things of {owner}: they will belong to {facts.owner}"
        for owner in foreign_owners(contents, facts.owner)
    ]
    if facts.role == "standby":
        lines += [
            f"rows of {entry.name}: it is unlogged, and a standby does not have them"
            for entry in contents
            if entry.kind == "TABLE" and "CREATE UNLOGGED TABLE" in entry.statement
        ]
    return tuple(lines)


_MARK = "harbor-ha: end of listing"
# Definitions may hold the password of a user mapping: a file of our own, 0600, gone at the end.
_LIST = f"""
set -e; umask 077; file=$(mktemp); trap 'rm -f "$file"' EXIT
"$@" -f "$file"
"$0" -l -v "$file"; echo; echo '{_MARK}'; "$0" -f - -v -s -C "$file"
"""


def dump_globals(host: Host, server: Server, to: Destination, *, timeout: float = 120.0) -> Artifact:
    """Store roles and tablespaces, which no dump of a database holds; password hashes are among them."""
    command = Command(tuple(server.command("pg_dumpall", "--globals-only")), "none")
    produced = store_output(host, command, to, GLOBALS, role="globals", user=server.user, timeout=timeout)
    return produced.artifact


def source_of(node: str, dumped: Sequence[DumpedDatabase], tools: NodeTools, reason: str) -> Source:
    """Describe the node that the dumps came from, as of the main database's snapshot."""
    facts = dumped[0].facts
    return Source(
        node=node,
        role=facts.role,
        version_num=facts.version_num,
        pg_dump_version=tools.pg_dump,
        system_identifier=facts.system_identifier,
        timeline=facts.timeline,
        lsn=facts.lsn,
        reason=reason,
    )


def is_recovery_conflict(error: RemoteCommandFailed) -> bool:
    """Whether a standby cancelled the dump in favour of replay: the primary can still make it."""
    return "conflict with recovery" in error.stderr
