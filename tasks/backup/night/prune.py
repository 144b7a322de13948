"""Remove backups, and blobs that no backup needs any more. Both only when they were asked for by name."""

import heapq
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path

from tasks.backup.format.blobs import IndexedBlob
from tasks.backup.format.catalogue import Entry, list_backups, read_manifest
from tasks.backup.format.layout import BLOB_INDEX, BLOBS, digest_of
from tasks.backup.format.signature import ANYONE
from tasks.backup.restore.fetch import Origin
from tasks.backup.restore.restore_blobs import fetch_index
from tasks.storage.objects import ListedObject
from tasks.storage.store import ObjectStore

_BATCH = 1000


def referenced(store: ObjectStore, work: Path) -> Iterator[str]:
    """Every digest that any complete backup needs, sorted, once each.

    Args:
        store: the bucket.
        work: directory for the indexes, which are merged, not held.

    Raises:
        ManifestUnreadable, ArtifactDamaged: an index cannot be read. Then nobody knows what is not needed.
    """
    indexes = []
    for number, entry in enumerate(list_backups(store)):
        if entry.complete and BLOB_INDEX in entry.names:
            manifest = read_manifest(store, entry.backup, ANYONE)
            origin = Origin(store, entry.backup, [])
            indexes.append(fetch_index(origin, manifest, work / f"{number}.zst").indexed())
    last = ""
    for blob in heapq.merge(*indexes, key=_by_digest):
        if blob.digest != last:
            yield blob.digest
        last = blob.digest


def _by_digest(blob: IndexedBlob) -> str:
    return blob.digest


def unneeded(
    listing: Iterable[ListedObject], needed: Iterable[str], now: datetime, grace: timedelta
) -> Iterator[ListedObject]:
    """Objects among the blobs that no backup needs and that are older than the grace period.

    Args:
        listing: of the blobs, in the order of keys.
        needed: sorted digests.
        now: with a time zone.
        grace: what is younger may belong to a backup that is being made, or to the next.
    """
    wanted = iter(needed)
    head = next(wanted, None)
    for item in listing:
        digest = digest_of(item.key)
        if digest is None:
            continue
        while head is not None and head < digest:
            head = next(wanted, None)
        if head != digest and now - modified_at(item) > grace:
            yield item


def modified_at(item: ListedObject) -> datetime:
    """When an object of a listing was written; raises ValueError for a time that nobody can read."""
    return datetime.fromisoformat(item.modified.replace("Z", "+00:00"))


def prune_blobs(
    store: ObjectStore,
    now: datetime,
    grace: timedelta,
    *,
    confirm: bool,
    told: Callable[[int, int], None] = lambda count, size: None,
    still_ours: Callable[[], object] = lambda: None,
) -> tuple[int, int]:
    """Find, and when confirmed remove, blobs that no backup needs.

    Args:
        store: the bucket; the caller holds the lock of backups.
        now: with a time zone.
        grace: see `unneeded`.
        confirm: remove them.
        told: called with count and bytes so far.
        still_ours: called before each removal; raises when the lock is another's: the next backup, which needs what
            no backup needed, may have been made meanwhile.

    Returns:
        How many there are, and their bytes.
    """
    count = size = 0
    batch: list[str] = []
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harbor-ha-prune-")))
        # All indexes are read before the first removal: a damaged one at the end must stop us at the start.
        needed = work / "needed"
        with needed.open("w") as target:
            target.writelines(f"{digest}\n" for digest in referenced(store, work))
        lines = stack.enter_context(needed.open())
        for item in unneeded(store.list(BLOBS), (line.rstrip("\n") for line in lines), now, grace):
            count, size = count + 1, size + item.size
            batch.append(item.key)
            if confirm and len(batch) >= _BATCH:
                still_ours()
                store.delete_many(batch)
                batch.clear()
                told(count, size)
    if confirm and batch:
        still_ours()
        store.delete_many(batch)
    return count, size


def entries_named(entries: Iterable[Entry], names: Iterable[str]) -> list[Entry]:
    """The entries with these ids."""
    wanted = set(names)
    return [entry for entry in entries if str(entry.backup) in wanted]
