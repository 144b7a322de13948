"""A real database into the bucket and back: dump, encrypt, publish, verify, restore, compare."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyrage
import pytest

from blocks import OssBucket
from lab.oss.server import OssServer
from tasks.backup.format.blobs import BlobFile
from tasks.backup.format.catalogue import (
    NoBackup,
    find_backup,
    list_backups,
    publish,
    read_manifest,
    remove_backup,
)
from tasks.backup.format.encryption import DecryptionFailed
from tasks.backup.format.layout import COMPLETE, MANIFEST, BackupId, new_backup_id
from tasks.backup.format.manifest import Harbor, Manifest, ManifestUnreadable
from tasks.backup.night.database import databases_to_dump, dump_database, dump_globals, source_of
from tasks.backup.night.stored import Destination
from tasks.backup.restore.fetch import ArtifactDamaged, Origin, opened
from tasks.backup.restore.restore_database import (
    RestoredDatabase,
    RestoreDiffers,
    restore_database,
)
from tasks.backup.server import Server, query
from tasks.backup.tools import find_tools
from tasks.errors import Refused, RemoteCommandFailed
from tasks.storage.errors import ObjectExists
from tasks.storage.store import ObjectStore, open_store
from tests.unit.local_host import local_host
from tests.unit.local_oss import ACCESS_KEY_ID, ACCESS_KEY_SECRET, BUCKET, REGION, running_oss
from tests.unit.local_postgres import programs, running_postgres
from tests.unit.local_store import TRUST

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(programs() is None, reason="no PostgreSQL server is installed"),
]
HOST = local_host()
IDENTITY = pyrage.x25519.Identity.generate()
STARTED = datetime(2026, 11, 22, 1, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_postgres() as running:
        rows = "SELECT 'sha256:' || encode(sha256(n::text::bytea), 'hex'), n FROM generate_series(1, 20000) n"
        query(HOST, running, "registry", f"INSERT INTO blob (digest, size) {rows};")
        yield running


@pytest.fixture
def oss(tmp_path: Path) -> Iterator[OssServer]:
    with running_oss(tmp_path / "oss") as running:
        yield running


@pytest.fixture
def store(oss: OssServer) -> ObjectStore:
    settings = OssBucket(
        endpoint=oss.endpoint,
        region=REGION,
        bucket=BUCKET,
        access_key_id=ACCESS_KEY_ID,
        access_key_secret=ACCESS_KEY_SECRET,
    )
    return open_store(settings, "main")


def back_up(store: ObjectStore, server: Server, blobs: BlobFile | None = None) -> Manifest:
    backup = new_backup_id(STARTED)
    to = Destination(store, backup, [IDENTITY.to_public()])
    names = databases_to_dump(HOST, server, "registry")
    dumped = [dump_database(HOST, server, name, to, blobs=blobs, timeout=60) for name in names]
    manifest = Manifest(
        backup_id=str(backup),
        site="main",
        started_at=STARTED.isoformat(),
        finished_at=STARTED.isoformat(),
        tool="test",
        source=source_of("local", dumped, find_tools(HOST, server), "the only one"),
        harbor=Harbor("2.9.5", "harbor.example.com", "x"),
        databases=tuple(dump.entry for dump in dumped),
        artifacts=(*(dump.artifact for dump in dumped), dump_globals(HOST, server, to)),
    )
    publish(store, manifest, TRUST)
    return manifest


def origin(store: ObjectStore, manifest: Manifest) -> Origin:
    return Origin(store, find_backup(store, manifest.backup_id), [IDENTITY], TRUST)


def restore(store: ObjectStore, server: Server, manifest: Manifest) -> RestoredDatabase:
    """Restore the backup's one database on a server."""
    return restore_database(
        HOST,
        server,
        origin(store, manifest),
        manifest,
        "registry",
        owner="harbor",
        work_directory=f"{server.sockets}/restore",
        timeout=60,
    )


def drop(server: Server, database: str = "registry") -> None:
    query(HOST, server, "postgres", 'DROP DATABASE IF EXISTS :"v0" WITH (FORCE);', values=[database])


@pytest.fixture(scope="module")
def bare_server() -> Iterator[Server]:
    with running_postgres("CREATE ROLE harbor LOGIN;") as running:
        yield running


@pytest.fixture
def second(bare_server: Server) -> Server:
    """Another, empty server, to restore on."""
    drop(bare_server)
    return bare_server


def test_a_database_comes_back_with_every_row(
    store: ObjectStore, server: Server, second: Server, tmp_path: Path
) -> None:
    blobs = BlobFile(tmp_path / "blobs.tsv.zst")
    made = back_up(store, server, blobs)
    manifest = read_manifest(store, find_backup(store, "latest"), TRUST)
    assert manifest == made
    assert manifest.database("registry").tables["public.blob"] == 20000
    listed = list(blobs.needed())
    assert len(listed) == 20000
    assert listed == sorted(listed, key=lambda blob: blob.digest)
    result = restore(store, second, manifest)
    assert result.changed
    assert result.rows == sum(manifest.database("registry").tables.values())
    rows = query(
        HOST, second, "registry", "SELECT sum(size), md5(string_agg(digest, '' ORDER BY digest)) FROM blob"
    )
    assert rows == query(
        HOST, server, "registry", "SELECT sum(size), md5(string_agg(digest, '' ORDER BY digest)) FROM blob"
    )
    assert query(HOST, second, "registry", "SELECT tableowner FROM pg_tables WHERE tablename='blob'") == [
        ["harbor"]
    ]
    assert not Path(f"{second.sockets}/restore").exists()
    again = restore(store, second, manifest)
    assert not again.changed


def test_what_lies_in_the_bucket_shows_nothing_to_who_has_no_identity(
    store: ObjectStore, server: Server
) -> None:
    manifest = back_up(store, server)
    backup = find_backup(store, "latest")
    roles = b"secret-of-a-role", b"SCRAM-SHA-256", b"CREATE ROLE", b"PGDMP"
    for artifact in manifest.artifacts:
        stored = store.get_bytes(backup.key(artifact.name))
        assert stored.startswith(b"age-encryption.org/v1")
        assert not any(word in stored for word in roles)
        assert hashlib.sha256(stored).hexdigest() == artifact.sha256
    with opened(Origin(store, backup, [IDENTITY]), manifest.artifact("globals")) as plain:
        assert b"CREATE ROLE harbor" in plain.read()


def test_a_database_that_lives_already_is_never_loaded_over(store: ObjectStore, server: Server) -> None:
    manifest = back_up(store, server)
    with pytest.raises(Refused, match="not empty"):
        restore(store, server, manifest)
    assert query(HOST, server, "registry", "SELECT count(*) FROM blob") == [["20000"]]


def test_an_empty_database_of_the_name_is_replaced(
    store: ObjectStore, server: Server, second: Server
) -> None:
    manifest = back_up(store, server)
    query(HOST, second, "postgres", "CREATE DATABASE registry OWNER harbor;")
    query(HOST, second, "postgres", "CREATE DATABASE harbor_ha_restoring;")
    assert restore(store, second, manifest).changed


def test_a_manifest_that_promises_other_rows_is_found_and_nothing_is_put_in_place(
    store: ObjectStore, server: Server, second: Server
) -> None:
    manifest = back_up(store, server)
    lying = replace(manifest.databases[0], tables={**manifest.databases[0].tables, "public.blob": 19999})
    with pytest.raises(RestoreDiffers, match=r"public\.blob has 20000 rows, 19999 expected"):
        restore(store, second, replace(manifest, databases=(lying,)))
    assert ["registry"] not in query(HOST, second, "postgres", "SELECT datname FROM pg_database")


def test_a_dump_that_was_exchanged_is_found_before_it_is_used(
    store: ObjectStore, server: Server, second: Server
) -> None:
    manifest = back_up(store, server)
    backup = find_backup(store, "latest")
    dump = manifest.artifact("database")
    good = store.get_bytes(backup.key(dump.name))
    for bad in (good[:-1], good[: len(good) // 2], good[:5000] + bytes([good[5000] ^ 1]) + good[5001:]):
        store.put_bytes(backup.key(dump.name), bad)
        with pytest.raises((ArtifactDamaged, DecryptionFailed), match=r"registry\.dump"):
            restore(store, second, manifest)
    store.put_bytes(backup.key(dump.name), pyrage.encrypt(b"another dump", [IDENTITY.to_public()]))
    with pytest.raises(ArtifactDamaged), opened(origin(store, manifest), dump):
        pass
    assert ["registry"] not in query(HOST, second, "postgres", "SELECT datname FROM pg_database")


def test_a_dump_that_fails_leaves_no_object(store: ObjectStore, server: Server) -> None:
    backup = new_backup_id(STARTED)
    to = Destination(store, backup, [IDENTITY.to_public()])
    with pytest.raises(RemoteCommandFailed, match="nothere"):
        dump_database(HOST, server, "nothere", to, timeout=60)
    assert list(store.list()) == []


def test_a_dump_whose_connection_is_killed_in_the_middle_leaves_no_object(
    store: ObjectStore, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.backup.night import database
    from tasks.backup.tools import Command

    half = Command(("bash", "-o", "pipefail", "-c", "(head -c 20000000 /dev/urandom; exit 3) | cat"), "none")
    monkeypatch.setattr(database, "dump_command", lambda *_: half)
    to = Destination(store, new_backup_id(STARTED), [IDENTITY.to_public()])
    with pytest.raises(RemoteCommandFailed):
        dump_database(HOST, server, "registry", to, timeout=60)
    assert list(store.list()) == []
    assert store.abort_stale_uploads(older_than_s=-3600) == 0


def test_without_a_marker_there_is_no_backup(store: ObjectStore, server: Server) -> None:
    back_up(store, server)
    backup = find_backup(store, "latest")
    store.delete_many([backup.key(COMPLETE)])
    with pytest.raises(NoBackup):
        find_backup(store, "latest")
    with pytest.raises(NoBackup, match="never completed"):
        read_manifest(store, backup, TRUST)


def test_a_manifest_that_was_changed_afterwards_is_not_believed(store: ObjectStore, server: Server) -> None:
    back_up(store, server)
    backup = find_backup(store, "latest")
    raw = json.loads(store.get_bytes(backup.key(MANIFEST)))
    raw["warnings"] = []
    store.put_bytes(backup.key(MANIFEST), json.dumps(raw).encode())
    with pytest.raises(ManifestUnreadable, match="completion marker"):
        read_manifest(store, backup, TRUST)


def test_a_backup_is_published_once(store: ObjectStore, server: Server) -> None:
    manifest = back_up(store, server)
    with pytest.raises(ObjectExists):
        publish(store, replace(manifest, warnings=("another",)), TRUST)


def test_a_removal_that_is_killed_never_leaves_something_that_looks_complete(
    store: ObjectStore, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(store, server)
    (entry,) = list_backups(store)
    real, calls = store.delete_many, []

    def dies_after_the_first(keys: list[str]) -> int:
        calls.append(keys)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return real(keys)

    monkeypatch.setattr(store, "delete_many", dies_after_the_first)
    with pytest.raises(KeyboardInterrupt):
        remove_backup(store, entry)
    (left,) = list_backups(store)
    assert not left.complete
    assert left.backup == BackupId(entry.backup.started, entry.backup.token)
    monkeypatch.undo()
    remove_backup(store, left)
    assert list_backups(store) == []
