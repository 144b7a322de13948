"""Images as the restored database refers to them: from the NAS, else from the bucket, else named as lost.

No backup's index is asked: a database of two in the afternoon knows images that last night's backup did not.
"""

import heapq
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from blocks import HarborSite
from tasks.backup.format.blobs import (
    BlobFile,
    IndexedBlob,
    NeededBlob,
    StoredBlob,
    indexed_line,
    needed_line,
)
from tasks.backup.format.layout import BLOBS, digest_of
from tasks.backup.night.snapshot import open_snapshot
from tasks.backup.restore.application import as_application
from tasks.backup.restore.restore_blobs import blobs_on_node, bring_blobs
from tasks.backup.restore.whole import images_of
from tasks.backup.server import server_of
from tasks.backup.settings import store_of
from tasks.hosts.connection import Host
from tasks.outcome import Outcome, changed, unchanged
from tasks.postgres.layout import layout_of
from tasks.storage.store import ObjectStore

_TIMEOUT_S = 48 * 3600.0
_NAMED_AT_MOST = 100


@dataclass
class Lost:
    """Blobs that the database refers to and that neither the NAS nor the bucket has.

    Attributes:
        digests: at most 100.
    """

    count: int = 0
    digests: list[str] = field(default_factory=list)

    def add(self, digest: str) -> None:
        """Count one."""
        self.count += 1
        if self.count <= _NAMED_AT_MOST:
            self.digests.append(digest)


def restore_images(
    site: HarborSite,
    host: Host,
    *,
    progress: Callable[[int, int, int, int], None] = lambda done, total, size, of: None,
) -> Outcome:
    """Make every blob present that the restored database refers to, as far as NAS and bucket have it.

    Returns:
        data: `lost`, repositories with tag or digest that cannot be pulled, and `lost_count`, of blobs.
    """
    server, database, store = server_of(layout_of(site)), site.postgres.database, store_of(site)
    lost, present = Lost(), set(blobs_on_node(host, site.nas.registry).items())
    with tempfile.TemporaryDirectory(prefix="harbor-ha-restore-") as work:
        file = BlobFile(Path(work) / "needed.zst")
        with open_snapshot(host, server, database, timeout=_TIMEOUT_S) as snapshot:
            total = file.write(needed_line(blob) for blob in snapshot.blobs() if _counts(blob))
        index = BlobFile(Path(work) / "index.zst")
        found = obtainable(file.needed(), stored_blobs(store), present, lost)
        wanted = index.write(indexed_line(blob) for blob in found)
        size = sum(blob.size for blob in index.indexed())
        result = bring_blobs(
            site,
            host,
            store,
            index,
            timeout=_TIMEOUT_S,
            progress=lambda so_far: progress(*so_far.of(wanted, size)),
        )
    detail = f"{total - lost.count - result.restored} of {total} blobs were there, {result.restored} restored"
    with as_application(site, host) as login:
        names = images_of(host, login, database, [*lost.digests, *result.digests])
    if lost.count:
        detail += (
            f"; {lost.count} are neither on the NAS nor in the bucket: pushed after the last nightly backup"
        )
    detail += result.trouble
    return (changed if result.restored else unchanged)(
        detail, lost=names, lost_count=lost.count + result.damaged_count
    )


def obtainable(
    needed: Iterable[NeededBlob],
    stored: Iterable[StoredBlob],
    present: set[tuple[bytes, int]],
    lost: Lost,
) -> Iterator[IndexedBlob]:
    """Merge what is needed with what the bucket has, both sorted by digest; yields what the bucket can give.

    Args:
        needed: of the database.
        stored: of the bucket.
        present: digest as bytes, and size, of the blobs on the NAS.
        lost: gets what neither has.
    """
    sizes_there = dict(present)
    both = heapq.merge(
        ((blob.digest, 0, blob) for blob in needed),
        ((blob.digest, 1, blob) for blob in stored),
        key=lambda item: item[:2],
    )
    for digest, group in groupby(both, key=lambda item: item[0]):
        items = [item[2] for item in group]
        wish = items[0]
        if not isinstance(wish, NeededBlob):
            continue
        raw = bytes.fromhex(digest.removeprefix("sha256:"))
        kept = items[-1] if isinstance(items[-1], StoredBlob) else None
        # The bucket's blobs were hashed on their way there; the database's size is what somebody once told Harbor.
        size = kept.size if kept is not None else wish.size
        there = sizes_there.get(raw)
        if there is not None and there == (there if size is None else size):
            continue
        if kept is None:
            lost.add(digest)
        else:
            yield IndexedBlob(digest, kept.size, None, kept.etag, "present", wish.pulled)


def stored_blobs(store: ObjectStore) -> Iterator[StoredBlob]:
    """List the blobs in the bucket, sorted by digest."""
    for found in store.list(BLOBS):
        digest = digest_of(found.key)
        if digest is not None:
            yield StoredBlob(digest, found.size, found.etag)


def _counts(blob: NeededBlob) -> bool:
    # A proxy cache fetches again what it lacks; what no artifact refers to, nobody can pull.
    return blob.referenced and not blob.proxied
