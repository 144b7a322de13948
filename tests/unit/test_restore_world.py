"""What a dump holds beyond Harbor's own: it is restored where it can be, and left out by name where it cannot."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.backup.drill.rehearsal import run_drill
from tasks.backup.restore.load import load
from tasks.backup.restore.restore_database import restore_database
from tasks.backup.restore.roles import make_roles
from tasks.backup.server import Server, query
from tasks.storage.store import ObjectStore
from tests.unit.local_oss import running_oss
from tests.unit.local_postgres import SCHEMA, programs, running_postgres
from tests.unit.local_store import local_store
from tests.unit.odd_worlds import ODDITIES, World, odd_world
from tests.unit.test_backup_round_trip import HOST, back_up, origin

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(programs() is None, reason="no PostgreSQL server is installed"),
]

MONITORING = """
CREATE ROLE monitoring LOGIN PASSWORD 'secret-of-monitoring';
GRANT SELECT ON artifact TO monitoring;
"""


@pytest.fixture
def server() -> Iterator[Server]:
    with running_postgres() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ObjectStore]:
    with running_oss(tmp_path / "oss") as running:
        yield local_store(running)


def findings(store: ObjectStore, server: Server) -> list[str]:
    """Of a drill of a backup that is made now; it has no configuration archive, which is no matter here."""
    result = run_drill(
        HOST, server.programs, origin(store, back_up(store, server)), f"{server.sockets}/drill"
    )
    return [text for text in result.findings if not text.startswith("configuration")]


@pytest.mark.parametrize(
    "extra",
    [
        MONITORING,
        "CREATE EXTENSION pg_stat_statements; CREATE VIEW slow AS SELECT query FROM pg_stat_statements;",
        "CREATE EXTENSION postgres_fdw; CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw;"
        "CREATE USER MAPPING FOR harbor SERVER other OPTIONS (password 'secret-of-a-mapping');",
        "CREATE FUNCTION seen() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
        "CREATE EVENT TRIGGER seen ON ddl_command_start EXECUTE FUNCTION seen();",
        "CREATE ROLE other; ALTER DEFAULT PRIVILEGES FOR ROLE other GRANT SELECT ON TABLES TO harbor;",
        "CREATE PUBLICATION all_tables FOR ALL TABLES;",
    ],
    ids=["role", "extension", "foreign server", "event trigger", "default privileges", "publication"],
)
def test_what_is_not_harbors_own_keeps_no_backup_from_being_restored(
    store: ObjectStore, server: Server, extra: str
) -> None:
    query(HOST, server, "registry", extra)
    assert findings(store, server) == []


@pytest.fixture(scope="module")
def source() -> Iterator[Server]:
    with running_postgres("CREATE ROLE harbor LOGIN PASSWORD 'secret-of-a-role';") as running:
        yield running


@pytest.fixture(scope="module")
def target() -> Iterator[Server]:
    """Where restores go: a plain server with nothing but Harbor's role."""
    with running_postgres("CREATE ROLE harbor LOGIN;") as running:
        yield running


def make(server: Server, world: World) -> None:
    """Make the database `registry` of a world anew; roles of earlier worlds are dropped where they can be."""
    query(HOST, server, "postgres", SUBSCRIPTIONS)
    query(HOST, server, "postgres", CLEAN)
    locale = "" if world.encoding == "UTF8" else "LC_COLLATE 'C' LC_CTYPE 'C'"
    create = f"CREATE DATABASE registry OWNER harbor TEMPLATE template0 ENCODING '{world.encoding}' {locale};"
    query(HOST, server, "postgres", create)
    tables = SCHEMA.partition("\\c registry\n")[2]
    query(HOST, server, "registry", tables)
    for _, sql in world.statements:
        query(HOST, server, "registry", f"{sql}\n")


SUBSCRIPTIONS = r"""
SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = 'registry') AS there
\gset
\if :there
\c registry
SELECT format('DROP SUBSCRIPTION %I', subname) FROM pg_subscription
\gexec
\endif
"""
CLEAN = r"""
DROP DATABASE IF EXISTS registry WITH (FORCE);
SELECT format('DROP ROLE %I', rolname) FROM pg_roles WHERE rolname !~ '^pg_' AND rolname NOT IN ('harbor', current_user)
\gexec
"""


def restored_as_foretold(seed: int, directory: Path, source: Server, target: Server) -> None:
    """Make a world, back it up, and restore it as a drill and a disaster restore do: as Harbor's own role."""
    make(source, odd_world(seed))
    with running_oss(directory / "oss") as oss:
        store = local_store(oss)
        manifest = back_up(store, source)
        (database,) = manifest.databases
        query(HOST, target, "postgres", CLEAN)
        assert make_roles(HOST, target, origin(store, manifest), manifest) == []
        restored = restore_database(
            HOST,
            target,
            origin(store, manifest),
            manifest,
            "registry",
            owner="harbor",
            work_directory=f"{target.sockets}/restore",
            timeout=120,
        )
        assert set(restored.left_out) <= set(database.left_out), odd_world(seed)
        assert not [line for line in restored.left_out if "could not be made" in line]
        assert owners(target) == {"harbor"}
        assert log_of(target).count("secret-of-") == 0


def owners(server: Server) -> set[str]:
    """Who owns the tables of the restored database; what an extension brings is its superuser's."""
    sql = """
    SELECT DISTINCT pg_get_userbyid(c.relowner) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e');
    """
    return {row[0] for row in query(HOST, server, "registry", sql)}


def log_of(server: Server) -> str:
    return (Path(server.sockets) / "log").read_text(errors="replace")


@pytest.mark.parametrize("seed", range(20))
def test_an_odd_world_is_restored_and_the_night_has_said_what_is_left_out(
    seed: int, tmp_path: Path, source: Server, target: Server
) -> None:
    restored_as_foretold(seed, tmp_path, source, target)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(20, 220))
def test_two_hundred_odd_worlds_are_restored_as_foretold(
    seed: int, tmp_path: Path, source: Server, target: Server
) -> None:
    restored_as_foretold(seed, tmp_path, source, target)


def test_twenty_worlds_have_every_oddity() -> None:
    seen = {name for seed in range(20) for name in odd_world(seed).oddities}
    assert seen == set(ODDITIES)


def test_what_the_night_foretells_names_each_thing_and_no_password(
    source: Server, store: ObjectStore
) -> None:
    wanted = (
        "foreign server",
        "event trigger",
        "function in C",
        "rights of rights",
        "other owner",
        "publication",
    )
    make(source, World("UTF8", wanted))
    (database,) = back_up(store, source).databases
    told = "\n".join(database.left_out)
    for name in (
        "server f1",
        "view public.fv1",
        "event trigger et2",
        "view public.cv3",
        "TABLE tag",
        "o5",
        "pub6",
    ):
        assert name in told
    assert "secret-of-" not in told


PADDING = "x" * 300


def forged_dump(server: Server, directory: str, mark: Path) -> str:
    """An archive in which a view's statement was exchanged, byte for byte, for one that takes the role off."""
    query(HOST, server, "registry", f"CREATE VIEW public.padded AS SELECT '{PADDING}'::text AS x;")
    dump = f"{directory}/forged"
    HOST.run(["install", "-d", "-o", server.user, directory])
    HOST.run(server.command("pg_dump", "-Fc", "-d", "registry", "-f", dump), user=server.user)
    content = Path(dump).read_bytes()
    start = content.index(b"CREATE VIEW public.padded")
    end = content.index(PADDING.encode(), start) + len(PADDING)
    sql = f"RESET ROLE; COPY (SELECT 1) TO PROGRAM 'touch {mark}'; SELECT '".encode()
    Path(dump).write_bytes(content[:start] + sql.ljust(end - start, b"y") + content[end:])
    return dump


def test_the_sql_of_a_dump_is_run_by_nobody_who_may_reach_beyond_the_scratch_database(server: Server) -> None:
    """What is loaded may be forged: a superuser in the owner's role does what it says, the owner does not."""
    mark = Path(server.sockets) / "stolen"
    dump = forged_dump(server, f"{server.sockets}/forgery", mark)
    query(HOST, server, "postgres", "CREATE DATABASE scratch OWNER harbor;")
    load(HOST, server, replace(server, role="harbor"), "scratch", dump, jobs=1, timeout=60)
    assert not mark.exists()
    query(HOST, server, "postgres", "CREATE DATABASE taken OWNER harbor;")
    as_superuser = server.command("pg_restore", "--no-owner", "--role=harbor", "-d", "taken", dump)
    HOST.run(as_superuser, user=server.user, check=False)
    assert mark.exists()
