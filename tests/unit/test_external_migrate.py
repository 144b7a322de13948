"""An external database is copied whole or not at all, by files that only root reads, and stays as it was."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from blocks import HarborSite
from tasks.errors import Refused, RemoteCommandFailed
from tasks.harbor import external_database, migrate
from tasks.harbor.migrate import MigrationIncomplete, from_external, rehearse_external
from tasks.harbor.on_node import adoption_steps
from tasks.postgres.layout import layout_of
from tests.unit.external_postgres import PASSWORD, ElsewhereDatabase, running_elsewhere
from tests.unit.harbor_site import NodeInDirectory, make_site, program
from tests.unit.local_postgres import programs, running_postgres

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(programs() is None, reason="no PostgreSQL server is installed"),
]
HOME = "/usr/local/harbor"


@dataclass
class Machine:
    """A node with an old Harbor on an external database, and the pair's primary."""

    site: HarborSite
    node: NodeInDirectory
    there: ElsewhereDatabase
    kept_at: Path

    def take_over(self) -> bool:
        """Take the data over; whether anything changed."""
        host = self.node.as_host()
        return from_external(self.site, host, host, directory=HOME).changed

    def pair(self, statement: str, database: str = "taken_over") -> str:
        """Ask the pair as the superuser."""
        argv = ["psql", "-XAtq", "-p", "5999", "-d", database]
        return self.node.run(argv, stdin=statement, user="postgres").stdout.strip()

    def write_access(self, **changes: Any) -> None:
        """Write what `adoption.begin` gives the node to reach the database by."""
        database = external_database.database_of(self.there.section(**changes))
        service, password, roots = external_database.FILES
        texts = {
            service: external_database.service_file(database, str(self.kept_at)),
            password: external_database.pass_file(database),
            roots: self.there.roots,
        }
        self.kept_at.mkdir(exist_ok=True)
        for name, text in texts.items():
            (self.kept_at / name).write_text(text)
            (self.kept_at / name).chmod(0o600)


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ElsewhereDatabase]:
    with running_elsewhere(tmp_path_factory.mktemp("elsewhere")) as running:
        yield running


@pytest.fixture(scope="module")
def pair() -> Iterator[str]:
    with running_postgres("CREATE ROLE harbor LOGIN;") as running:
        yield running.sockets


@pytest.fixture
def machine(
    tmp_path: Path, there: ElsewhereDatabase, pair: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Machine]:
    program(tmp_path / "bin", "docker", "[ $1 != ps ] || echo harbor-core\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{programs()}:/usr/sbin:/usr/bin:/bin")
    monkeypatch.setenv("PGHOST", pair)
    monkeypatch.setenv("PGPORT", "5999")
    monkeypatch.setattr(migrate, "RECORD", str(tmp_path / "migrated.json"))
    monkeypatch.setattr(migrate, "KEPT_AT", str(tmp_path / "adopted"))
    monkeypatch.setattr(migrate, "_GONE_S", 0.5)
    site = make_site(tmp_path, version="v2.13.2")
    site.postgres.port, site.postgres.database = 5999, "taken_over"
    made = Machine(site, NodeInDirectory("node-a", tmp_path / "state"), there, tmp_path / "adopted")
    made.write_access()
    yield made
    made.pair("DROP DATABASE IF EXISTS taken_over;", "postgres")
    there.sql("DELETE FROM tag;")


@pytest.mark.parametrize("mode", ["disable", "verify-full"])
def test_every_row_arrives_and_belongs_to_the_sites_role_and_the_server_is_as_it_was(
    mode: str, machine: Machine
) -> None:
    machine.write_access(ssl_mode=mode, host="localhost")
    before = machine.there.content()
    assert not rehearse_external(machine.site, machine.node.as_host()).changed
    assert machine.take_over()
    assert machine.pair("SELECT name FROM project ORDER BY 1;") == "hub\nlibrary"
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname='public';"
    assert machine.pair(owners) == "harbor"
    assert machine.there.content() == before


def test_the_second_run_and_one_after_a_kill_find_the_copy(machine: Machine) -> None:
    machine.take_over()
    assert not machine.take_over()
    Path(migrate.RECORD).unlink()
    assert not machine.take_over()


def test_a_session_of_harbors_role_that_is_left_after_the_stop_ends_the_copy_before_it_begins(
    machine: Machine,
) -> None:
    section = machine.there.section()
    other = psycopg2.connect(
        host="127.0.0.1", port=section["port"], dbname="registry", user="harbor", password=PASSWORD
    )
    with pytest.raises(Refused, match=r"still logged in.*\n.*from 127\.0\.0\.1 -> stop what writes"):
        machine.take_over()
    assert not migrate.has_tables(machine.site, machine.node.as_host())
    other.close()
    assert machine.take_over()


def test_a_copy_that_differs_is_rolled_back(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = migrate._counts
    monkeypatch.setattr(migrate, "_counts", lambda ask: {name: n + 1 for name, n in counts(ask).items()})
    with pytest.raises(MigrationIncomplete, match="the external database was not touched"):
        machine.take_over()
    assert machine.pair("SELECT count(*) FROM pg_tables WHERE schemaname='public';") == "0"


def test_the_rehearsal_finds_what_the_dump_would_fail_at_while_harbor_serves(machine: Machine) -> None:
    machine.there.sql("CREATE TABLE hidden (x int);")
    try:
        with pytest.raises(RemoteCommandFailed, match="permission denied for table hidden"):
            rehearse_external(machine.site, machine.node.as_host())
    finally:
        machine.there.sql("DROP TABLE hidden;")
    machine.write_access(password="wrong-secret")
    with pytest.raises(RemoteCommandFailed, match="password authentication failed") as caught:
        rehearse_external(machine.site, machine.node.as_host())
    assert "wrong-secret" not in str(caught.value)


def test_a_query_of_ours_cannot_write_there(machine: Machine) -> None:
    with pytest.raises(RemoteCommandFailed, match="read-only transaction"):
        migrate._ask_external(machine.site, machine.node.as_host())("DELETE FROM project")


def test_no_secret_is_in_an_argument(machine: Machine) -> None:
    layout = layout_of(machine.site)
    said = " ".join(external_database.dump(layout, "/x") + external_database.program(layout, "/x", "psql"))
    assert PASSWORD not in said
    assert "harbor_ha" not in said
    assert PASSWORD not in external_database.service_file(
        external_database.database_of(machine.there.section()), "/x"
    )


def put_back_text(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(adoption_steps, "KEPT_AT", str(machine.kept_at))
    given = {"install_dir": "/opt/harbor", "psql": f"{programs()}/psql"}
    known = {"project": "harbor", "found": {"directory": HOME}, "units": []}
    return adoption_steps.script(given, known)


def test_putting_it_back_ends_read_only_mode_on_its_own_server_and_starts_no_bundled_one(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = put_back_text(machine, monkeypatch)
    assert "postgresql" not in text.replace(f"{programs()}", "")
    assert PASSWORD not in text
    (step,) = [part for part in text.split("\n\n") if "PGSERVICEFILE" in part] or [""]
    lines = step.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("PGSERVICEFILE"))
    command = "\n".join(lines[start : start + 2]) + "\necho left=${left:-}"
    machine.there.sql("UPDATE properties SET v = 'true' WHERE k = 'read_only';")
    done = subprocess.run(["bash", "-euc", command], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "left=\n"), done.stderr
    assert machine.there.sql("SELECT v FROM properties WHERE k = 'read_only';") == "false"
    machine.write_access(password="wrong-secret")
    done = subprocess.run(["bash", "-euc", command], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "left=1\n"), "Harbor is started whatever the server says"
