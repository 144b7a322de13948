"""Copy blobs from a node's storage into the bucket: streamed over SSH, hashed on the way, in parallel.

Every lane reads frames of many blobs from one program on the node. Small blobs go to a shared pool of
uploaders; a large one is sent by the lane itself, in parts. Nothing is kept on disk, and what is in memory is
bounded by bytes, not by blobs. The state of an interrupted copy is the bucket itself.
"""

import hashlib
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from tasks.backup.format.blobs import KnownBlob
from tasks.backup.format.layout import blob_key
from tasks.errors import HarborHaError, RemoteConnectionLost
from tasks.hosts.connection import Host, RemoteProcess
from tasks.node_program import node_program
from tasks.storage.blob_plan import BlobPlan
from tasks.storage.digests import SIZE, name_of
from tasks.storage.errors import ContentMismatch
from tasks.storage.frames import FrameReader, Memory
from tasks.storage.objects import StoredObject
from tasks.storage.on_node import blob_producer
from tasks.storage.store import ObjectStore
from tasks.storage.upload import ONE_REQUEST

_BLOB_PRODUCER = node_program(blob_producer)

# One put up to here; above, parts. Larger would let a few blobs fill the memory that many share.
_SMALL = 4 << 20
_MEMORY = 32 << 20
# What large blobs may take beside that: those that are one request are in memory as a whole.
_LARGE_MEMORY = 128 << 20
# What a waiting blob costs beside its content: manifests are so small that a million could wait otherwise.
_OVERHEAD = 8 << 10
# Calls to the bucket at a time, of a process that does nothing but copy: its uploaders and the parts of its readers.
THREADS = 24
# So many blobs a program on the node: its start costs 50 ms, and it reads the whole list before it begins.
_BATCH = 2000


@dataclass(frozen=True)
class Lanes:
    """How wide a copy is.

    Attributes:
        readers: programs on the node at a time.
        uploaders: small blobs that are sent at a time.
        part_workers: parts of one large blob that are sent at a time.
    """

    readers: int = 3
    uploaders: int = 12
    part_workers: int = 2


@dataclass(frozen=True)
class CopyResult:
    """What a copy did.

    Attributes:
        copied: blobs that are in the bucket now and were not before.
        copied_bytes: their size.
        left: not tried, because the time was up.
        corrupt: content is not what the name says; not copied.
        vanished: listed, but without content when it was their turn: removed by garbage collection.
        unreadable: digest and the node's reason.
    """

    copied: int
    copied_bytes: int
    left: int
    corrupt: tuple[str, ...]
    vanished: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]


@dataclass
class _Tally:
    """Counters of a running copy, shared by its threads."""

    on_stored: Callable[[KnownBlob], None]
    lock: threading.Lock = field(default_factory=threading.Lock)
    copied: int = 0
    copied_bytes: int = 0
    tried: int = 0
    corrupt: list[str] = field(default_factory=list)
    vanished: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    failure: BaseException | None = None

    def stored(self, digest: bytes, stored: StoredObject) -> None:
        with self.lock:
            self.copied += 1
            self.copied_bytes += stored.size
            self.on_stored(KnownBlob(name_of(digest), stored.size, stored.crc64, stored.etag))

    def note(self, kind: list[str], digest: bytes) -> None:
        with self.lock:
            kind.append(name_of(digest))

    def fail(self, error: BaseException) -> None:
        with self.lock:
            self.failure = self.failure or error


def copy_blobs(
    host: Host,
    blob_root: str,
    store: ObjectStore,
    plan: BlobPlan,
    *,
    on_stored: Callable[[KnownBlob], None] = lambda blob: None,
    deadline: float | None = None,
    lanes: Lanes | None = None,
    timeout: float = 86_400.0,
) -> CopyResult:
    """Copy the planned blobs.

    Args:
        host: a node that sees the storage.
        blob_root: the directory of the blobs on it, see `inventory.blob_root`.
        store: where to; its bandwidth limit holds for all threads.
        plan: what, in which order.
        on_stored: called for every blob that arrived, by one thread at a time.
        deadline: `time.monotonic()` after which no further blob is begun; the next run goes on.
        lanes: how wide.
        timeout: seconds that one batch may take on the node.

    Raises:
        StorageError: OSS cannot be used, after retries.
        RemoteCommandFailed, HostUnreachable…: the node cannot be used. What was copied stays.
    """
    lanes = lanes or Lanes()
    tally = _Tally(on_stored)
    batches = _Batches(plan.batches(min(_BATCH, max(16, -(-len(plan) // lanes.readers)))))
    memory, large = Memory(_MEMORY), Memory(_LARGE_MEMORY)
    with (
        ThreadPoolExecutor(lanes.uploaders, thread_name_prefix="blob-put") as uploaders,
        ThreadPoolExecutor(lanes.readers, thread_name_prefix="blob-read") as readers,
    ):
        run = _Run(host, blob_root, store, tally, batches, memory, large, uploaders, deadline, lanes, timeout)
        wait([readers.submit(run.lane) for _ in range(lanes.readers)])
    store.buffers.clear()
    if tally.failure is not None:
        raise tally.failure
    return CopyResult(
        tally.copied,
        tally.copied_bytes,
        len(plan) - tally.tried,
        tuple(sorted(tally.corrupt)),
        tuple(sorted(tally.vanished)),
        tuple(sorted(tally.unreadable)),
    )


class _Batches:
    """Batches of digests, given out to several threads."""

    def __init__(self, batches: Iterator[bytes]) -> None:
        self._batches, self._lock = batches, threading.Lock()

    def take(self) -> bytes | None:
        with self._lock:
            return next(self._batches, None)


@dataclass(frozen=True)
class _Run:
    """One copy: its ends, its limits, its counters."""

    host: Host
    blob_root: str
    store: ObjectStore
    tally: _Tally
    batches: _Batches
    memory: Memory
    large: Memory
    uploaders: ThreadPoolExecutor
    deadline: float | None
    lanes: Lanes
    timeout: float

    def over(self) -> bool:
        """Whether no further blob may be begun."""
        late = self.deadline is not None and time.monotonic() >= self.deadline
        return late or self.tally.failure is not None

    def lane(self) -> None:
        """Copy batches until there are none, the time is up, or something failed."""
        try:
            while not self.over() and (batch := self.batches.take()) is not None:
                self._copy_batch(batch)
        except BaseException as error:
            self.tally.fail(error)

    def _copy_batch(self, batch: bytes) -> None:
        # It needs nothing but Python's own library; looking for what else is installed is most of its start.
        argv = ["python3", "-IS", "-c", _BLOB_PRODUCER]
        with self.host.stream(argv, timeout=self.timeout) as process:
            process.stdin.write(json.dumps({"blobs": self.blob_root}).encode() + b"\n" + batch)
            process.close_stdin()
            frames = FrameReader(process.stdout)
            for start in range(0, len(batch), SIZE):
                if self.over():
                    return  # leaving closes the channel, and the program on the node ends
                self._copy_next(frames, process, batch[start : start + SIZE])
            process.wait()

    def _copy_next(self, frames: FrameReader, process: RemoteProcess, expected: bytes) -> None:
        head = frames.read(SIZE + 8)
        if len(head) < SIZE + 8:
            process.wait()  # it says why
            raise RemoteConnectionLost("The node stopped sending blobs.", where=self.host.name)
        digest, (size,) = head[:SIZE], struct.unpack(">Q", head[SIZE:])
        if digest != expected:
            raise HarborHaError("The node sent another blob than the one asked for.", where=self.host.name)
        with self.tally.lock:
            self.tally.tried += 1
        if size == blob_producer.NO_BLOB:
            self.tally.note(self.tally.vanished, digest)
        elif size == blob_producer.UNREADABLE:
            (length,) = struct.unpack(">I", frames.read(4))
            reason = frames.read(length).decode(errors="replace")
            with self.tally.lock:
                self.tally.unreadable.append((name_of(digest), reason))
        elif size <= _SMALL:
            self._hand_over(digest, frames.exactly(size))
        else:
            self._send_large(digest, size, frames)

    def _hand_over(self, digest: bytes, content: bytes) -> None:
        cost = len(content) + _OVERHEAD
        self.memory.take(cost)
        try:
            self.uploaders.submit(self._send_small, digest, content, cost)
        except BaseException:
            self.memory.give_back(cost)
            raise

    def _send_small(self, digest: bytes, content: bytes, cost: int) -> None:
        try:
            if self.tally.failure is not None:
                return
            if hashlib.sha256(content).digest() != digest:
                self.tally.note(self.tally.corrupt, digest)
                return
            stored = self.store.put_bytes(blob_key(name_of(digest)), content, sha256=digest.hex())
            self.tally.stored(digest, stored)
        except BaseException as error:
            self.tally.fail(error)
        finally:
            self.memory.give_back(cost)

    def _send_large(self, digest: bytes, size: int, frames: FrameReader) -> None:
        cost = min(size, ONE_REQUEST)
        self.large.take(cost)
        try:
            stored = self.store.put_stream(
                blob_key(name_of(digest)),
                frames.limited(size),
                total=size,
                expected_sha256=digest.hex(),
                workers=self.lanes.part_workers,
            )
        except ContentMismatch:
            self.tally.note(self.tally.corrupt, digest)
        else:
            self.tally.stored(digest, stored)
        finally:
            self.large.give_back(cost)
