"""The drill as the flow runs it: without an identity, one at a time, unsigned backups only when told to."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from flows.restore_drill import LOCK, restore_drill
from lab.oss.server import OssServer
from tasks.backup.drill import rehearsal
from tasks.backup.drill.result import DrillFailed
from tasks.backup.format.catalogue import list_backups, read_manifest
from tasks.backup.format.layout import SIGNATURE, blob_key, parse_backup_id
from tasks.backup.format.signature import NotSigned
from tasks.backup.night.lock import LockedByAnother, acquire
from tasks.backup.server import Server
from tasks.backup.settings import NoIdentity, trust_of
from tasks.outcome import Outcome
from tests.unit.local_host import local_host
from tests.unit.local_oss import running_oss
from tests.unit.local_postgres import programs, running_postgres
from tests.unit.one_night import IDENTITY, Night, PlainRun, back_up, bucket_of, new_night

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
    for number in range(5):
        made.push(f"library/app-{number}")
    yield made
    made._sql("TRUNCATE blob, artifact_blob, artifact CASCADE;")


def drill(night: Night, *, identity: bool = False, **given: Any) -> Outcome:
    """Run the drill's step for the site, its scratch server beside the test's own."""
    assert night.server is not None
    file = night.site_file.parent / "identity"
    file.write_text(str(IDENTITY))
    file.chmod(0o600)
    given |= {"identity_file": str(file)} if identity else {}
    directory = f"{night.server.sockets}/drill"

    def here(host: Any, programs: str, origin: Any, **options: Any) -> Any:
        return run_drill(host, programs, origin, directory)

    run_drill = rehearsal.run_drill
    with (
        patch("tasks.backup.drill.rehearsal.server_of", lambda _: night.server),
        patch("tasks.backup.drill.rehearsal.make_user", lambda _: "postgres"),
        patch("tasks.backup.drill.rehearsal.run_drill", here),
    ):
        return rehearsal.drill(night.site, local_host(), **given)


def words(night: Night, oss: OssServer) -> list[str]:
    """How the drills of the newest backup ended."""
    entry = list_backups(bucket_of(night, oss))[-1]
    return [name.rsplit("-", 1)[1].removesuffix(".json") for name in entry.verified]


def test_without_an_identity_it_passes_and_says_what_it_did_not_prove(night: Night, oss: OssServer) -> None:
    """The identity is kept offline, which is the default; the weekly drill was red for ever."""
    back_up(night)
    found = drill(night)
    assert found.data["blobs_listed"] == 5
    assert found.data["crcs_checked"] > 5
    assert "no age identity" in found.data["not_proven"][0]
    assert "not proven" in found.detail
    # It was not restored, so it protects no backup from prune.
    assert words(night, oss) == ["unopened"]


def test_with_an_identity_everything_is_proven(night: Night, oss: OssServer) -> None:
    back_up(night)
    found = drill(night, identity=True)
    assert (found.data["not_proven"], found.data["left_out"]) == ([], [])
    assert found.data["restored_tables"]
    assert words(night, oss) == ["ok"]


def test_without_an_identity_a_lost_blob_an_exchanged_one_and_a_damaged_dump_are_found(
    night: Night, oss: OssServer
) -> None:
    lost, exchanged = night.push("library/lost"), night.push("library/exchanged")
    manifest, _ = back_up(night)
    store, backup = bucket_of(night, oss), parse_backup_id(manifest.backup_id)
    dump = backup.key(manifest.artifact("database", "registry").name)
    store.delete_many([blob_key(lost)])
    store.put_bytes(blob_key(exchanged), b"x" * 3000)
    store.put_bytes(dump, b"nonsense")
    with pytest.raises(DrillFailed) as failed:
        drill(night)
    text = str(failed.value)
    assert all(word in text for word in (lost, exchanged, dump))
    assert words(night, oss) == ["failed"]


def test_a_blob_in_an_archive_class_is_not_damage_and_is_not_proven(night: Night, oss: OssServer) -> None:
    digest = night.push("library/cold")
    back_up(night)
    store = bucket_of(night, oss)
    oss.store.archive(store.full(blob_key(digest)))
    found = drill(night, identity=True)
    assert "archive class" in found.data["not_proven"][0]


def test_an_unsigned_backup_is_drilled_when_told_to_and_signed_when_it_passed(
    night: Night, oss: OssServer
) -> None:
    manifest, _ = back_up(night)
    store, backup = bucket_of(night, oss), parse_backup_id(manifest.backup_id)
    store.delete_many([backup.key(SIGNATURE)])
    with pytest.raises(NotSigned, match="not signed"):
        drill(night, identity=True)
    # Which says nothing of what is in it.
    assert words(night, oss) == []
    with pytest.raises(NoIdentity):
        drill(night, accept_unsigned=True, sign_it=True)
    drill(night, identity=True, accept_unsigned=True)
    with pytest.raises(NotSigned):
        read_manifest(store, backup, trust_of(night.site))
    drill(night, identity=True, accept_unsigned=True, sign_it=True)
    assert read_manifest(store, backup, trust_of(night.site)) == manifest


def test_two_drills_at_once_are_one_and_nothing_is_said_against_the_backup(
    night: Night, oss: OssServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second removed the first's scratch server, and a good backup was recorded as not restorable."""
    back_up(night)
    said: list[str] = []
    run = PlainRun("restore_drill", night.site)
    monkeypatch.setattr("flows.restore_drill.Protocol.begin", lambda *_: run)
    monkeypatch.setattr("flows.restore_drill.announce", lambda _, event, **__: said.append(event))
    lock = acquire(bucket_of(night, oss), LOCK, "the first one")
    with (
        patch.object(PlainRun, "on", side_effect=AssertionError("a second drill ran")),
        pytest.raises(LockedByAnother, match="the first one"),
    ):
        restore_drill.fn("example", node="node-a")
    lock.release()
    assert said == []
    assert words(night, oss) == []
