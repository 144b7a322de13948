"""Whoever got into Harbor's database as Harbor waits there for a superuser who reads it, and waits in vain."""

import getpass
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.backup.night.snapshot import NoTable, open_snapshot
from tasks.backup.server import Server, query
from tasks.harbor import proof
from tests.unit.local_host import local_host
from tests.unit.local_postgres import programs, running_postgres

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(programs() is None, reason="no PostgreSQL server is installed"),
    pytest.mark.skipif(getpass.getuser() != "root", reason="the server's user must be another one"),
]

HOST = local_host()
DIGEST = "sha256:" + "0" * 64
# A read-only transaction keeps nobody from running a program.
GRAB = """
SET ROLE harbor;
CREATE FUNCTION grab() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE 'COPY (SELECT 1) TO PROGRAM ''touch {trap}''';
  RETURN true;
EXCEPTION WHEN OTHERS THEN
  RETURN true;
END $$;
"""
# Harbor's columns are varchar: an operator of exactly that type is a better one than the system's.
OPERATOR = """
ALTER TABLE blob ALTER COLUMN digest TYPE varchar(255);
ALTER TABLE artifact ALTER COLUMN digest TYPE varchar(255);
ALTER TABLE artifact_blob ALTER COLUMN digest_af TYPE varchar(255), ALTER COLUMN digest_blob TYPE varchar(255);
CREATE FUNCTION same(varchar, varchar) RETURNS boolean LANGUAGE plpgsql AS
  $$ BEGIN RETURN public.grab() AND $1::text OPERATOR(pg_catalog.=) $2::text; END $$;
CREATE OPERATOR = (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = same, MERGES, HASHES);
"""
VIEW = """
ALTER TABLE {name} RENAME TO hidden;
CREATE VIEW {name} AS SELECT * FROM hidden WHERE public.grab();
"""


@pytest.fixture
def server() -> Iterator[Server]:
    with running_postgres() as running:
        query(
            HOST,
            running,
            "registry",
            f"INSERT INTO blob (digest, size) VALUES ('{DIGEST}', 7);"
            f"INSERT INTO artifact (project_id, digest) VALUES (1, '{DIGEST}');"
            f"INSERT INTO artifact_blob (digest_af, digest_blob) VALUES ('{DIGEST}', '{DIGEST}');",
        )
        yield running


def planted(server: Server, sql: str) -> Path:
    """Plant it, and return what appears where a superuser is caught."""
    trap = Path(server.sockets) / "caught"
    query(HOST, server, "registry", GRAB.format(trap=trap) + sql)
    # It catches whoever is careless.
    query(HOST, server, "registry", "SELECT grab();")
    assert trap.exists()
    trap.unlink()
    return trap


def test_an_operator_that_fits_better_is_not_run_by_the_backup(server: Server) -> None:
    trap = planted(server, OPERATOR)
    with open_snapshot(HOST, server, "registry", timeout=60) as snapshot:
        assert [(blob.digest, blob.size) for blob in snapshot.blobs()] == [(DIGEST, 7)]
    assert not trap.exists()


@pytest.mark.parametrize("name", ["blob", "artifact", "project", "artifact_blob", "schema_migrations"])
def test_a_view_in_the_place_of_a_table_ends_the_backup_unread(server: Server, name: str) -> None:
    trap = planted(server, VIEW.format(name=name))
    with (
        pytest.raises(NoTable, match=f"public.{name} "),
        open_snapshot(HOST, server, "registry", timeout=60) as snapshot,
    ):
        list(snapshot.blobs())
    assert not trap.exists()


@pytest.mark.parametrize(
    "sql", ["", OPERATOR, VIEW.format(name="artifact")], ids=["nothing", "operator", "view"]
)
def test_the_proof_of_replication_runs_nothing_of_the_database(server: Server, sql: str) -> None:
    trap = planted(server, sql)
    argv = server.psql("registry", "-v", f"digest={DIGEST}", "-f", "-")
    found = HOST.run(argv, stdin=proof._ROW, user=server.user).stdout.split()
    assert found == ([] if "VIEW" in sql else ["1"])
    assert not trap.exists()
