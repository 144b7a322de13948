"""Removing: what a backup needs is never removed, and a run that cannot know removes nothing."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.machinery.backup_report import facts_of
from flows.rules.retention import Generations, Verdict, retain
from lab.oss.bucket import set_worm
from lab.oss.server import OssServer
from tasks.backup.format.blobs import BlobFile, indexed_line
from tasks.backup.format.catalogue import list_backups, publish, remove_backup
from tasks.backup.format.layout import (
    BLOB_INDEX,
    HOLD,
    SIGNATURE,
    VERIFIED,
    BackupId,
    blob_key,
    new_backup_id,
)
from tasks.backup.format.manifest import Artifact, Harbor, Manifest, Source
from tasks.backup.night.lock import LockLost
from tasks.backup.night.prune import prune_blobs
from tasks.backup.restore.fetch import ArtifactDamaged
from tasks.storage.errors import ObjectImmutable
from tasks.storage.store import ObjectStore
from tests.unit.local_oss import running_oss
from tests.unit.local_store import TRUST, local_store
from tests.unit.test_backup_images import digest_of, put_blobs

LATER = datetime.now(UTC) + timedelta(days=30)
GRACE = timedelta(days=14)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OssServer]:
    with running_oss(tmp_path / "oss") as running:
        yield running


@pytest.fixture
def store(server: OssServer) -> ObjectStore:
    return local_store(server)


def backup_of(store: ObjectStore, tmp_path: Path, *numbers: int, age: timedelta = timedelta()) -> BackupId:
    """Publish a backup that needs the blobs of these numbers."""
    backup = new_backup_id(datetime.now(UTC) - age)
    blobs = sorted(put_blobs(store, *numbers), key=lambda blob: blob.digest)
    file = BlobFile(tmp_path / f"{backup}.zst")
    file.write(indexed_line(blob) for blob in blobs)
    stored = store.put_bytes(backup.key(BLOB_INDEX), file.path.read_bytes())
    artifact = Artifact(
        BLOB_INDEX,
        "blob-index",
        "",
        stored.size,
        stored.sha256,
        stored.size,
        stored.sha256,
        stored.crc64,
        "zstd",
        "none",
    )
    source = Source("", "primary", 0, "", "", 1, "")
    publish(
        store, Manifest(str(backup), "main", "", "", "", source, Harbor("", "", ""), (), (artifact,)), TRUST
    )
    return backup


def left(store: ObjectStore) -> set[str]:
    from tasks.storage.inventory import bucket_inventory

    return {blob.digest for blob in bucket_inventory(store)}


def test_a_run_whose_lock_is_anothers_by_then_removes_no_blob(store: ObjectStore, tmp_path: Path) -> None:
    """It had read what all backups need; the one that was made while it stood still is not among them."""
    backup_of(store, tmp_path, 1)
    put_blobs(store, 2)
    before = left(store)

    def lost() -> None:
        raise LockLost("taken")

    with pytest.raises(LockLost):
        prune_blobs(store, LATER, GRACE, confirm=True, still_ours=lost)
    assert left(store) == before


def test_only_blobs_that_no_backup_needs_are_removed(store: ObjectStore, tmp_path: Path) -> None:
    backup_of(store, tmp_path, 2, 3)
    backup_of(store, tmp_path, 3, 4)
    orphans = put_blobs(store, 5, 6)
    assert prune_blobs(store, LATER, GRACE, confirm=False) == (2, sum(blob.size for blob in orphans))
    assert len(left(store)) == 5
    assert prune_blobs(store, LATER, GRACE, confirm=True)[0] == 2
    assert len(left(store)) == 3
    assert not left(store) & {blob.digest for blob in orphans}
    assert prune_blobs(store, LATER, GRACE, confirm=True) == (0, 0)


def test_young_blobs_stay_for_the_backup_that_is_being_made(store: ObjectStore) -> None:
    put_blobs(store, 1)
    assert prune_blobs(store, datetime.now(UTC) + timedelta(days=13), GRACE, confirm=True) == (0, 0)


def test_a_damaged_index_stops_the_removal_before_it_begins(store: ObjectStore, tmp_path: Path) -> None:
    put_blobs(store, 1)
    backup_of(store, tmp_path, 2)
    damaged = backup_of(store, tmp_path, 3)
    store.put_bytes(damaged.key(BLOB_INDEX), b"nonsense")
    with pytest.raises(ArtifactDamaged):
        prune_blobs(store, LATER, GRACE, confirm=True)
    assert len(left(store)) == 3


def test_what_is_no_blob_is_left_alone(store: ObjectStore) -> None:
    key = blob_key(digest_of(b"x")) + ".tmp"
    store.put_bytes(key, b"x")
    prune_blobs(store, LATER, GRACE, confirm=True)
    assert store.exists(key)


def verdict_on(store: ObjectStore, backup: BackupId) -> Verdict:
    """What the flow decides with a policy that keeps as little as possible."""
    policy = Generations(0, 0, 0, 0, 1, "UTC")
    verdicts = retain(
        [fact for _, fact in facts_of(store, TRUST)], policy, datetime.now(UTC) + timedelta(days=400)
    )
    (found,) = [verdict for verdict in verdicts if verdict.name == str(backup)]
    return found


def test_a_backup_that_somebody_put_a_hold_beside_stays(store: ObjectStore, tmp_path: Path) -> None:
    old = backup_of(store, tmp_path, 1, age=timedelta(days=2))
    backup_of(store, tmp_path, 2)
    assert not verdict_on(store, old).keep
    store.put_bytes(old.key(HOLD), b"")
    assert verdict_on(store, old).keep
    assert "held" in verdict_on(store, old).reason


@pytest.mark.parametrize("word", ["ok", "failed"])
def test_only_a_drill_that_passed_protects_a_backup(store: ObjectStore, tmp_path: Path, word: str) -> None:
    old = backup_of(store, tmp_path, 1, age=timedelta(days=2))
    backup_of(store, tmp_path, 2)
    store.put_bytes(old.key(f"{VERIFIED}20261122T000000Z-{word}.json"), b"{}")
    assert verdict_on(store, old).keep == (word == "ok")


def test_a_retention_policy_is_told_and_leaves_the_backup_whole(
    server: OssServer, store: ObjectStore, tmp_path: Path
) -> None:
    backup_of(store, tmp_path, 1)
    set_worm(server.store, 30, "Locked")
    (entry,) = list_backups(store)
    with pytest.raises(ObjectImmutable, match="retention policy"):
        remove_backup(store, entry)
    assert list_backups(store) == [entry]
    assert entry.complete


def test_ten_backups_that_somebody_else_made_do_not_push_out_the_real_ones(
    store: ObjectStore, tmp_path: Path
) -> None:
    """They are complete by every mark that a writer of the bucket can make; only the signature is missing."""
    real = backup_of(store, tmp_path, 1, age=timedelta(days=2))
    forged = [backup_of(store, tmp_path, number) for number in (2, 3)]
    assert not verdict_on(store, real).keep
    for backup in forged:
        store.delete_many([backup.key(SIGNATURE)])
    assert verdict_on(store, real).keep
    assert "not signed" in verdict_on(store, forged[0]).reason
