"""What a dump holds beyond Harbor's own: it is restored where it can be, and left out by name where it cannot."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.backup.drill.rehearsal import run_drill
from tasks.backup.server import Server, query
from tasks.storage.store import ObjectStore
from tests.unit.local_oss import running_oss
from tests.unit.local_postgres import programs, running_postgres
from tests.unit.local_store import local_store
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
