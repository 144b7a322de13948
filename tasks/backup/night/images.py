"""Images of a backup: what the bucket lacks is copied, within the site's bandwidth and time."""

import time
from collections.abc import Callable
from pathlib import Path

from blocks import HarborSite
from tasks.backup.format.blobs import BlobFile, IndexedBlob, KnownBlob, indexed_line
from tasks.backup.night.known import Uploaded
from tasks.backup.settings import store_of
from tasks.hosts.connection import Host
from tasks.outcome import Outcome, changed, unchanged
from tasks.storage.blob_plan import BlobPlan, plan_blobs
from tasks.storage.blob_processes import copy_in_processes, processes_for
from tasks.storage.blobs import CopyResult, copy_blobs
from tasks.storage.inventory import blob_root, bucket_digests, node_inventory
from tasks.storage.store import ObjectStore

NEEDED, UPLOADED, PREVIOUS, INDEX = "needed.zst", "uploaded.zst", "previous.zst", "index.zst"
_NAMED_AT_MOST = 100


def copy_images(
    site: HarborSite,
    host: Host,
    *,
    work: str,
    again: list[str] | None = None,
    progress: Callable[[int, int, int, int], None] = lambda done, total, size, of: None,
) -> Outcome:
    """Copy every blob that the NAS has and the bucket lacks; what the database needs comes first.

    Args:
        site: its NAS, bucket, bandwidth and time budget.
        host: a node with the NAS mounted.
        work: directory on the orchestrator with the list of needed blobs of this run.
        again: digests to send although the bucket has something under their name.
        progress: called with blobs done, blobs planned, bytes done and bytes planned, as far as these are known, now
            and then.

    Returns:
        data: counts, and what could not be copied; the copied ones are listed in `work`.
    """
    needed, store = BlobFile(Path(work) / NEEDED), store_of(site)
    local = node_inventory(host, site.nas.path)
    remote = bucket_digests(store, expected=len(local.digests))
    plan = plan_blobs(local.digests, remote, needed.needed())
    if again:
        packed = b"".join(bytes.fromhex(digest.removeprefix("sha256:")) for digest in again)
        plan = BlobPlan(
            packed + plan.packed, plan.referenced + len(again), plan.unreferenced, (), 0, plan.size
        )
    uploaded = _earlier(Path(work) / UPLOADED)
    meter = _Meter(uploaded, progress, len(plan), plan.size)
    budget = site.backup.time_budget_s
    deadline = None if budget is None else time.monotonic() + budget
    try:
        result = _copy(site, host, store, plan, meter.stored, deadline)
    finally:
        # Also of an attempt that broke off: the next one does not send them again, and the closure must know them.
        BlobFile(Path(work) / UPLOADED).write(indexed_line(_indexed(blob)) for blob in uploaded)
    data = {
        "planned": len(plan),
        "copied": result.copied,
        "copied_bytes": result.copied_bytes,
        "left": result.left,
        "corrupt": list(result.corrupt),
        "vanished_count": len(result.vanished),
        "unreadable": [f"{digest}: {reason}" for digest, reason in result.unreadable[:_NAMED_AT_MOST]],
        "strays": local.strays,
        "at_source": len(local.digests),
        "in_bucket": len(remote),
    }
    detail = _describe(result, len(local.digests))
    return changed(detail, **data) if result.copied else unchanged(detail, **data)


def _copy(
    site: HarborSite,
    host: Host,
    store: ObjectStore,
    plan: BlobPlan,
    stored: Callable[[KnownBlob], None],
    deadline: float | None,
) -> CopyResult:
    """Copy here, or in processes of their own when there is enough to do."""
    root = blob_root(site.nas.path)
    node = next((node for node in site.nodes if node.name == host.name), None)
    processes = processes_for(len(plan), plan.size)
    if node is None or site.oss is None or processes == 1:
        return copy_blobs(host, root, store, plan, on_stored=stored, deadline=deadline)
    limit = site.backup.traffic_limit_bytes_s
    return copy_in_processes(
        host,
        node,
        site.oss,
        site.name,
        root,
        plan,
        processes=processes,
        bytes_per_s=limit,
        on_stored=stored,
        deadline=deadline,
    )


class _Meter:
    """Passes what was stored on to the list and, twice a second at most, to the progress."""

    def __init__(
        self, uploaded: Uploaded, progress: Callable[[int, int, int, int], None], total: int, size: int
    ) -> None:
        self._uploaded, self._progress, self._total, self._size = uploaded, progress, total, size
        self._count = self._bytes = 0
        self._next = 0.0

    def stored(self, blob: KnownBlob) -> None:
        self._uploaded.add(blob)
        self._count, self._bytes = self._count + 1, self._bytes + blob.size
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + 0.5
            self._progress(self._count, self._total, self._bytes, self._size)


def _earlier(path: Path) -> Uploaded:
    """What an earlier round of the same run uploaded."""
    uploaded = Uploaded()
    if path.exists():
        for blob in BlobFile(path).indexed():
            uploaded.add(KnownBlob(blob.digest, blob.size, blob.crc64 or 0, blob.etag))
    return uploaded


def _indexed(blob: KnownBlob) -> IndexedBlob:
    return IndexedBlob(blob.digest, blob.size, blob.crc64, blob.etag, "present", 0)


def _describe(result: CopyResult, at_source: int) -> str:
    text = f"{result.copied:,} of {at_source:,} blobs copied, {result.copied_bytes:,} bytes"
    notes = [
        (result.left, "left for the next night"),
        (len(result.corrupt), "whose content is not what their name says"),
        (len(result.unreadable), "that cannot be read"),
        (len(result.vanished), "gone before their turn"),
    ]
    return ", ".join([text, *(f"{count} {note}" for count, note in notes if count)])
