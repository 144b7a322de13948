"""Take the data of a Harbor over into the pair, out of its own database container or off a server elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from blocks import HarborSite
from tasks.errors import HarborHaError, HostUnreachable, Refused, RemoteConnectionLost, RemoteTimeout
from tasks.harbor import bundled, external_database
from tasks.harbor.adoption import allow_writes
from tasks.harbor.copied import (
    Counts,
    Sides,
    Standing,
    in_use,
    note_of,
    refuse_apart,
    rename_aside,
    standing_of,
    write_note,
)
from tasks.harbor.load import count_query, load, parsed
from tasks.harbor.on_node import adoption_steps
from tasks.harbor.versions import habits, parse_version
from tasks.hosts.connection import Host
from tasks.outcome import Outcome, changed, unchanged
from tasks.postgres.layout import layout_of
from tasks.postgres.sql import execute

RECORD = "/var/lib/harbor-ha/harbor_migrated.json"
# Where `adoption.begin` has written how an external database is reached.
KEPT_AT = adoption_steps.KEPT_AT
_LOAD_TIMEOUT_S = 3600.0
_REHEARSAL_S = 300.0
# A container that was stopped has closed its connections; the server sees that at once, or by a packet later.
_GONE_S = 15.0
_POLL_S = 0.5
_TABLES = (
    "SELECT quote_ident(schemaname) || '.' || quote_ident(relname) FROM pg_stat_user_tables"
    " WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1"
)
# The role of one Harbor; a session of it that is not ours is somebody who may write.
_SESSIONS = (
    "SELECT DISTINCT coalesce(host(client_addr), 'its own machine') FROM pg_stat_activity"
    " WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid() ORDER BY 1"
)
Query = Callable[[str], list[str]]


@dataclass(frozen=True)
class Original:
    """Databases that are copied, as the source node reaches them.

    Attributes:
        databases: their names there, with the names that they get in the pair.
        ask: gives the way to query one of them.
        dump: gives the argument list of pg_dump for one of them.
        called: what they are, in words.
    """

    databases: Mapping[str, str]
    ask: Callable[[str], Query]
    dump: Callable[[str], list[str]]
    called: str


class MigrationIncomplete(HarborHaError):
    """The copy differs from the original; it was rolled back and the original was not touched."""


def from_bundled(site: HarborSite, source: Host, target: Host, *, directory: str = "") -> Outcome:
    """Copy the databases out of `harbor-db` into the primary; before `prepare` names the pair.

    Harbor's other containers on the source are stopped first, so that nothing is written that the copy would not
    have, and should they come back they are read-only. Each database is loaded in one transaction that is committed
    only when the row counts of all tables are the same on both sides. A note that it was done is compared with what
    is there for as long as core names that database.

    Args:
        site: its database names and role.
        source: the node whose Harbor has the data.
        target: the pair's primary.
        directory: where the Harbor with the data lies, if not in the site's own.

    Raises:
        Refused: the target already has other tables, or both were written to after a copy, or the container with
            the data does not run.
        MigrationIncomplete: row counts differ; nothing was kept.
    """
    if not directory and _has_left(site, source):
        return unchanged("the bundled database was taken over before")
    if not bundled.runs(site, source, required=bool(directory)):
        return unchanged("there is no bundled database")
    there = bundled.ask(source, "postgres")(_DATABASES)
    original = Original(
        {name: _target_name(site, name) for name in _names(site) if name in there},
        lambda name: bundled.ask(source, name),
        bundled.dump,
        "the bundled database",
    )
    if directory:
        # `adopt` has made it read-only, and ends that in the pair itself.
        return _take_over(
            site, source, target, original, lambda: stop_writers(site, source, directory=directory)
        )

    def quiet() -> None:
        bundled.end_writes(source)
        stop_writers(site, source)

    try:
        return _take_over(site, source, target, original, quiet, lambda: allow_writes(site, target))
    except (RemoteTimeout, RemoteConnectionLost, HostUnreachable):
        # Nobody can tell whether the pair has it by now; the next run goes on.
        raise
    except HarborHaError:
        _let_write(site, source, target)
        raise


def _has_left(site: HarborSite, source: Host) -> bool:
    # The note alone says nothing of what was pushed after it.
    return source.read(RECORD) is not None and not (
        bundled.exists(source) and bundled.core_uses_it(site, source)
    )


def _let_write(site: HarborSite, source: Host, target: Host) -> None:
    """Let the old Harbor take pushes after a failure, if the pair has certainly none of its rows."""
    with contextlib.suppress(HarborHaError):
        if not has_tables(site, target):
            bundled.allow_writes(source)


def from_external(site: HarborSite, source: Host, target: Host, *, directory: str) -> Outcome:
    """Copy the database off the server that the old Harbor uses into the primary; the server is only read.

    As `from_bundled`; besides, nobody else may be logged in as Harbor's role once Harbor has stopped.

    Args:
        site: its database name and role.
        source: the node of the old Harbor, from which the server is reached.
        target: the pair's primary.
        directory: where the old Harbor lies.

    Raises:
        Refused: the target already has other tables, or somebody else may write to the original.
        MigrationIncomplete: row counts differ; nothing was kept.
    """
    (name,) = _ask_external(site, source)("SELECT current_database()")
    external = Original(
        {name: site.postgres.database},
        lambda _: _ask_external(site, source),
        lambda _: external_database.dump(layout_of(site), KEPT_AT),
        "the external database",
    )

    def quiet() -> None:
        stop_writers(site, source, directory=directory)
        _await_alone(_ask_external(site, source), source.name)

    return _take_over(site, source, target, external, quiet)


def rehearse_external(site: HarborSite, source: Host) -> Outcome:
    """Dump the external database's schema to nowhere, while it serves: what would fail then fails now.

    Raises:
        RemoteCommandFailed: pg_dump's own message.
    """
    dump = external_database.dump(layout_of(site), KEPT_AT, "--schema-only", "-f", "/dev/null")
    source.run(dump, timeout=_REHEARSAL_S)
    return unchanged("pg_dump reads every table's definition, and may lock every table")


def _take_over(
    site: HarborSite,
    source: Host,
    target: Host,
    original: Original,
    quiet: Callable[[], object],
    opened: Callable[[], object] = lambda: None,
) -> Outcome:
    """Copy what the pair does not have; `quiet` ends the writes to the original, `opened` allows those to the pair."""
    noted = note_of(source, RECORD)
    rows, todo = _compared(site, source, target, original, noted, original.databases)
    quiet()
    if len(todo) < len(original.databases):
        # Once more, now that nothing is written to them: they may have been since they were copied.
        late = [name for name in original.databases if name not in todo]
        try:
            more, again = _compared(site, source, target, original, noted, late)
        except Refused as refused:
            raise _too_late(source, refused) from None
        rows, todo = rows | more, todo | again
    told = []
    for name, standing in todo.items():
        rows[name] = _copy(site, source, target, original, name, anew=standing is Standing.OUTDATED)
        told.append(f"{name}: {sum(rows[name].values())} rows")
    # Unequal also after a run that was killed between its copy and its note.
    if noted != rows:
        opened()
        write_note(source, RECORD, target.name, rows)
    if not todo:
        return unchanged(f"the pair has the rows of {original.called} already")
    anew = any(standing is Standing.OUTDATED for standing in todo.values())
    aside = "; it was written to after the copy before, which was renamed" if anew else ""
    return changed(f"copied and compared {', '.join(told)}{aside}")


def _compared(
    site: HarborSite,
    source: Host,
    target: Host,
    original: Original,
    noted: Mapping[str, Counts] | None,
    names: Iterable[str],
) -> tuple[dict[str, Counts], dict[str, Standing]]:
    """Count the rows of databases, and tell which of them are to be copied.

    Raises:
        Refused: the pair has something else; it is never loaded into.
    """
    rows: dict[str, Counts] = {}
    todo: dict[str, Standing] = {}
    for name in names:
        rows[name], copy = _counts(original.ask(name)), original.databases[name]
        sides = Sides(rows[name], _present(site, target, copy), (noted or {}).get(name))
        sides = replace(sides, in_use=bool(sides.present) and in_use(site, target, copy))
        standing = standing_of(sides)
        if standing is Standing.APART:
            raise refuse_apart(sides, copy, source.name, original.called)
        if standing is not Standing.WHOLE:
            todo[name] = standing
    return rows, todo


def _too_late(source: Host, refused: Refused) -> HarborHaError:
    return HarborHaError(
        f"The database of the Harbor on {source.name} was written to in its last moment: {'; '.join(refused.reasons)}",
        where=source.name,
        meaning="That Harbor was stopped already, and is read-only if it is started; nothing was lost.",
    )


def _present(site: HarborSite, target: Host, name: str) -> Counts:
    there = name in _ask_pair(site, target, "postgres")(_DATABASES)
    return _counts(_ask_pair(site, target, name)) if there else {}


def _await_alone(ask: Query, where: str) -> None:
    deadline = time.monotonic() + _GONE_S
    while others := ask(_SESSIONS):
        if time.monotonic() > deadline:
            raise Refused(
                f"{where}'s Harbor is stopped, and its role is still logged in to its external database.",
                [
                    f"from {', '.join(others)} -> stop what writes there, such as another Harbor, and run `adopt` again"
                ],
            )
        time.sleep(_POLL_S)


def stop_writers(site: HarborSite, source: Host, *, directory: str = "") -> Outcome:
    """Stop all containers of a Harbor except its database, its log and its Redis.

    Args:
        site: its directory, where no other is given.
        source: the node.
        directory: where that Harbor lies, if not in the site's own.
    """
    home = (directory or site.harbor.install_dir).rstrip("/")
    label = f"label=com.docker.compose.project.working_dir={home}"
    writers = _writers(source, label)
    if not writers:
        return unchanged("nothing writes")
    source.run(["docker", "stop", "-t", "5", *writers], timeout=120)
    return changed(f"stopped {', '.join(writers)}")


def _writers(source: Host, label: str) -> list[str]:
    names = source.run(["docker", "ps", "--filter", label, "--format", "{{.Names}}"]).stdout.split()
    return [name for name in names if name not in (bundled.CONTAINER, "harbor-log", "redis")]


def has_tables(site: HarborSite, target: Host) -> bool:
    """Whether the pair's database of Harbor is there and holds tables."""
    name = site.postgres.database
    return name in _ask_pair(site, target, "postgres")(_DATABASES) and bool(
        _ask_pair(site, target, name)(_TABLES)
    )


def require_empty(site: HarborSite, target: Host) -> Outcome:
    """See that the pair has no table of Harbor's yet, before the Harbor that is taken over is touched.

    Raises:
        Refused: it has some, which are never loaded into.
    """
    for name in (_target_name(site, database) for database in _names(site)):
        there = name in _ask_pair(site, target, "postgres")(_DATABASES)
        if there and (tables := _ask_pair(site, target, name)(_TABLES)):
            raise Refused(
                f"The pair's database {name} already has tables of its own.",
                [
                    f"{len(tables)} tables, such as {tables[0]} -> nothing is loaded into them; rename it if it may go"
                ],
            )
    return unchanged("the pair is empty")


_DATABASES = "SELECT datname FROM pg_database WHERE NOT datistemplate"


def _names(site: HarborSite) -> list[str]:
    notary = habits(parse_version(site.harbor.version)).notary
    return ["registry", *(["notaryserver", "notarysigner"] if notary else [])]


def _target_name(site: HarborSite, database: str) -> str:
    return site.postgres.database if database == "registry" else database


def _ask_external(site: HarborSite, source: Host) -> Query:
    return lambda query: external_database.ask(source, layout_of(site), KEPT_AT, query)


def _ask_pair(site: HarborSite, target: Host, database: str) -> Query:
    def ask(query: str) -> list[str]:
        return ["\t".join(row) for row in execute(site, target, query, database=database, timeout=300)]

    return ask


def _counts(ask: Query) -> dict[str, int]:
    tables = ask(_TABLES)
    return parsed(ask(count_query(tables))) if tables else {}


def _copy(
    site: HarborSite, source: Host, target: Host, original: Original, database: str, *, anew: bool
) -> Counts:
    name = original.databases[database]
    if anew:
        rename_aside(site, target, name)
    if name not in _ask_pair(site, target, "postgres")(_DATABASES):
        owner = site.postgres.application.user
        execute(site, target, 'CREATE DATABASE :"name" OWNER :"owner";', name=name, owner=owner)
    # Once more: since the first count it may have been written to.
    counts = _counts(original.ask(database))
    loading = ["psql", "-XAtq", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-p", str(site.postgres.port)]
    loading += ["-d", name, "-f", "-"]
    with (
        source.stream(original.dump(database), timeout=_LOAD_TIMEOUT_S) as reading,
        target.stream(loading, user="postgres", timeout=_LOAD_TIMEOUT_S) as writing,
    ):
        try:
            differences = load(site, reading, writing, counts)
        except OSError:
            # psql ended while it was written to; its own message is in its exit status.
            writing.wait()
            raise
        writing.close_stdin()
        writing.stdout.read()
        writing.wait()
    if differences:
        raise MigrationIncomplete(
            f"The copy of {database} differs: {'; '.join(differences)}.",
            where=source.name,
            meaning=f"It was rolled back; {original.called} was not touched and its Harbor can be started.",
            remedy=f"Make sure that nothing else writes to {original.called}, then run this again.",
        )
    return counts
