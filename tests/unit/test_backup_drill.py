"""The drill: a good backup is proven, and each kind of damage is named."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.backup.drill.invariants import broken_invariants
from tasks.backup.drill.rehearsal import blob_problem, record, run_drill, sample
from tasks.backup.format.blobs import BlobFile, IndexedBlob, indexed_line
from tasks.backup.format.catalogue import find_backup, list_backups
from tasks.backup.format.layout import COMPLETE, blob_key
from tasks.backup.server import Server, query
from tasks.storage.store import ObjectStore
from tests.unit.local_oss import running_oss
from tests.unit.local_postgres import programs, running_postgres
from tests.unit.local_store import local_store
from tests.unit.test_backup_images import digest_of
from tests.unit.test_backup_round_trip import HOST, back_up, origin

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(programs() is None, reason="no PostgreSQL server is installed"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_postgres() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ObjectStore]:
    with running_oss(tmp_path / "oss") as running:
        yield local_store(running)


def scratch_directory(server: Server) -> str:
    return f"{server.sockets}/drill"


def test_a_database_is_restored_counted_and_thrown_away(store: ObjectStore, server: Server) -> None:
    manifest = back_up(store, server)
    result = run_drill(HOST, server.programs, origin(store, manifest), scratch_directory(server))
    # A backup of this test has no configuration archive, and that is what the drill says; nothing else.
    assert [text.split(":")[0] for text in result.findings] == ["configuration"]
    assert result.restored_rows == sum(manifest.databases[0].tables.values())
    assert not Path(scratch_directory(server)).exists()


def test_remains_of_a_killed_drill_are_stopped_and_removed(store: ObjectStore, server: Server) -> None:
    manifest = back_up(store, server)
    remains = Path(scratch_directory(server)) / "data"
    remains.mkdir(parents=True)
    (remains / "postmaster.pid").write_text("1\n")
    result = run_drill(HOST, server.programs, origin(store, manifest), scratch_directory(server))
    assert result.restored_tables


def test_a_damaged_dump_is_named(store: ObjectStore, server: Server) -> None:
    manifest = back_up(store, server)
    name = manifest.artifact("database").name
    store.put_bytes(find_backup(store, "latest").key(name), b"nonsense")
    result = run_drill(HOST, server.programs, origin(store, manifest), scratch_directory(server))
    assert any(name in finding for finding in result.findings)


def test_a_backup_without_its_marker_is_not_drilled(store: ObjectStore, server: Server) -> None:
    manifest = back_up(store, server)
    source = origin(store, manifest)
    store.delete_many([source.backup.key(COMPLETE)])
    result = run_drill(HOST, server.programs, source, scratch_directory(server))
    assert len(result.findings) == 1
    assert "never completed" in result.findings[0]


def test_the_result_is_written_next_to_the_backup(store: ObjectStore, server: Server) -> None:
    manifest = back_up(store, server)
    source = origin(store, manifest)
    result = run_drill(HOST, server.programs, source, scratch_directory(server))
    result.findings.clear()
    record(store, source.backup, result)
    (entry,) = list_backups(store)
    assert entry.verified[0].endswith("-ok.json")
    assert json.loads(store.get_bytes(source.backup.key(entry.verified[0])))["restored_rows"]


def test_data_that_contradicts_itself_is_named(server: Server) -> None:
    query(HOST, server, "registry", "INSERT INTO artifact (project_id, digest) VALUES (1, 'sha256:none');")
    try:
        broken = broken_invariants(HOST, server, "registry")
    finally:
        query(HOST, server, "registry", "DELETE FROM artifact WHERE digest = 'sha256:none';")
    assert any("belongs to a repository (1 times)" in text for text in broken)
    assert any("known blob (1 times)" in text for text in broken)
    assert broken_invariants(HOST, server, "registry") == []


def indexed(number: int, size: int = 10) -> IndexedBlob:
    return IndexedBlob(digest_of(b"%d" % number), size, 1, "", "present", 0)


def test_the_sample_changes_with_the_week_and_keeps_its_limits() -> None:
    index = [indexed(number) for number in range(1000)]
    first, again, next_week = (
        sample(index, "2026-10", 50),
        sample(index, "2026-10", 50),
        sample(index, "2026-11", 50),
    )
    assert first == again
    assert len(first) == 50
    assert len({b.digest for b in first} & {b.digest for b in next_week}) < 20
    assert len(sample(index, "2026-10", 50, size=35)) == 3
    assert len(sample([indexed(1, size=100)], "2026-10", 50, size=35)) == 1


def test_every_blob_has_its_turn(tmp_path: Path) -> None:
    index = [indexed(number) for number in range(100)]
    seen = {blob.digest for week in range(60) for blob in sample(index, f"2026-{week}", 10)}
    assert len(seen) > 95


def test_a_blob_that_was_exchanged_is_named(store: ObjectStore) -> None:
    blob = indexed(1)
    assert "does not exist" in blob_problem(store, blob)
    store.put_bytes(blob_key(blob.digest), b"other")
    assert "hashes to" in blob_problem(store, blob)
    store.put_bytes(blob_key(blob.digest), b"1")
    assert blob_problem(store, blob) == ""


def test_an_index_is_read_as_it_was_written(tmp_path: Path) -> None:
    blobs = sorted((indexed(number) for number in range(10)), key=lambda blob: blob.digest)
    file = BlobFile(tmp_path / "index.zst")
    file.write(indexed_line(blob) for blob in blobs)
    assert list(file.indexed()) == blobs
