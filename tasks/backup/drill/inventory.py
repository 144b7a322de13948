"""Whether everything of a backup lies in the bucket as it was stored; nothing of it needs to be decrypted for that."""

import heapq
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, islice

from tasks.backup.drill.result import DrillResult
from tasks.backup.format.blobs import BlobFile, IndexedBlob
from tasks.backup.format.layout import BLOBS, blob_key, digest_of
from tasks.backup.format.manifest import Manifest
from tasks.backup.restore.fetch import Origin
from tasks.storage.errors import ObjectMissing
from tasks.storage.objects import ListedObject
from tasks.storage.store import ObjectStore

_NAMED_AT_MOST = 20
_THREADS = 16
# Asked one by one: at a thousand a second, this is what a weekly drill can spend on it.
_CRCS_AT_MOST = 50_000


def check_objects(origin: Origin, manifest: Manifest, result: DrillResult) -> None:
    """Compare size and checksum of every object that the manifest names with what OSS has."""
    for artifact in manifest.artifacts:
        key = origin.backup.key(artifact.name)
        try:
            found = origin.store.head(key)
        except ObjectMissing:
            result.findings.append(f"objects: {key} does not exist")
            continue
        result.crcs_checked += 1
        if (found.size, found.crc64) != (artifact.size, artifact.crc64):
            result.findings.append(
                f"objects: {key} is not what was stored: {found.size} bytes, {artifact.size} then"
            )


def check_blobs(store: ObjectStore, index: BlobFile, result: DrillResult) -> None:
    """Compare every blob of a backup with the bucket's listing, and the checksums of as many as can be asked for.

    An object with the ETag that it was stored with is the very one whose content was hashed on its way.
    """
    wrong = 0
    for problem in _differences(index.indexed(), store.list(BLOBS), result):
        wrong += 1
        if wrong <= _NAMED_AT_MOST:
            result.findings.append(problem)
    if wrong > _NAMED_AT_MOST:
        result.findings.append(f"and {wrong - _NAMED_AT_MOST} more blobs")
    _check_crcs(store, index, result)


def _differences(
    index: Iterator[IndexedBlob], listing: Iterator[ListedObject], result: DrillResult
) -> Iterator[str]:
    wanted = ((blob.digest, 0, blob) for blob in index if blob.state == "present")
    found = ((name, 1, item) for item in listing if (name := digest_of(item.key)) is not None)
    for digest, group in groupby(
        heapq.merge(wanted, found, key=lambda pair: pair[:2]), key=lambda pair: pair[0]
    ):
        items = [pair[2] for pair in group]
        blob, stored = items[0], items[-1]
        if not isinstance(blob, IndexedBlob):
            continue
        if not isinstance(stored, ListedObject):
            yield f"blob {digest}: it is not in the bucket"
        elif stored.size != blob.size or (blob.etag and stored.etag != blob.etag):
            yield f"blob {digest}: another object lies in the bucket than the one that was stored"
        else:
            result.blobs_listed += 1


def _check_crcs(store: ObjectStore, index: BlobFile, result: DrillResult) -> None:
    known = (blob for blob in index.indexed() if blob.state == "present" and blob.crc64 is not None)

    def problem(blob: IndexedBlob) -> str | None:
        try:
            return (
                None
                if store.head(blob_key(blob.digest)).crc64 == blob.crc64
                else "its checksum is another one"
            )
        except ObjectMissing:
            return ""  # told already

    checked = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        # A page at a time: a map over all would hold a million futures.
        wanted = islice(known, _CRCS_AT_MOST)
        while page := list(islice(wanted, 1000)):
            for blob, text in zip(page, pool.map(problem, page), strict=True):
                checked += 1
                if text and not any(blob.digest in finding for finding in result.findings):
                    result.findings.append(f"blob {blob.digest}: {text}")
    result.crcs_checked += checked
    left = sum(1 for _ in known)
    if left:
        result.not_proven.append(
            f"the checksums of {left:,} more blobs, one by one; their ETags are as they were"
        )
