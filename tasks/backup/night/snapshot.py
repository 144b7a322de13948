"""One instant of a database, held open: the dump, the row counts and the list of blobs all show the same."""

import contextlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from tasks.backup.format.blobs import NeededBlob, parse_needed
from tasks.backup.server import Server
from tasks.errors import HarborHaError
from tasks.hosts.connection import Host, RemoteProcess

# A recovery conflict on a standby cancels the oldest readers first; waiting for locks only makes us older.
# We are a superuser in a database of Harbor's, and whoever got into it as Harbor waits for one: with an operator that
# fits better than the system's, so nothing but pg_catalog is searched; with a view in the place of a table, so names
# are locked before it is looked what they stand for. That a transaction is read-only keeps nobody from COPY TO PROGRAM.
_BEGIN = r"""
SET statement_timeout = 0; SET lock_timeout = '60s'; SET idle_in_transaction_session_timeout = 0;
SET search_path = pg_catalog;
BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT format('LOCK TABLE %I.%I IN ACCESS SHARE MODE', n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND (c.relkind = 'r' OR n.nspname = 'public' AND c.relname IN ('blob', 'artifact_blob', 'artifact', 'project',
                                                               'schema_migrations'))
\gexec
"""

# What has no file of its own runs when it is read. Asked of what the name stands for now; a query of the catalog would
# tell of the instant of the snapshot.
_NO_TABLES = """
SELECT name FROM unnest(ARRAY['blob', 'artifact_blob', 'artifact', 'project', 'schema_migrations']) AS name
WHERE pg_relation_filenode(to_regclass('public.' || name)) IS NULL AND to_regclass('public.' || name) IS NOT NULL;
"""

_FACTS = """
SELECT json_build_object(
  'snapshot', pg_export_snapshot(),
  'owner', pg_get_userbyid(d.datdba),
  'encoding', pg_encoding_to_char(d.encoding),
  'collation', d.datcollate,
  'version_num', current_setting('server_version_num')::int,
  'system_identifier', (SELECT system_identifier::text FROM pg_control_system()),
  'timeline', (SELECT timeline_id FROM pg_control_checkpoint()),
  'standby', pg_is_in_recovery(),
  'lsn', CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)
FROM pg_database d WHERE d.datname = current_database();
"""

# A line end in a name would end the line of the answer. Unlogged and temporary tables are not replicated: a standby
# cannot read them, a dump of it has them empty. Tables of an extension are filled by it. Nothing but pg_catalog is
# searched: in a restored database these statements run as a superuser, and a function of the dump's with a better
# fitting type would be taken for the system's.
COUNTS = r"""
SET search_path = pg_catalog;
SELECT format('SELECT %L, count(*) FROM %I.%I', translate(n.nspname || '.' || c.relname, E'\t\n\r', '   '),
              n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                  AND d.deptype = 'e')
  AND c.oid = to_regclass(format('%I.%I', n.nspname, c.relname))
ORDER BY 1
\gexec
"""

_COLUMNS = """
SELECT table_name || '.' || column_name FROM information_schema.columns
WHERE table_schema = 'public' AND table_name IN ('blob', 'artifact', 'project', 'schema_migrations');
"""

_END = "harbor-ha: end of answer"


class NoTable(HarborHaError):
    """What should be a table of Harbor's is something that runs when it is read."""


class SnapshotLost(HarborHaError):
    """The session that held the snapshot ended before its answer did."""


@dataclass(frozen=True)
class SnapshotFacts:
    """What is known of the database at the snapshot.

    Attributes:
        lsn: replay position on a standby, write position on a primary.
        tables: exact rows of every permanent table, by `schema.table`.
        schema_version: Harbor's migration; None in a database without one.
    """

    snapshot: str
    database: str
    owner: str
    encoding: str
    collation: str
    version_num: int
    system_identifier: str
    timeline: int
    role: Literal["primary", "standby"]
    lsn: str
    tables: dict[str, int]
    schema_version: int | None
    schema_dirty: bool


class Snapshot:
    """An open transaction in a psql on the node. Not for more than one thread."""

    def __init__(self, process: RemoteProcess, database: str) -> None:
        self._process = process
        self._database = database
        self._ask(_BEGIN)
        self._require_tables()
        self._columns = frozenset(self._ask(_COLUMNS))
        self.facts = self._read_facts()

    def blobs(self) -> Iterator[NeededBlob]:
        """Every blob that the database knows or refers to, sorted by digest; empty outside Harbor's own."""
        if "blob.digest" in self._columns:
            for line in self._answer(blobs_query(self._columns)):
                yield parse_needed(line)

    def _require_tables(self) -> None:
        for name in self._ask(_NO_TABLES):
            raise NoTable(
                f"public.{name} in the database {self._database} is no table.",
                meaning="It is a view or the like: to read it is to run what somebody wrote, as a superuser.",
                remedy=f"Look who put it there (\\d+ public.{name} in psql), and make it a table again.",
            )

    def _read_facts(self) -> SnapshotFacts:
        raw = json.loads(self._ask(_FACTS)[0])
        version: list[str] = []
        if "schema_migrations.dirty" in self._columns:
            version = self._ask("SELECT version, dirty FROM public.schema_migrations LIMIT 1;")
        number, dirty = version[0].split("\t") if version else (None, "f")
        tables = dict(line.split("\t") for line in self._ask(COUNTS))
        return SnapshotFacts(
            snapshot=raw["snapshot"],
            database=self._database,
            owner=raw["owner"],
            encoding=raw["encoding"],
            collation=raw["collation"],
            version_num=raw["version_num"],
            system_identifier=raw["system_identifier"],
            timeline=raw["timeline"],
            role="standby" if raw["standby"] else "primary",
            lsn=raw["lsn"],
            tables={name: int(rows) for name, rows in tables.items()},
            schema_version=None if number is None else int(number),
            schema_dirty=dirty == "t",
        )

    def _ask(self, sql: str) -> list[str]:
        return list(self._answer(sql))

    def _answer(self, sql: str) -> Iterator[str]:
        """Send SQL and give its output line by line; the answer must be read to its end."""
        with contextlib.suppress(OSError):  # psql ended already; the end of its output leads to its reason
            self._process.stdin.write(f"{sql}\nSELECT '{_END}';\n".encode())
            self._process.stdin.flush()
        while line := self._process.stdout.readline():
            text = line.decode("utf-8", "replace").rstrip("\n")
            if text == _END:
                return
            yield text
        self._process.wait()  # raises what psql said
        raise SnapshotLost("psql ended in the middle of its answer.", remedy="Run the backup again.")


@contextmanager
def open_snapshot(host: Host, server: Server, database: str, *, timeout: float) -> Iterator[Snapshot]:
    """Hold a snapshot of a database open; it ends with the context, whatever happens.

    Args:
        host: the node; works on a primary and on a hot standby.
        server: its PostgreSQL.
        database: which database.
        timeout: seconds that the session may last, the dump included.

    Raises:
        RemoteCommandFailed: PostgreSQL refused, or cancelled the session because of a recovery conflict.
    """
    with host.stream(server.psql(database, "-f", "-"), user=server.user, timeout=timeout) as process:
        yield Snapshot(process, database)


def blobs_query(columns: frozenset[str]) -> str:
    """The list of blobs for the columns that this version of Harbor has (`table.column`)."""
    status = "b.status" if "blob.status" in columns else "NULL"
    pulled = "extract(epoch FROM a.pull_time)::bigint" if "artifact.pull_time" in columns else "0"
    proxied = "coalesce(p.registry_id, 0) <> 0" if "project.registry_id" in columns else "false"
    of_artifact = f"{proxied} AS proxied, {pulled} AS pulled"
    join = "LEFT JOIN public.project p ON p.project_id = a.project_id"
    return f"""
COPY (
  SELECT coalesce(b.digest, r.digest) AS digest, b.size, coalesce(b.content_type, ''), coalesce({status}, ''),
         coalesce(r.proxied, false)::int, (r.digest IS NOT NULL)::int, greatest(coalesce(r.pulled, 0), 0)
  FROM public.blob b FULL JOIN (
    SELECT digest, bool_and(proxied) AS proxied, max(pulled) AS pulled FROM (
      SELECT ab.digest_blob AS digest, {of_artifact}
      FROM public.artifact_blob ab LEFT JOIN public.artifact a ON a.digest = ab.digest_af {join}
      UNION ALL SELECT a.digest, {of_artifact} FROM public.artifact a {join}
    ) uses GROUP BY digest
  ) r ON r.digest = b.digest
  ORDER BY coalesce(b.digest, r.digest) COLLATE "C"
) TO STDOUT WITH (NULL '');
"""
