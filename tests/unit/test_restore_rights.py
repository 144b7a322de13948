"""What is in a restored database is somebody else's text: nothing of it is run with the rights of a superuser."""

import getpass
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from lab.oss.server import OssServer
from tasks.backup.format.manifest import Manifest
from tasks.backup.restore import application, done, links, recovery, revive, whole
from tasks.backup.server import Server, query
from tasks.errors import RemoteCommandFailed
from tasks.pitr import images, restore
from tasks.postgres.settings import host_based_authentication, merged_hba
from tests.unit.local_host import local_host
from tests.unit.local_oss import running_oss
from tests.unit.local_postgres import programs, running_postgres
from tests.unit.one_night import IDENTITY, Night, back_up, new_night

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(programs() is None, reason="no PostgreSQL server is installed"),
    pytest.mark.skipif(getpass.getuser() != "root", reason="the server's user must be another one"),
]

# Whoever got into Harbor's database as Harbor waits in it for a superuser: as a trigger on what a restore changes, as
# an operator that fits a name of Harbor's better than the system's own.
AMBUSH = """
SET ROLE harbor;
CREATE FUNCTION grab() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  RESET ROLE;
  EXECUTE 'CREATE ROLE stolen SUPERUSER';
  RETURN true;
EXCEPTION WHEN OTHERS THEN
  RETURN true;
END $$;
CREATE FUNCTION grab_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM grab(); RETURN NEW; END $$;
CREATE TRIGGER ambush BEFORE UPDATE ON properties FOR EACH ROW EXECUTE FUNCTION grab_row();
ALTER TABLE properties ENABLE ALWAYS TRIGGER ambush;
CREATE FUNCTION joined(varchar, text) RETURNS text LANGUAGE plpgsql AS
  $$ BEGIN PERFORM public.grab(); RETURN 'ambushed'; END $$;
CREATE OPERATOR || (LEFTARG = varchar, RIGHTARG = text, FUNCTION = joined);
CREATE FUNCTION same(varchar, varchar) RETURNS boolean LANGUAGE plpgsql AS
  $$ BEGIN PERFORM public.grab(); RETURN $1::text OPERATOR(pg_catalog.=) $2::text; END $$;
CREATE OPERATOR = (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = same);
"""
# As Harbor has it; the operators above are the better ones for it.
NAMES = """
ALTER TABLE repository ALTER COLUMN name TYPE varchar(255);
ALTER TABLE blob ALTER COLUMN digest TYPE varchar(255);
ALTER TABLE artifact ALTER COLUMN digest TYPE varchar(255);
ALTER TABLE artifact_blob ALTER COLUMN digest_af TYPE varchar(255), ALTER COLUMN digest_blob TYPE varchar(255);
"""


@pytest.fixture
def oss(tmp_path: Path) -> Iterator[OssServer]:
    with running_oss(tmp_path / "bucket") as running:
        yield running


@pytest.fixture
def source() -> Iterator[Server]:
    with running_postgres() as running:
        yield running


@pytest.fixture
def night(tmp_path: Path, oss: OssServer, source: Server) -> Night:
    made = new_night(tmp_path, oss.endpoint, source)
    made.push("library/app")
    query(local_host(), source, "registry", NAMES + AMBUSH)
    return made


@pytest.fixture
def target(night: Night) -> Iterator[Server]:
    """A server that lets in whom the site's pg_hba.conf lets in, with Harbor's role."""
    with running_postgres("") as server:
        secret = night.site.postgres.application.password.get_secret_value()
        query(local_host(), server, "postgres", "CREATE ROLE harbor LOGIN PASSWORD :'v0';", values=[secret])
        hba = Path(server.sockets) / "data/pg_hba.conf"
        # Behind ours stands what Debian's package brings.
        hba.write_text(merged_hba("local all all peer\n", host_based_authentication(night.site)))
        query(local_host(), server, "postgres", "SELECT pg_reload_conf();")
        yield server


@pytest.fixture
def believed(night: Night, target: Server, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The parameters of a restore of the newest backup to the target."""
    manifest: Manifest = back_up(night)[0]
    file = tmp_path / "identity"
    file.write_text(str(IDENTITY))
    file.chmod(0o600)
    with (
        patch.object(recovery, "server_of", lambda _: target),
        patch.object(application, "server_of", lambda _: target),
        patch.object(application, "DIRECTORY", f"{target.sockets}/login"),
        patch.object(revive, "harbor_runs", lambda _: False),
        patch.object(done, "NOTE", str(tmp_path / "done.json")),
        patch.object(done, "server_of", lambda _: target),
    ):
        yield {"backup": manifest.backup_id, "identity_file": str(file)}


def superusers(server: Server) -> set[str]:
    return {
        row[0]
        for row in query(local_host(), server, "postgres", "SELECT rolname FROM pg_roles WHERE rolsuper;")
    }


def test_a_whole_restore_runs_nothing_of_the_database_as_a_superuser(
    night: Night, target: Server, believed: dict[str, str]
) -> None:
    site, host = night.site, local_host()
    before = superusers(target)
    assert recovery.restore_databases(site, host, **believed).changed
    settled = revive.clear_stale_state(site, host, of=believed["backup"])
    digest = query(host, target, "registry", "SELECT digest FROM public.artifact LIMIT 1;")[0][0]
    with application.as_application(site, host) as login:
        named = whole.images_of(host, login, "registry", [digest])
    assert superusers(target) == before
    again = revive.clear_stale_state(site, host, of=believed["backup"])
    assert (again.changed, again.detail) == (False, "it was settled by an earlier run of this restore")
    # And the ambush was there: it was sprung, and got nothing.
    assert "1 read_only" in settled.detail
    assert named == ["ambushed"]
    assert Path(target.sockets, "log").read_text().count("Harbor-secret.1") == 0


def test_after_a_point_in_time_nothing_of_the_database_is_run_as_a_superuser(
    night: Night, target: Server, believed: dict[str, str]
) -> None:
    site, host = night.site, local_host()
    recovery.restore_databases(site, host, **believed)
    before = superusers(target)
    with patch.object(images, "server_of", lambda _: target):
        assert "hold" in restore.check(site, host).detail
        assert links.make_missing_links(site, host).changed
        lost = "SELECT digest, 'sha256:' || repeat('a', 64) FROM public.artifact"
        query(host, target, "registry", f"INSERT INTO public.artifact_blob (digest_af, digest_blob) {lost};")
        found = images.restore_images(site, host)
    assert (found.data["lost_count"], found.data["lost"]) == (1, ["ambushed"])
    assert superusers(target) == before


def test_no_password_is_left_on_the_node(night: Night, target: Server, believed: dict[str, str]) -> None:
    recovery.restore_databases(night.site, local_host(), **believed)
    revive.clear_stale_state(night.site, local_host(), of=believed["backup"])
    names = {path.name for path in Path(target.sockets).iterdir()}
    assert names.isdisjoint({"login", "restore"})


def test_a_password_that_is_not_harbors_is_a_plain_failure(
    night: Night, target: Server, believed: dict[str, str]
) -> None:
    query(local_host(), target, "postgres", "ALTER ROLE harbor PASSWORD 'another';")
    with pytest.raises(RemoteCommandFailed) as failed:
        recovery.restore_databases(night.site, local_host(), **believed)
    assert "Harbor-secret.1" not in str(failed.value)
    assert ["registry"] not in query(local_host(), target, "postgres", "SELECT datname FROM pg_database;")
