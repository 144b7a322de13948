"""Images that cannot be brought back whole: the others are, and those are named as a human knows them."""

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from lab.oss.server import OssServer
from tasks.backup.format.layout import blob_key
from tasks.backup.restore import recovery
from tasks.backup.server import Server
from tasks.outcome import Outcome
from tests.unit.local_host import local_host
from tests.unit.local_oss import running_oss
from tests.unit.local_postgres import programs, running_postgres
from tests.unit.one_night import IDENTITY, Night, back_up, bucket_of, new_night

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(programs() is None, reason="no PostgreSQL server is installed"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_postgres() as running:
        yield running


@pytest.fixture
def oss(tmp_path: Path) -> Iterator[OssServer]:
    with running_oss(tmp_path / "bucket") as running:
        yield running


@pytest.fixture
def night(tmp_path: Path, oss: OssServer, server: Server) -> Iterator[Night]:
    made = new_night(tmp_path, oss.endpoint, server)
    yield made
    made._sql("TRUNCATE blob, artifact_blob, artifact CASCADE;")


def restored(night: Night, backup: str) -> Outcome:
    """Lose the NAS, and bring the images back; the database is the one of the backup."""
    host = local_host()
    host.run(["rm", "-rf", str(night.registry)])
    identity = night.site_file.parent / "identity"
    identity.write_text(str(IDENTITY))
    identity.chmod(0o600)
    assert night.server is not None
    with (
        patch("tasks.backup.restore.application.server_of", lambda _: night.server),
        patch("tasks.backup.restore.application.DIRECTORY", f"{night.server.sockets}/login"),
    ):
        return recovery.restore_images(night.site, host, backup=backup, identity_file=str(identity))


def tagged(night: Night, name: str, tag: str) -> str:
    digest = night.push(name)
    night._sql(
        """
        INSERT INTO repository (name, project_id) VALUES (:'v1', 1) ON CONFLICT (name) DO NOTHING;
        UPDATE artifact SET repository_id = (SELECT repository_id FROM repository WHERE name = :'v1')
          WHERE digest = :'v0';
        INSERT INTO tag (artifact_id, name) SELECT id, :'v2' FROM artifact WHERE digest = :'v0';
        """,
        digest,
        name,
        tag,
    )
    return digest


def test_a_blob_lost_from_the_bucket_costs_its_own_image_and_no_other(night: Night, oss: OssServer) -> None:
    """Eight of nine were restored, then the run ended, and Harbor never started."""
    digests = [tagged(night, f"library/app-{number}", f"v{number}") for number in range(9)]
    manifest, _ = back_up(night)
    bucket_of(night, oss).delete_many([blob_key(digests[4])])
    outcome = restored(night, manifest.backup_id)
    assert (outcome.data["restored"], outcome.data["lost_count"]) == (8, 1)
    assert outcome.data["lost"] == ["library/app-4:v4"]
    assert "1 could not be" in outcome.detail


def test_a_blob_that_was_missing_at_the_backup_is_named_at_the_end_and_fails_nothing(
    night: Night, oss: OssServer
) -> None:
    for number in range(8):
        tagged(night, f"library/app-{number}", "v1")
    night.lose("library/gone", tagged(night, "library/gone", "v2"))
    manifest, _ = back_up(night)
    outcome = restored(night, manifest.backup_id)
    assert outcome.data["restored"] == 8
    assert outcome.data["lost"] == ["library/gone:v2"]


def test_a_blob_in_an_archive_class_is_thawed_and_the_others_come_at_once(
    night: Night, oss: OssServer
) -> None:
    cold = tagged(night, "library/cold", "v1")
    for number in range(8):
        tagged(night, f"library/app-{number}", "v1")
    manifest, _ = back_up(night)
    store = bucket_of(night, oss)
    oss.store.archive(store.full(blob_key(cold)))
    outcome = restored(night, manifest.backup_id)
    assert (outcome.data["restored"], outcome.data["archived_count"]) == (8, 1)
    assert outcome.data["lost"] == ["library/cold:v1"]
    assert "run it again" in outcome.detail
    assert oss.faults.counts()["RestoreObject"] == {"202": 1}
    oss.store.thawed(store.full(blob_key(cold)))
    again = restored(night, manifest.backup_id)
    assert (again.data["restored"], again.data["lost_count"]) == (9, 0)
