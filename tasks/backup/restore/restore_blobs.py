"""Images from the bucket back into Harbor's storage on a node, and the links that make them visible."""

import contextlib
import json
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from blocks import HarborSite
from tasks.backup.format.blobs import BlobFile, IndexedBlob
from tasks.backup.format.layout import blob_key
from tasks.backup.format.manifest import Manifest
from tasks.backup.night.links import REGISTRY_ROOT
from tasks.backup.restore.fetch import Origin, deliver, opened, whole
from tasks.backup.restore.on_node import list_blobs, receive_blobs, unpack_links
from tasks.errors import RemoteCommandFailed
from tasks.hosts.connection import Host, RemoteProcess
from tasks.node_program import node_program
from tasks.storage.errors import CrcMismatch, ObjectArchived, ObjectMissing
from tasks.storage.retry import read_again
from tasks.storage.store import ObjectStore

_LIST_BLOBS = node_program(list_blobs)
_RECEIVE_BLOBS = node_program(receive_blobs)
_UNPACK_LINKS = node_program(unpack_links)

_BLOCK = 1 << 20
_DAY = 86400
# Blobs are restored in the order in which they will be missed, without sorting a million of them in memory:
# one pass over the index for each age of the last pull.
_AGES_DAYS = (1, 7, 30, 90, 365)
_NAMED_AT_MOST = 100
_LOOKED_UP_AT_MOST = 10_000


@dataclass
class BlobsRestored:
    """What a restore of blobs did.

    Attributes:
        damaged: digest and reason, at most 100; the others were restored.
        digests: of the damaged ones, as many as a report may name images of.
        archived_count: those among them that only have to be thawed.
        thawing: how many of these OSS is thawing now.
    """

    present: int = 0
    present_bytes: int = 0
    restored: int = 0
    restored_bytes: int = 0
    damaged_count: int = 0
    damaged: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    archived_count: int = 0
    thawing: int = 0

    def of(self, blobs: int, size: int) -> tuple[int, int, int, int]:
        """How far it is, of so many blobs and bytes: done, to be done, bytes done, bytes to be done."""
        done = self.restored + self.damaged_count
        return done, max(done, blobs - self.present), self.restored_bytes, max(0, size - self.present_bytes)

    @property
    def trouble(self) -> str:
        """What was not restored, for the end of a sentence; empty when all was."""
        if not self.damaged_count:
            return ""
        text = f"; {self.damaged_count} could not be: {'; '.join(self.damaged[:5])}"
        if self.archived_count:
            text += (
                f". {self.archived_count} lie in an archive class, {self.thawing} are being thawed now: "
                "run it again in some hours, what is there is not copied again"
            )
        return text


def fetch_index(origin: Origin, manifest: Manifest, path: Path) -> BlobFile:
    """Download the backup's index of blobs to the orchestrator; verified by the manifest's sha256.

    Raises:
        ArtifactDamaged, StorageError.
    """
    partial = path.with_name(path.name + ".partial")

    def fetch() -> None:
        with opened(origin, manifest.artifact("blob-index")) as source, partial.open("wb") as target:
            while block := source.read(_BLOCK):
                target.write(block)

    whole(origin, fetch)
    partial.replace(path)
    return BlobFile(path)


def missed_first(index: BlobFile, now: float) -> Iterator[IndexedBlob]:
    """All blobs of an index that are in the bucket, those first that were pulled most recently.

    Args:
        index: read several times.
        now: Unix time of the backup; ages of pulls count from there.
    """
    limits = [now - days * _DAY for days in _AGES_DAYS]
    newest = float("inf")
    for oldest in [*limits, 0.0, -1.0]:
        for blob in index.indexed():
            if blob.state == "present" and oldest < blob.pulled <= newest:
                yield blob
        newest = oldest


def blobs_on_node(host: Host, registry: str, *, timeout: float = 3600.0) -> dict[bytes, int]:
    """Sizes of the blobs that a node's storage has, by the 32 bytes of their digest: 150 MB for a million.

    Args:
        registry: the storage's directory, for example `/data/nas/registry`.
    """
    program = ["python3", "-c", _LIST_BLOBS, f"{registry}/{REGISTRY_ROOT}", "--sizes"]
    found: dict[bytes, int] = {}
    with host.stream(program, timeout=timeout) as process:
        process.close_stdin()
        for line in process.stdout:
            digest, size = line.decode().split("\t")
            found[bytes.fromhex(digest.removeprefix("sha256:"))] = int(size)
        process.wait()
    return found


def bring_blobs(
    site: HarborSite,
    host: Host,
    store: ObjectStore,
    index: BlobFile,
    *,
    timeout: float,
    progress: Callable[["BlobsRestored"], None],
) -> BlobsRestored:
    """Make every blob of an index present in the site's storage, what is missed first before the others.

    Args:
        site: where its storage is.
        host: a node that has the NAS mounted.
        store: the bucket.
        index: the blobs, as `fetch_index` gives them.
        timeout: seconds for all of it.
        progress: called with what was done so far, from any worker.

    Returns:
        also which ones are lost or damaged in the bucket: that is the misfortune of their images and of no other.

    Raises:
        RemoteCommandFailed, StorageError: see `restore_blobs`.
    """
    blobs = missed_first(index, time.time())
    return restore_blobs(host, store, site.nas.registry, blobs, timeout=timeout, progress=progress)


def restore_blobs(
    host: Host,
    store: ObjectStore,
    registry: str,
    blobs: Iterable[IndexedBlob],
    *,
    workers: int = 4,
    timeout: float,
    progress: Callable[["BlobsRestored"], None] = lambda result: None,
) -> BlobsRestored:
    """Copy blobs that the node lacks from the bucket into its storage, in the order given.

    Each is hashed on the node and renamed into place when it is whole; a damaged one is named and left out.

    Args:
        host: the node.
        store: the bucket.
        registry: the storage's directory on the node.
        blobs: wanted ones, for example from `missed_first`.
        workers: blobs under way at a time.
        timeout: seconds for all of it.
        progress: called with what was done so far, from any worker.

    Raises:
        RemoteCommandFailed: the node's disk is full, or its storage cannot be written.
        StorageError: the bucket does not answer.
    """
    result, present = BlobsRestored(), blobs_on_node(host, registry)
    todo: queue.Queue[IndexedBlob | None] = queue.Queue(maxsize=workers * 4)
    crew = _Crew(host, store, f"{registry}/{REGISTRY_ROOT}", result, todo, timeout, progress)
    threads = [threading.Thread(target=crew.work, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        for blob in blobs:
            if present.get(bytes.fromhex(blob.digest.removeprefix("sha256:"))) == blob.size:
                result.present += 1
                result.present_bytes += blob.size
                continue
            crew.give(blob)
    finally:
        for _ in threads:
            crew.give(None)
        for thread in threads:
            thread.join()
    if crew.error is not None:
        raise crew.error
    return result


class _Crew:
    """Workers that each hold one channel to the node."""

    def __init__(
        self,
        host: Host,
        store: ObjectStore,
        root: str,
        result: BlobsRestored,
        todo: "queue.Queue[IndexedBlob | None]",
        timeout: float,
        progress: Callable[["BlobsRestored"], None],
    ) -> None:
        self._host, self._store, self._root, self._result = host, store, root, result
        self._todo, self._timeout, self._progress = todo, timeout, progress
        self._lock = threading.Lock()
        self.error: BaseException | None = None

    def give(self, blob: IndexedBlob | None) -> None:
        """Hand over the next blob, or the end; stops waiting when the crew has failed."""
        while self.error is None:
            with contextlib.suppress(queue.Full):
                self._todo.put(blob, timeout=0.2)
                return
        if blob is not None:
            raise self.error

    def work(self) -> None:
        """One worker's life."""
        program = ["python3", "-c", _RECEIVE_BLOBS, self._root]
        try:
            with self._host.stream(program, timeout=self._timeout) as process:
                while (blob := self._next()) is not None:
                    self._count(blob, self._send(process, blob))
                process.close_stdin()
                process.stdout.read()
                process.wait()
        except BaseException as error:
            self.error = self.error or error

    def _next(self) -> IndexedBlob | None:
        while self.error is None:
            with contextlib.suppress(queue.Empty):
                return self._todo.get(timeout=0.2)
        return None

    def _send(self, process: RemoteProcess, blob: IndexedBlob) -> str:
        """Send one blob; returns what is wrong with it, or nothing.

        One that is lost or damaged in the bucket is its own misfortune and not that of the others.
        """
        try:
            return read_again(lambda: self._send_once(process, blob), self._store.patience)
        except ObjectArchived as error:
            thawing = self._store.thaw(blob_key(blob.digest))
            with self._lock:
                self._result.archived_count += 1
                self._result.thawing += thawing
            return "it is being thawed" if thawing else str(error)
        except (CrcMismatch, ObjectMissing) as error:
            return str(error)

    def _send_once(self, process: RemoteProcess, blob: IndexedBlob) -> str:
        damage: CrcMismatch | None = None
        with contextlib.closing(self._store.get_stream(blob_key(blob.digest))) as source:
            if source.size != blob.size:
                return f"it has {source.size} bytes in the bucket, {blob.size} when it was backed up"
            left = blob.size
            try:
                process.stdin.write((json.dumps({"digest": blob.digest, "size": blob.size}) + "\n").encode())
                try:
                    while block := source.read(_BLOCK):
                        process.stdin.write(block)
                        left -= len(block)
                except CrcMismatch as error:
                    # The length was promised. The receiver's hash refuses zeros in place of the last block.
                    damage = error
                    process.stdin.write(bytes(left))
                process.stdin.flush()
                answer = process.stdout.readline()
            except OSError:
                process.wait()
                raise
        if not answer:
            process.wait()
            raise RemoteCommandFailed("receive_blobs", self._host.name, -1, "it ended without an answer")
        problem = str(json.loads(answer)["problem"])
        if problem and damage is not None:
            raise damage
        return problem

    def _count(self, blob: IndexedBlob, problem: str) -> None:
        with self._lock:
            if problem:
                self._result.damaged_count += 1
                if len(self._result.digests) < _LOOKED_UP_AT_MOST:
                    self._result.digests.append(blob.digest)
                if len(self._result.damaged) < _NAMED_AT_MOST:
                    self._result.damaged.append(f"{blob.digest}: {problem}")
            else:
                self._result.restored += 1
                self._result.restored_bytes += blob.size
            self._progress(self._result)


def restore_links(
    host: Host, origin: Origin, manifest: Manifest, registry: str, *, timeout: float = 6 * 3600.0
) -> None:
    """Unpack the links of a backup into the node's storage.

    Existing links are replaced by equal ones, so that an empty one of a killed run does not stay. Not for a
    storage that lives on: there, links are newer than the backup.

    Raises:
        ArtifactDamaged, DecryptionFailed: it is not what was backed up; what was unpacked must not be used.
    """
    program = ["python3", "-c", _UNPACK_LINKS, registry, REGISTRY_ROOT]
    deliver(host, origin, manifest.artifact("links"), program, timeout=timeout)
