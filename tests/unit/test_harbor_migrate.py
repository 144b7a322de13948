"""A bundled database is taken over whole or not at all."""

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from blocks import HarborSite
from tasks.errors import Refused, RemoteCommandFailed
from tasks.harbor import aside, migrate
from tasks.harbor.copied import differing
from tasks.harbor.migrate import MigrationIncomplete, from_bundled
from tests.unit.harbor_site import NodeInDirectory, make_site, program
from tests.unit.local_host import as_user
from tests.unit.local_postgres import programs, running_postgres

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(programs() is None, reason="no PostgreSQL server is installed"),
]

# The bundled database is another database of the same server; the container is this script.
DOCKER = """
case $1 in
  inspect)
    for last; do :; done
    case $last in
      harbor-core) test -e CORE && cat CORE ;;
      *) test -e RUNNING && echo true ;;
    esac ;;
  ps) echo harbor-db; echo harbor-core; echo harbor-log ;;
  stop) echo "$@" >> STOPPED ;;
  exec) shift; [ "$1" = -i ] && shift; shift; exec BEFORE "$@" ;;
esac
"""


@dataclass
class Machine:
    """A node with a bundled database, and the pair's primary: one server, two databases."""

    site: HarborSite
    node: NodeInDirectory
    directory: Path

    def take_over(self) -> bool:
        """Take the data over; whether anything changed."""
        return from_bundled(self.site, self.node.as_host(), self.node.as_host()).changed

    def core_names(self, host: str) -> None:
        """Give core's container the address of its database."""
        (self.directory / "core").write_text(f"LOG_LEVEL=info\nPOSTGRESQL_HOST={host}\n")

    def read_only(self, database: str) -> str:
        """Whether a Harbor that starts on a database is read-only."""
        return self.sql(database, "SELECT v FROM properties WHERE k = 'read_only';")

    def sql(self, database: str, statement: str) -> str:
        """Run a statement as the superuser."""
        return self.node.run(
            ["psql", "-XAtq", "-p", "5999", "-d", database], stdin=statement, user="postgres"
        ).stdout.strip()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_postgres() as running:
        yield running.sockets


@pytest.fixture
def machine(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    user = " ".join(as_user([], "postgres"))
    body = DOCKER.replace("RUNNING", str(tmp_path / "running")).replace("STOPPED", str(tmp_path / "stopped"))
    body = body.replace("CORE", str(tmp_path / "core"))
    program(tmp_path / "bin", "docker", body.replace("BEFORE", user))
    (tmp_path / "running").touch()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{programs()}:/usr/sbin:/usr/bin:/bin")
    monkeypatch.setenv("PGHOST", server)
    monkeypatch.setenv("PGPORT", "5999")
    monkeypatch.setattr(migrate, "RECORD", str(tmp_path / "migrated.json"))
    site = make_site(tmp_path, version="v2.13.2", data_volume=str(tmp_path / "data"))
    site.postgres.port, site.postgres.database = 5999, "taken_over"
    machine = Machine(site, NodeInDirectory("node-a", tmp_path / "state"), tmp_path)
    yield machine
    for name in ["taken_over", *asides(machine)]:
        machine.sql("postgres", f'DROP DATABASE IF EXISTS "{name}";')
    machine.sql("registry", "DELETE FROM tag; UPDATE properties SET v = 'false';")


def test_every_row_arrives_and_belongs_to_harbors_role(machine: Machine) -> None:
    assert machine.take_over()
    assert machine.sql("taken_over", "SELECT name FROM project ORDER BY 1;") == "hub\nlibrary"
    owners = machine.sql("taken_over", "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname='public';")
    assert owners == "harbor"


def test_writers_are_stopped_before_and_the_database_is_not(machine: Machine) -> None:
    machine.take_over()
    assert (machine.directory / "stopped").read_text() == "stop -t 5 harbor-core\n"


def test_the_second_run_does_nothing(machine: Machine) -> None:
    machine.take_over()
    assert not machine.take_over()
    assert len((machine.directory / "stopped").read_text().splitlines()) == 1


def test_a_run_killed_after_its_commit_finds_its_own_copy(machine: Machine) -> None:
    machine.take_over()
    (machine.directory / "migrated.json").unlink()
    assert not machine.take_over()
    assert (machine.directory / "migrated.json").exists()


def test_a_pair_with_data_of_its_own_is_never_loaded_into(machine: Machine) -> None:
    machine.sql("postgres", "CREATE DATABASE taken_over;")
    machine.sql("taken_over", "CREATE TABLE project (name text); INSERT INTO project VALUES ('precious');")
    with pytest.raises(Refused, match="tables of its own"):
        machine.take_over()
    assert machine.sql("taken_over", "SELECT name FROM project;") == "precious"
    assert not (machine.directory / "stopped").exists(), "Harbor must go on serving after a refusal"


def test_a_copy_that_differs_is_rolled_back(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = migrate._counts
    monkeypatch.setattr(migrate, "_counts", lambda ask: {name: n + 1 for name, n in counts(ask).items()})
    with pytest.raises(MigrationIncomplete, match="rolled back"):
        machine.take_over()
    assert machine.sql("taken_over", "SELECT count(*) FROM pg_tables WHERE schemaname='public';") == "0"
    assert not (machine.directory / "migrated.json").exists()


def test_an_error_of_the_load_is_shown_and_keeps_nothing(machine: Machine) -> None:
    machine.site.postgres.application.user = "nobody-like-this"
    machine.sql("postgres", "CREATE DATABASE taken_over;")
    with pytest.raises(RemoteCommandFailed, match="nobody-like-this"):
        machine.take_over()
    assert machine.sql("taken_over", "SELECT count(*) FROM pg_tables WHERE schemaname='public';") == "0"


def test_a_bundled_database_that_does_not_run_is_not_forgotten(machine: Machine) -> None:
    (machine.directory / "running").unlink()
    assert not machine.take_over(), "a node without one has nothing to take over"
    (machine.directory / "data/database/pg15").mkdir(parents=True)
    (machine.directory / "data/database/pg15/PG_VERSION").write_text("15\n")
    with pytest.raises(Refused, match="does not run"):
        machine.take_over()


def test_a_table_that_is_only_on_one_side_is_a_difference() -> None:
    assert differing({"public.tag": 1}, {"public.tag": 1}) == []
    assert len(differing({"public.tag": 1, "public.a": 2}, {"public.tag": 2, "public.b": 0})) == 3


def test_a_pair_with_tables_is_refused_before_the_old_harbor_is_touched(machine: Machine) -> None:
    assert not migrate.require_empty(machine.site, machine.node.as_host()).changed
    machine.sql("postgres", "CREATE DATABASE taken_over;")
    assert not migrate.require_empty(machine.site, machine.node.as_host()).changed
    machine.sql("taken_over", "CREATE TABLE project (name text);")
    with pytest.raises(Refused, match="tables of its own"):
        migrate.require_empty(machine.site, machine.node.as_host())


def test_a_database_to_be_adopted_that_does_not_run_is_refused_not_passed_over(machine: Machine) -> None:
    (machine.directory / "running").unlink()
    with pytest.raises(Refused, match="harbor-db does not run"):
        from_bundled(
            machine.site, machine.node.as_host(), machine.node.as_host(), directory="/usr/local/harbor"
        )


def asides(machine: Machine) -> list[str]:
    """Names of the databases that were set aside."""
    query = "SELECT datname FROM pg_database WHERE datname LIKE 'taken_over_aside%';"
    return machine.sql("postgres", query).split()


def test_after_a_put_back_the_first_copy_is_renamed_and_the_old_harbor_can_be_copied_anew(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = machine.directory / "state"
    state.mkdir(exist_ok=True)
    monkeypatch.setattr(aside, "STATE_DIR", str(state))
    host = machine.node.as_host()
    machine.take_over()
    (state / "harbor_adoption.json").write_text('{"phase": "moved"}')
    with pytest.raises(Refused, match="does not say that its Harbor was put back"):
        aside.set_aside(machine.site, host, host)
    assert asides(machine) == []
    (state / "harbor_adoption.json").write_text('{"phase": "returned", "was": "moved"}')
    machine.sql("registry", "INSERT INTO tag (name) VALUES ('pushed since');")

    assert aside.set_aside(machine.site, host, host).changed
    assert not aside.set_aside(machine.site, host, host).changed, "the second run finds nothing"

    (name,) = asides(machine)
    assert machine.sql(name, "SELECT name FROM project ORDER BY 1;") == "hub\nlibrary"
    assert machine.take_over()
    assert machine.sql("taken_over", "SELECT name FROM tag;") == "pushed since"
    machine.sql("postgres", f'DROP DATABASE "{name}";')


def test_what_was_pushed_to_the_old_harbor_after_the_copy_is_copied_too(machine: Machine) -> None:
    """Killed after the record, the old one came back with the engine and took pushes: they were lost unreported."""
    machine.core_names("postgresql")
    machine.take_over()
    machine.sql("registry", "INSERT INTO tag (name) VALUES ('pushed since');")

    assert machine.take_over()

    assert machine.sql("taken_over", "SELECT name FROM tag;") == "pushed since"
    (name,) = asides(machine)
    assert machine.sql(name, "SELECT count(*) FROM tag;") == "0", "the first copy is kept"
    assert not machine.take_over(), "the third run finds the second copy"


def test_where_both_have_gone_on_nothing_is_lost_and_both_ways_are_told(machine: Machine) -> None:
    machine.core_names("postgresql")
    machine.take_over()
    (machine.directory / "stopped").unlink()
    machine.sql("registry", "INSERT INTO tag (name) VALUES ('pushed to the old one');")
    machine.sql("taken_over", "INSERT INTO tag (name) VALUES ('pushed to the pair'), ('another');")

    with pytest.raises(Refused, match=r"public\.tag: 1 rows here, 2 in the pair") as refused:
        machine.take_over()

    assert "took writes after" in str(refused.value)
    assert sum("-> " in reason for reason in refused.value.reasons) == 2
    assert not (machine.directory / "stopped").exists(), "Harbor must go on serving after a refusal"
    assert machine.sql("taken_over", "SELECT count(*) FROM tag;") == "2"


def test_a_pair_that_went_on_is_left_alone_where_the_old_harbor_stood_still(machine: Machine) -> None:
    machine.core_names("postgresql")
    machine.take_over()
    machine.sql("taken_over", "INSERT INTO tag (name) VALUES ('pushed to the pair');")
    assert not machine.take_over()
    assert machine.sql("taken_over", "SELECT name FROM tag;") == "pushed to the pair"


def test_a_copy_that_somebody_uses_is_not_replaced(machine: Machine) -> None:
    machine.core_names("postgresql")
    machine.take_over()
    machine.sql("registry", "INSERT INTO tag (name) VALUES ('pushed since');")
    machine.site.postgres.application.user = "postgres"
    other = subprocess.Popen(
        as_user(["psql", "-XAtq", "-d", "taken_over", "-c", "SELECT pg_sleep(60)"], "postgres")
    )
    try:
        _wait_for_session(machine)
        with pytest.raises(Refused, match="took writes after"):
            machine.take_over()
    finally:
        machine.sql(
            "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'taken_over';"
        )
        other.wait(10)
    assert asides(machine) == []


def _wait_for_session(machine: Machine) -> None:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'taken_over';"
    deadline = time.monotonic() + 10
    while machine.sql("postgres", query) == "0":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_record_of_a_pair_that_was_made_anew_is_not_believed(machine: Machine) -> None:
    machine.core_names("harbor-db")
    machine.take_over()
    machine.sql("postgres", "DROP DATABASE taken_over;")
    assert machine.take_over()
    assert machine.sql("taken_over", "SELECT name FROM project ORDER BY 1;") == "hub\nlibrary"


def test_once_core_names_the_pair_the_record_counts(machine: Machine) -> None:
    machine.core_names("postgresql")
    machine.take_over()
    machine.core_names("10.20.0.11")
    machine.sql("registry", "INSERT INTO tag (name) VALUES ('by a hand');")
    assert not machine.take_over()


def test_the_old_harbor_comes_back_read_only_and_the_pair_takes_pushes(machine: Machine) -> None:
    machine.take_over()
    assert (machine.read_only("registry"), machine.read_only("taken_over")) == ("true", "false")
    (machine.directory / "migrated.json").unlink()
    machine.sql("taken_over", "UPDATE properties SET v = 'true';")
    assert not machine.take_over()
    assert machine.read_only("taken_over") == "false", "killed between the copy and the note"


def test_after_a_copy_that_failed_the_old_harbor_takes_pushes_once_it_is_started(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.sql("registry", "UPDATE properties SET v = 'false';")
    counts = migrate._counts
    monkeypatch.setattr(migrate, "_counts", lambda ask: {name: n + 1 for name, n in counts(ask).items()})
    with pytest.raises(MigrationIncomplete):
        machine.take_over()
    assert machine.read_only("registry") == "false"
