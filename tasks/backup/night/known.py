"""Blobs that this run uploaded, kept small and given back in order: 90 bytes each, not an object each."""

import heapq
import struct
import threading
from collections.abc import Iterable, Iterator
from operator import attrgetter

from tasks.backup.format.blobs import IndexedBlob, KnownBlob

_RECORD = struct.Struct(">32sQQ40s")


class Uploaded:
    """Collects blobs in any order, from one thread at a time, and yields them sorted by digest."""

    def __init__(self) -> None:
        self._shards = [bytearray() for _ in range(256)]
        self._lock = threading.Lock()
        self.count = 0

    def add(self, blob: KnownBlob) -> None:
        """Keep one."""
        digest = bytes.fromhex(blob.digest.removeprefix("sha256:"))
        record = _RECORD.pack(digest, blob.size, blob.crc64, blob.etag.encode())
        with self._lock:
            self._shards[digest[0]] += record
            self.count += 1

    def __iter__(self) -> Iterator[KnownBlob]:
        for shard in self._shards:
            # A blob that was sent twice counts as what was sent last.
            newest = {record[0]: record for record in _RECORD.iter_unpack(bytes(shard))}
            for digest, size, crc64, etag in sorted(newest.values()):
                yield KnownBlob(f"sha256:{digest.hex()}", size, crc64, etag.rstrip(b"\0").decode())


def known_of(index: Iterable[IndexedBlob]) -> Iterator[KnownBlob]:
    """The blobs of an earlier index whose checksum is known."""
    for blob in index:
        if blob.state == "present" and blob.crc64 is not None:
            yield KnownBlob(blob.digest, blob.size, blob.crc64, blob.etag)


def newest_of(newer: Iterable[KnownBlob], older: Iterable[KnownBlob]) -> Iterator[KnownBlob]:
    """Merge two sorted streams; where both know a blob, the newer one counts."""
    last = ""
    # Of two that are alike, merge yields that of the first stream first.
    for blob in heapq.merge(newer, older, key=attrgetter("digest")):
        if blob.digest != last:
            yield blob
        last = blob.digest
