"""Take the data of a Harbor over into the pair, out of its own database container or off a server elsewhere."""

import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from blocks import HarborSite
from tasks.errors import HarborHaError, Refused
from tasks.harbor import external_database
from tasks.harbor.on_node import adoption_steps
from tasks.harbor.versions import habits, parse_version
from tasks.hosts.connection import Host, RemoteProcess
from tasks.outcome import Outcome, changed, unchanged
from tasks.postgres.layout import layout_of
from tasks.postgres.sql import execute

CONTAINER = "harbor-db"
RECORD = "/var/lib/harbor-ha/harbor_migrated.json"
# Where `adoption.begin` has written how an external database is reached.
KEPT_AT = adoption_steps.KEPT_AT
_LOAD_TIMEOUT_S = 3600.0
_REHEARSAL_S = 300.0
# A container that was stopped has closed its connections; the server sees that at once, or by a packet later.
_GONE_S = 15.0
_POLL_S = 0.5
_END = "harbor-ha-end-of-counts"
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

    Harbor's other containers on the source are stopped first, so that nothing is written that the copy would
    not have. Each database is loaded in one transaction that is committed only when the row counts of all
    tables are the same on both sides.

    Args:
        site: its database names and role.
        source: the node whose Harbor has the data.
        target: the pair's primary.
        directory: where the Harbor with the data lies, if not in the site's own.

    Raises:
        Refused: the target already has other tables, or the container with the data does not run.
        MigrationIncomplete: row counts differ; nothing was kept.
    """
    if source.read(RECORD) is not None:
        return unchanged("the bundled database was taken over before")
    if not _container_runs(site, source, required=bool(directory)):
        return unchanged("there is no bundled database")
    there = _ask_container(source, "postgres")(_DATABASES)
    bundled = Original(
        {name: _target_name(site, name) for name in _names(site) if name in there},
        lambda name: _ask_container(source, name),
        _dump_of_container,
        "the bundled database",
    )
    return _take_over(site, source, target, bundled, lambda: stop_writers(site, source, directory=directory))


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
    if source.read(RECORD) is not None:
        return unchanged("the external database was taken over before")
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
    site: HarborSite, source: Host, target: Host, original: Original, quiet: Callable[[], object]
) -> Outcome:
    counted = {name: _counts(original.ask(name)) for name in original.databases}
    todo = [
        name for name, copy in original.databases.items() if not _is_copy(site, target, copy, counted[name])
    ]
    if todo:
        quiet()
    rows = {name: _copy(site, source, target, original, name) for name in todo}
    source.put(RECORD, f'{{"target": "{target.name}"}}\n', mode=0o600)
    if not todo:
        return unchanged(f"the pair has the rows of {original.called} already")
    told = ", ".join(f"{name}: {sum(counts.values())} rows" for name, counts in rows.items())
    return changed(f"copied and compared {told}")


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
    return [name for name in names if name not in (CONTAINER, "harbor-log", "redis")]


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


def differing(original: Mapping[str, int], copy: Mapping[str, int]) -> list[str]:
    """List the tables whose row counts differ, each with both counts; None stands for no such table."""
    names = sorted(set(original) | set(copy))
    return [
        f"{name}: {original.get(name)} rows here, {copy.get(name)} in the pair"
        for name in names
        if original.get(name) != copy.get(name)
    ]


def count_query(tables: list[str]) -> str:
    """Make one query that counts the rows of tables; they are quoted already by the server."""
    parts = [f"SELECT '{table.replace(chr(39), chr(39) * 2)}', count(*) FROM {table}" for table in tables]
    return " UNION ALL ".join(parts) or "SELECT NULL, 0 WHERE false"


def _names(site: HarborSite) -> list[str]:
    notary = habits(parse_version(site.harbor.version)).notary
    return ["registry", *(["notaryserver", "notarysigner"] if notary else [])]


def _target_name(site: HarborSite, database: str) -> str:
    return site.postgres.database if database == "registry" else database


def _container_runs(site: HarborSite, source: Host, *, required: bool) -> bool:
    state = source.run(["docker", "inspect", "--format", "{{.State.Running}}", CONTAINER], check=False)
    if state.exit_status == 0 and state.stdout.strip() == "true":
        return True
    if required:
        raise Refused(
            f"{source.name} has a bundled database, but {CONTAINER} does not run.",
            [f"Start it (`docker start {CONTAINER}`) to have its data taken over."],
        )
    directory = f"{site.harbor.data_volume.rstrip('/')}/database"
    found = source.run(["find", directory, "-maxdepth", "2", "-name", "PG_VERSION"], check=False)
    if found.stdout.strip():
        raise Refused(
            f"{source.name} has a bundled database in {directory}, but {CONTAINER} does not run.",
            [
                f"Start it (`docker start {CONTAINER}`) to have its data taken over, or move {directory} away if"
                " the data is not wanted."
            ],
        )
    return False


def _ask_container(source: Host, database: str) -> Query:
    argv = ["docker", "exec", "-i", CONTAINER, "psql", "-U", "postgres", "-XAtq", "-F", "\t", "-d", database]

    def ask(query: str) -> list[str]:
        return source.run(argv, stdin=query, timeout=300).stdout.splitlines()

    return ask


def _dump_of_container(database: str) -> list[str]:
    dump = ["docker", "exec", CONTAINER, "pg_dump", "-U", "postgres", "--no-owner", "--no-privileges"]
    return [*dump, "-d", database]


def _ask_external(site: HarborSite, source: Host) -> Query:
    return lambda query: external_database.ask(source, layout_of(site), KEPT_AT, query)


def _ask_pair(site: HarborSite, target: Host, database: str) -> Query:
    def ask(query: str) -> list[str]:
        return ["\t".join(row) for row in execute(site, target, query, database=database, timeout=300)]

    return ask


def _counts(ask: Query) -> dict[str, int]:
    tables = ask(_TABLES)
    return _parsed(ask(count_query(tables))) if tables else {}


def _parsed(lines: list[str]) -> dict[str, int]:
    return {name: int(count) for name, count in (line.rsplit("\t", 1) for line in lines if "\t" in line)}


def _is_copy(site: HarborSite, target: Host, name: str, original: Mapping[str, int]) -> bool:
    if name not in _ask_pair(site, target, "postgres")(_DATABASES):
        owner = site.postgres.application.user
        execute(site, target, 'CREATE DATABASE :"name" OWNER :"owner";', name=name, owner=owner)
        return False
    present = _counts(_ask_pair(site, target, name))
    if not present:
        return False
    # A run that was killed after its commit: what it copied is whole, or it would not be there.
    differences = differing(original, present)
    if differences:
        raise Refused(f"The pair's database {name} already has tables of its own.", differences)
    return True


def _copy(site: HarborSite, source: Host, target: Host, original: Original, database: str) -> dict[str, int]:
    # Once more: since the first count it may have been written to.
    counts = _counts(original.ask(database))
    load = ["psql", "-XAtq", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-p", str(site.postgres.port)]
    load += ["-d", original.databases[database], "-f", "-"]
    with (
        source.stream(original.dump(database), timeout=_LOAD_TIMEOUT_S) as reading,
        target.stream(load, user="postgres", timeout=_LOAD_TIMEOUT_S) as writing,
    ):
        try:
            differences = _load(site, reading, writing, counts)
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


def _load(
    site: HarborSite, reading: RemoteProcess, writing: RemoteProcess, original: Mapping[str, int]
) -> list[str]:
    _say(writing, f'BEGIN;\nSET ROLE "{_identifier(site.postgres.application.user)}";\n')
    shutil.copyfileobj(reading.stdout, writing.stdin, 1 << 20)
    reading.wait()
    # Asked in the transaction that did the load, so that a difference can still be rolled back.
    _say(writing, f"\n\\echo {_END}\n{count_query(sorted(original))};\n\\echo {_END}\n")
    differences = differing(original, _between_marks(writing, original))
    _say(writing, "ROLLBACK;\n" if differences else "COMMIT;\n")
    return differences


def _between_marks(writing: RemoteProcess, original: Mapping[str, int]) -> dict[str, int]:
    lines, marks = [], 0
    while marks < 2:
        raw = writing.stdout.readline()
        line = raw.decode("utf-8", "replace").rstrip("\n")
        if not raw:
            # psql has ended: an error of the load. Its message comes with its exit status.
            writing.close_stdin()
            writing.wait()
            return dict.fromkeys(original, -1)
        marks += line == _END
        if marks == 1 and line != _END:
            lines.append(line)
    return _parsed(lines)


def _say(writing: RemoteProcess, text: str) -> None:
    writing.stdin.write(text.encode())
    writing.stdin.flush()


def _identifier(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name):
        raise Refused("The role's name cannot be used.", [f"postgres.application.user is {name!r}."])
    return name
