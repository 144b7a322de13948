"""A dump that lies on a node into an empty database: what can be restored there, without the rights of a superuser."""

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.backup.format.contents import Entry, contents_of
from tasks.backup.format.restorable import (
    OPTIONAL,
    World,
    extension_of,
    left_out,
    tables_left_out,
    told,
)
from tasks.backup.server import Server, query
from tasks.errors import HarborHaError, RemoteCommandFailed
from tasks.hosts.connection import Host

_NAMED_AT_MOST = 10
_FAILED = re.compile(r"^pg_restore: from TOC entry (\d+); ", re.MULTILINE)
_ERROR = re.compile(r"ERROR:  (.*)")
# Of the database's words only those are passed on that cannot quote a row, a statement or a password.
_HARMLESS = re.compile(
    r"does not exist|permission denied|already exists|must be (?:superuser|owner|member)|is not available|violates "
    r"|unrecognized parameter"
)

_LOOK = "Look at the named parts in the source database; an earlier backup may not have them."
# The 15.20 of November 2026 marks each column with an option that 15.18 does not know, and its dumps say so.
_NEWER = (
    "The server that wrote this is newer than this one. Upgrade PostgreSQL here to the newest minor version that the "
    "package sources have (apt-get update, apt-get install postgresql-VERSION), and run this again."
)

_EXTENSION = 'CREATE EXTENSION IF NOT EXISTS :"v0" WITH SCHEMA :"v1";'


class DumpNotLoaded(HarborHaError):
    """A dump holds something that a restore must not lose and that could not be made."""


@dataclass(frozen=True)
class Loaded:
    """What became of a dump.

    Attributes:
        left_out: what was not restored, one sentence each.
        tables: `schema.table` of the tables among them.
    """

    left_out: tuple[str, ...]
    tables: frozenset[str]


def load(
    host: Host,
    server: Server,
    loader: Server,
    database: str,
    dump: str,
    *,
    jobs: int,
    timeout: float,
) -> Loaded:
    """Load a dump into an empty database.

    Args:
        host: the node.
        server: its PostgreSQL, as its superuser reaches it.
        loader: the same as the role that owns the database logs in; it gets everything in the dump. Not the
            superuser in that role: what a dump says can take the role off again.
        database: empty.
        dump: path of the archive on the node.
        jobs: connections at a time.
        timeout: seconds.

    Raises:
        DumpNotLoaded: a table, its rows, or a rule for them could not be made.
        RemoteCommandFailed: pg_restore itself failed.
    """
    base = ["--no-owner", "--no-tablespaces", "-d", database]
    contents = read_contents(host, server, dump)
    schemas = [entry for entry in contents if entry.kind == "SCHEMA"]
    failed = _restore(host, loader, dump, schemas, [*base, dump], timeout)
    world = World(loader.role, _make_extensions(host, server, database, contents))
    reasons = left_out(contents, world)
    done = {entry.number for entry in schemas}
    rest = [e for e in contents if e.number not in reasons | dict.fromkeys(done) and e.kind != "EXTENSION"]
    failed |= _restore(host, loader, dump, rest, [*base, "-j", str(jobs), dump], timeout)
    _require_optional(host, contents, failed, database)
    reasons |= {number: f"it could not be made: {why}" for number, why in failed.items()}
    return Loaded(tuple(told(contents, reasons)), frozenset(tables_left_out(contents, reasons)))


def read_contents(host: Host, server: Server, dump: str) -> list[Entry]:
    """Read the table of contents of an archive that lies on a node."""
    program = f"{server.programs}/pg_restore"
    listing = host.run([program, "-l", "-v", dump], user=server.user, timeout=120).stdout
    text = host.run([program, "-f", "-", "-v", "-s", "-C", dump], user=server.user, timeout=120).stdout
    return contents_of(listing, text)


def _make_extensions(host: Host, server: Server, database: str, contents: Sequence[Entry]) -> frozenset[str]:
    """Make the extensions that this server has, as its superuser, and return them.

    Only name and schema are the dump's, and both are bound: its own statement is never run with these rights.
    """
    made = {"plpgsql"}
    for entry in contents:
        extension = extension_of(entry) if entry.kind == "EXTENSION" else None
        if extension is None:
            continue
        try:
            query(host, server, database, _EXTENSION, values=extension)
        except RemoteCommandFailed:
            continue
        made.add(extension[0])
    return frozenset(made)


# A fifth of the time. Indexes are built in memory and not on disk; a commit that a crash loses is one of a database
# that has not got its name yet, and the rename, which waits for its own, comes after all of them.
_OPTIONS = "-c maintenance_work_mem=256MB -c synchronous_commit=off"


def _restore(
    host: Host, server: Server, dump: str, entries: Sequence[Entry], arguments: Sequence[str], timeout: float
) -> dict[int, str]:
    """Restore some entries; returns those that could not be made, with what the database said where it may be told."""
    if not entries:
        return {}
    chosen = posixpath.join(posixpath.dirname(dump), "contents")
    lines = "".join(f"{entry.number}; {entry.kind}\n" for entry in entries)
    host.run(["sh", "-c", 'umask 077; exec cat > "$0"', chosen], stdin=lines, user=server.user)
    # Only when it is verbose does it say which entry an error is of.
    program = [
        "env",
        "LC_ALL=C",
        f"PGOPTIONS={_OPTIONS}",
        *server.command("pg_restore", "-v", "-L", chosen, *arguments),
    ]
    done = host.run(program, user=server.user, timeout=timeout, check=False)
    failed = failures_of(done.stderr)
    if done.exit_status != 0 and not failed:
        # Its words may quote rows and statements.
        last = next((line for line in reversed(done.stderr.splitlines()) if _HARMLESS.search(line)), "")
        raise RemoteCommandFailed("pg_restore", host.name, done.exit_status, last[:200])
    return failed


def failures_of(stderr: str) -> dict[int, str]:
    """Which entries pg_restore complained of, and what may be told of each complaint."""
    marks = list(_FAILED.finditer(stderr))
    found: dict[int, str] = {}
    ends = [*(mark.start() for mark in marks[1:]), len(stderr)]
    for mark, end in zip(marks, ends[: len(marks)], strict=True):
        part = stderr[mark.end() : end]
        error = _ERROR.search(part)
        message = error[1][:200] if error and _HARMLESS.search(error[1]) else "PostgreSQL refused"
        found.setdefault(int(mark[1]), message)
    return found


def _require_optional(host: Host, contents: Sequence[Entry], failed: dict[int, str], database: str) -> None:
    fatal = [entry for entry in contents if entry.number in failed and entry.kind not in OPTIONAL]
    if not fatal:
        return
    named = "; ".join(f"{entry.says}: {failed[entry.number]}" for entry in fatal[:_NAMED_AT_MOST])
    more = len(fatal) - _NAMED_AT_MOST
    newer = any("unrecognized parameter" in failed[entry.number] for entry in fatal)
    raise DumpNotLoaded(
        f"{len(fatal)} parts of the dump could not be restored: {named}{f'; and {more} more' if more > 0 else ''}.",
        where=f"{host.name}, database {database}",
        meaning="The database was not put in place.",
        remedy=_NEWER if newer else _LOOK,
    )
