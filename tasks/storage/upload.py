"""A stream of unknown length into one object, in parts, with bounded memory, all or nothing."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any, Protocol

import fastcrc

from tasks.storage.buffers import Buffers
from tasks.storage.errors import (
    ContentMismatch,
    ObjectMissing,
    StorageError,
    UploadLost,
    require_crc,
)
from tasks.storage.objects import StoredObject
from tasks.storage.requests import BucketRequests
from tasks.storage.wire import finish

_LOG = logging.getLogger(__name__)
_MIB = 1 << 20
_READ = _MIB

# (part size, how many parts): OSS takes 10,000 parts, and nobody knows how long a dump will be.
# 385 GiB with at most 64 MiB a part, and 500 GiB more for the price of memory.
_GROWTH = ((8 * _MIB, 1000), (16 * _MIB, 2000), (32 * _MIB, 3000), (64 * _MIB, 3000), (512 * _MIB, 1000))

# A stream of known length is one request up to here: a part is another, 2 ms of CPU, and an upload has two more.
ONE_REQUEST = 64 * _MIB

# Parts that are held in memory while they are sent; one more is being read.
_IN_FLIGHT_BYTES = 64 * _MIB


class Readable(Protocol):
    """Anything that gives bytes until there are none."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; empty at the end."""
        ...


class _Running:
    """Size and hashes of what was read so far."""

    def __init__(self) -> None:
        self.size, self.crc64, self.sha256 = 0, 0, hashlib.sha256()

    def add(self, data: memoryview) -> None:
        self.size += len(data)
        self.crc64 = fastcrc.crc64.xz(data, self.crc64)
        self.sha256.update(data)


def part_sizes(total: int | None = None) -> Iterator[int]:
    """Yield the sizes of the parts in order: growing for an unknown length, else just large enough."""
    if total is None:
        for size, count in _GROWTH:
            yield from (size for _ in range(count))
    else:
        size = max(16 * _MIB, -(-total // 9000 // _MIB) * _MIB + _MIB if total > 9000 * 16 * _MIB else 0)
        yield from (size for _ in range(10_000))


class _Held:
    """Content that is in memory already, as a stream."""

    def __init__(self, content: memoryview) -> None:
        self._left = content

    def read(self, size: int = -1, /) -> bytes:
        piece, self._left = self._left[:size], self._left[size:]
        return bytes(piece)


def fill(
    source: Readable, buffer: bytearray, seen: Callable[[memoryview], None] = lambda block: None
) -> memoryview:
    """Read into a buffer until it is full or the stream ends; returns what was read, where it lies.

    Args:
        seen: called with each block when it was read, and is in the caches.
    """
    into = getattr(source, "readinto", None)
    read = 0
    view = memoryview(buffer)
    while read < len(view):
        if into is not None:
            size = into(view[read : read + _READ])
        else:
            block = source.read(min(_READ, len(view) - read))
            size = len(block)
            view[read : read + size] = block
        if not size:
            break
        seen(view[read : read + size])
        read += size
    return view[:read]


def put_stream(
    store: BucketRequests,
    key: str,
    source: Readable,
    *,
    confirm: Callable[[], None] | None = None,
    headers: Mapping[str, str] | None = None,
    forbid_overwrite: bool = False,
    workers: int = 2,
    total: int | None = None,
    expected_sha256: str | None = None,
) -> StoredObject:
    """Store a stream as one object; see `ObjectStore.put_stream`."""

    def check(running: _Running) -> None:
        if confirm is not None:
            confirm()
        _require_sha256(store.where(key), running, expected_sha256)

    if total is not None and total <= ONE_REQUEST and not forbid_overwrite:
        return _put_whole(store, key, source, check, headers or {}, workers, total)
    return _put_parts(store, key, source, check, headers or {}, forbid_overwrite, workers, total)


def _put_whole(
    store: BucketRequests,
    key: str,
    source: Readable,
    check: Callable[[_Running], None],
    headers: Mapping[str, str],
    workers: int,
    total: int,
) -> StoredObject:
    """Send content in one request when all of it is here and right.

    When that request fails, in parts: over a line that breaks again and again not everything has to arrive at once.
    """
    running = _Running()
    # All of one size, or none would fit the next; what is not filled takes no memory.
    buffer = store.buffers.take(ONE_REQUEST)
    content = fill(source, buffer, running.add)
    if len(content) != total or source.read(1):
        raise ContentMismatch(f"Not the {total} bytes came that were announced.", where=store.where(key))
    check(running)
    try:
        stored = store.put_bytes(
            key, content, headers=headers, sha256=running.sha256.hexdigest(), crc64=running.crc64, attempts=1
        )
    except StorageError as error:
        _LOG.info("%s is sent again, in parts: %s", key, error)
        stored = _put_parts(store, key, _Held(content), lambda _: None, headers, False, workers, None)
    store.buffers.give_back(buffer)
    return stored


def _put_parts(
    store: BucketRequests,
    key: str,
    source: Readable,
    check: Callable[[_Running], None],
    headers: Mapping[str, str],
    forbid_overwrite: bool,
    workers: int,
    total: int | None,
) -> StoredObject:
    """Send content while it comes; a stream that is no longer than a part is no upload of parts."""
    running = _Running()
    sizes = part_sizes(total)
    size = next(sizes)
    buffer = store.buffers.take(size)
    first = fill(source, buffer)
    if len(first) < size:
        running.add(first)
        check(running)
        sha256 = running.sha256.hexdigest()
        stored = store.put_bytes(
            key, first, forbid_overwrite=forbid_overwrite, headers=headers, sha256=sha256, crc64=running.crc64
        )
        store.buffers.give_back(buffer)
        return stored
    sent = dict(headers)
    if forbid_overwrite:
        sent["x-oss-forbid-overwrite"] = "true"
    upload_id = store.call(
        lambda bucket, _: bucket.init_multipart_upload(store.full(key), headers=sent), key
    ).upload_id
    try:
        etags = _send_parts(store, key, upload_id, source, buffer, sizes, running, workers)
        check(running)
        result = _complete(store, key, upload_id, etags, running, forbid_overwrite)
    except BaseException:
        _abort_quietly(store, key, upload_id)
        raise
    return result


def _require_sha256(where: str, running: _Running, expected: str | None) -> None:
    if expected is not None and running.sha256.hexdigest() != expected:
        raise ContentMismatch(f"The content has another sha256 than {expected}.", where=where)


def _send_parts(
    store: BucketRequests,
    key: str,
    upload_id: str,
    source: Readable,
    buffer: bytearray,
    sizes: Iterator[int],
    running: _Running,
    workers: int,
) -> list[str]:
    """Send parts until the stream ends and return their ETags; no part is on its way afterwards.

    A part is hashed beside being sent. Who learns at the end that the content is wrong has sent it in vain, and the
    object does not become visible.

    Args:
        buffer: the first part, full.
    """
    parts: list[Future[str]] = []
    part = memoryview(buffer)
    with ThreadPoolExecutor(workers, thread_name_prefix="oss-part") as pool:
        try:
            while part:
                _make_room(parts, min(workers, max(1, _IN_FLIGHT_BYTES // len(part))))
                sending = pool.submit(_send_part, store, key, upload_id, len(parts) + 1, part)
                parts.append(sending)
                running.add(part)
                # Only now, hashed and sent, may another stream have its memory.
                sending.add_done_callback(partial(_give_back, store.buffers, buffer))
                if (size := next(sizes, None)) is None:
                    raise StorageError("The stream is longer than 10,000 parts can hold.", where=key)
                buffer = store.buffers.take(size)
                part = fill(source, buffer)
            store.buffers.give_back(buffer)
            return [future.result() for future in parts]
        except BaseException:
            for future in parts:
                future.cancel()
            raise


def _make_room(parts: list["Future[str]"], limit: int) -> None:
    """Wait until fewer than `limit` parts are on their way; raise what a part that failed raised."""
    busy = [future for future in parts[-64:] if not future.done()]
    while len(busy) >= limit:
        wait(busy, return_when="FIRST_COMPLETED")
        busy = [future for future in busy if not future.done()]
    for future in parts[-64:]:
        if future.done():
            future.result()


def _give_back(buffers: Buffers, buffer: bytearray, _sent: "Future[str]") -> None:
    buffers.give_back(buffer)


def _send_part(store: BucketRequests, key: str, upload_id: str, number: int, part: memoryview) -> str:
    crc = fastcrc.crc64.xz(part)

    def send(bucket: Any, _attempt: int) -> str:
        store.bandwidth.take(len(part))
        result = bucket.upload_part(store.full(key), upload_id, number, part)
        require_crc(crc, result.crc, store.where(key), result.request_id)
        return str(result.etag)

    return store.call(send, key)


def _complete(
    store: BucketRequests,
    key: str,
    upload_id: str,
    etags: list[str],
    running: _Running,
    forbid_overwrite: bool,
) -> StoredObject:
    import oss2

    parts = [oss2.models.PartInfo(number, etag) for number, etag in enumerate(etags, 1)]
    headers = {"x-oss-forbid-overwrite": "true"} if forbid_overwrite else None

    def complete(bucket: Any, _attempt: int) -> tuple[int | None, str]:
        result = finish(bucket.complete_multipart_upload(store.full(key), upload_id, parts, headers=headers))
        return result.crc, result.etag

    try:
        crc, etag = store.call(complete, key)
    except UploadLost:
        # The answer to a completion that worked was lost, and the next attempt finds no upload any more.
        facts = _head_or_none(store, key)
        if facts is None or (facts.size, facts.crc64) != (running.size, running.crc64):
            raise
        crc, etag = facts.crc64, facts.etag
    if crc != running.crc64:
        store.delete_many([key])
        require_crc(running.crc64, crc, store.where(key), "")
    return StoredObject(key, running.size, running.crc64, running.sha256.hexdigest(), etag, len(parts))


def _head_or_none(store: BucketRequests, key: str) -> Any:
    try:
        return store.head(key)
    except ObjectMissing:
        return None


def _abort_quietly(store: BucketRequests, key: str, upload_id: str) -> None:
    """Abort; a failure to abort must not hide why. What is left is removed by the next run."""
    try:
        store.call(lambda bucket, _: bucket.abort_multipart_upload(store.full(key), upload_id), key)
    except UploadLost:
        return
    except StorageError as error:
        _LOG.warning("an unfinished upload of %s stays behind until the next run: %s", key, error)
