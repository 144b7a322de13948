"""An external database is looked at as its Harbor reaches it, and all that speaks against a dump is known before it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from flows.rules.take_over import take_over_objections
from flows.rules.take_over_external import external_lines, external_view_of
from tasks.harbor.external_database import ExternalSeen
from tasks.harbor.external_look import look_at
from tasks.hosts.connection import connect
from tests.unit.external_postgres import PASSWORD, ElsewhereDatabase, connection_from, running_elsewhere
from tests.unit.harbor_site import make_site
from tests.unit.live_prefect import free_port
from tests.unit.local_host import local_host
from tests.unit.local_postgres import programs
from tests.unit.local_sshd import running_sshd
from tests.unit.test_rules_take_over import external, view

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(programs() is None, reason="no PostgreSQL server is installed"),
]


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ElsewhereDatabase]:
    with running_elsewhere(tmp_path_factory.mktemp("elsewhere")) as running:
        yield running


@pytest.fixture
def changed(there: ElsewhereDatabase) -> Iterator[list[str]]:
    """Statements that take back what a test has done to the database."""
    back: list[str] = []
    yield back
    for statement in reversed(back):
        there.sql(statement)


def look(there: ElsewhereDatabase, **changes: Any) -> ExternalSeen:
    return look_at(local_host(), there.section(**changes), {}, there.roots)


def refusals(tmp_path: Path, seen: ExternalSeen, major: int = 15) -> list[str]:
    site = make_site(tmp_path, version="v2.9.5", install_dir="/opt/harbor", data_volume="/data/harbor")
    site.postgres.major = major
    old = external(seen)
    judged = external_view_of(site, old)
    assert judged is not None
    assert not judged.answered or external_lines(judged)
    return [*take_over_objections(view(site, {"database_host": "127.0.0.1"}, {}), judged)]


def test_a_database_that_can_be_dumped_has_no_objection_and_is_told_in_the_dry_run(
    there: ElsewhereDatabase, tmp_path: Path
) -> None:
    seen = look(there)
    assert (seen.major, seen.silent) == (15, "")
    assert seen.bytes is not None
    assert seen.bytes > 1 << 20
    assert refusals(tmp_path, seen) == []
    assert PASSWORD not in repr(seen)


def test_a_database_of_another_name_is_taken_as_well(
    there: ElsewhereDatabase, changed: list[str], tmp_path: Path
) -> None:
    there.sql("CREATE DATABASE harbor_prod TEMPLATE registry OWNER harbor;", "postgres")
    changed.append("DROP DATABASE harbor_prod;")
    seen = look(there, db_name="harbor_prod")
    assert (seen.name, refusals(tmp_path, seen)) == ("harbor_prod", [])


def test_a_port_where_nobody_listens_is_told_in_the_systems_words_of_the_node(
    there: ElsewhereDatabase, tmp_path: Path
) -> None:
    seen = look(there, port=free_port())
    (reason,) = refusals(tmp_path, seen)
    assert "cannot be asked from node-a: Connection refused -> " in reason


def test_a_name_that_does_not_resolve_on_the_node_is_told(there: ElsewhereDatabase, tmp_path: Path) -> None:
    (reason,) = refusals(tmp_path, look(there, host="no-such-host.invalid"))
    assert "no-such-host.invalid" in reason
    assert "Name or service not known" in reason or "name resolution" in reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"password": "wrong-secret"}, "password authentication failed"),
        ({"username": "nobody"}, "password authentication failed"),
        ({"db_name": "registri"}, 'database "registri" does not exist'),
        ({"db_name": "closed"}, "pg_hba.conf rejects connection"),
        ({"ssl_mode": "verify-full", "host": "127.0.0.1"}, "does not match host name"),
    ],
    ids=["password", "role", "database", "no entry", "name of the certificate"],
)
def test_a_server_that_does_not_let_the_role_in_is_quoted_without_the_password(
    changes: dict[str, Any], words: str, there: ElsewhereDatabase, tmp_path: Path
) -> None:
    (reason,) = refusals(tmp_path, look(there, **changes))
    assert words in reason
    assert "wrong-secret" not in reason
    assert PASSWORD not in reason


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_tls_is_spoken_as_harbor_speaks_it(mode: str, there: ElsewhereDatabase) -> None:
    seen = look(there, ssl_mode=mode, host="localhost")
    assert (seen.silent, seen.major) == ("", 15)


def test_a_server_that_another_authority_vouches_for_is_refused(
    there: ElsewhereDatabase, tmp_path: Path
) -> None:
    seen = look_at(local_host(), there.section(ssl_mode="verify-ca", host="localhost"), {}, "")
    (reason,) = refusals(tmp_path, seen)
    assert "cannot be asked" in reason


@pytest.mark.parametrize(
    ("statement", "back", "words"),
    [
        (
            "CREATE TABLE hidden (x int);",
            "DROP TABLE hidden;",
            "harbor may not read all of public.hidden",
        ),
        (
            "CREATE SEQUENCE hidden;",
            "DROP SEQUENCE hidden;",
            "harbor may not read all of public.hidden",
        ),
        (
            "ALTER TABLE tag OWNER TO postgres; ALTER TABLE tag ENABLE ROW LEVEL SECURITY;"
            "GRANT SELECT ON tag TO harbor;",
            "ALTER TABLE tag DISABLE ROW LEVEL SECURITY; ALTER TABLE tag OWNER TO harbor;",
            "harbor may not read all of public.tag",
        ),
        (
            "CREATE SCHEMA shop AUTHORIZATION harbor; CREATE TABLE shop.carts (x int);"
            "ALTER TABLE shop.carts OWNER TO harbor;",
            "DROP SCHEMA shop CASCADE;",
            "has tables in shop besides public",
        ),
        ("CREATE EXTENSION amcheck;", "DROP EXTENSION amcheck;", "has amcheck, which Harbor does not need"),
        (
            "ALTER TABLE schema_migrations RENAME TO s;",
            "ALTER TABLE s RENAME TO schema_migrations;",
            "no tables of Harbor's",
        ),
    ],
    ids=["table", "sequence", "row security", "schemas", "extension", "not Harbor's"],
)
def test_what_would_make_no_whole_dump_is_refused_with_its_one_reason(
    statement: str,
    back: str,
    words: str,
    there: ElsewhereDatabase,
    changed: list[str],
    tmp_path: Path,
) -> None:
    there.sql(statement)
    changed.append(back)
    (reason,) = refusals(tmp_path, look(there))
    assert words in reason


def test_a_server_newer_than_the_sites_pg_dump_names_the_version_to_set(
    there: ElsewhereDatabase, tmp_path: Path
) -> None:
    (reason,) = refusals(tmp_path, look(there), major=14)
    assert "set postgres.major to 15 or newer" in reason


def test_another_harbor_on_the_same_database_is_refused_and_the_nodes_own_is_not(
    there: ElsewhereDatabase, tmp_path: Path
) -> None:
    def session(port: int) -> Any:
        return psycopg2.connect(
            host="127.0.0.1",
            port=port,
            dbname="registry",
            user="harbor",
            password=PASSWORD,
            connect_timeout=5,
        )

    own = session(there.port)
    assert look(there).others == ()
    own.close()
    with connection_from("127.0.0.9", there.port) as port:
        other = session(port)
        (reason,) = refusals(tmp_path, look(there))
        other.close()
    assert "from 127.0.0.9 too" in reason


def test_notarys_databases_are_told_and_stay(
    there: ElsewhereDatabase, changed: list[str], tmp_path: Path
) -> None:
    there.sql("CREATE DATABASE notaryserver;", "postgres")
    changed.append("DROP DATABASE notaryserver;")
    seen = look(there)
    assert seen.databases == ("notaryserver",)
    judged = external_view_of(make_site(tmp_path), external(seen))
    assert judged is not None
    assert any("notaryserver of a Notary that does not run stays" in line for line in external_lines(judged))


def test_the_look_writes_nothing_and_goes_through_ssh_without_its_forwarding(
    there: ElsewhereDatabase,
) -> None:
    before = there.content()
    with running_sshd({}) as node:
        seen = look_at(connect(node), there.section(ssl_mode="require"), {}, "")
        assert (seen.silent, seen.major) == ("", 15)
        assert look_at(connect(node), there.section(port=free_port()), {}, "").silent == "Connection refused"
    assert there.content() == before


def test_a_harbor_yml_that_core_does_not_run_with_is_not_guessed_from(
    there: ElsewhereDatabase, tmp_path: Path
) -> None:
    core = {"POSTGRESQL_HOST": "10.0.0.9", "POSTGRESQL_PORT": str(there.port)}
    seen = look_at(local_host(), there.section(), core, "")
    (reason,) = refusals(tmp_path, seen)
    assert "host is 10.0.0.9 in core and 127.0.0.1 in harbor.yml" in reason
    (reason,) = refusals(tmp_path, look(there, password=None, ssl_mode="maybe", port="x"))
    assert "nothing usable of password, port, ssl_mode" in reason
