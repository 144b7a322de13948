"""What blobs there are: on the node's storage, and in the bucket."""

import json
import struct
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import BinaryIO, TypeVar

from tasks.backup.format.blobs import StoredBlob
from tasks.backup.format.layout import BLOBS, digest_of
from tasks.errors import HarborHaError
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.storage.digests import SIZE, Digests
from tasks.storage.on_node import blob_inventory
from tasks.storage.store import ObjectStore

_BLOB_INVENTORY = node_program(blob_inventory)

T = TypeVar("T")

# Below this many blobs 16 listings are enough; 256 would be mostly empty pages.
_MANY = 50_000


class InventoryFailed(HarborHaError):
    """The list of blobs on the node's storage could not be read to its end."""


@dataclass(frozen=True)
class LocalBlobs:
    """The blobs of the registry's storage.

    Attributes:
        strays: how many names in the blob directories are no digests; Harbor never makes such names.
        sample: up to 20 of them.
    """

    digests: Digests
    strays: int
    sample: tuple[str, ...]


def blob_root(nas_path: str) -> str:
    """The directory of the blobs on every node, as in the bucket."""
    return f"{nas_path.rstrip('/')}/{BLOBS.rstrip('/')}"


def node_inventory(host: Host, nas_path: str, *, timeout: float = 1800.0) -> LocalBlobs:
    """Name all blobs on the NAS.

    Args:
        host: a node that has the NAS mounted.
        nas_path: its mount point; the registry's data is below `registry/`.
        timeout: seconds.

    Raises:
        RemoteCommandFailed: the NAS is not mounted, or cannot be listed. Never an empty inventory instead.
        InventoryFailed: the answer is not whole.
    """
    given = {"registry": f"{nas_path.rstrip('/')}/registry", "blobs": blob_root(nas_path)}
    with host.stream(["python3", "-c", _BLOB_INVENTORY], timeout=timeout) as process:
        process.stdin.write(json.dumps(given).encode())
        process.close_stdin()
        digests = Digests()
        for shard in range(256):
            head = process.stdout.read(4)
            if len(head) < 4:
                process.wait()  # it says why
                raise InventoryFailed("The list of blobs ended too early.", where=host.name)
            (count,) = struct.unpack(">I", head)
            digests.add_sorted(shard, _exactly(process.stdout, count * SIZE, host.name))
        end = json.loads(process.stdout.readline())
        process.wait()
    return LocalBlobs(digests, end["strays"], tuple(end["sample"]))


def _exactly(source: BinaryIO, size: int, where: str) -> bytes:
    content = source.read(size)
    if len(content) != size:
        raise InventoryFailed("The list of blobs ended too early.", where=where)
    return content


def bucket_inventory(store: ObjectStore, *, expected: int = 0, threads: int = 8) -> Iterator[StoredBlob]:
    """Yield the bucket's blobs in the order of their digests, listed by hexadecimal prefix in threads.

    Args:
        store: the site's store.
        expected: about how many there may be, e.g. the number at the source; decides on 16 or 256 listings.
        threads: listings at a time; at most twice as many are held in memory.
    """
    for listed in _listings(store, _stored, expected, threads):
        yield from listed


def bucket_digests(store: ObjectStore, *, expected: int = 0, threads: int = 8) -> Digests:
    """Return the digests of the bucket's blobs and nothing else of them; see `bucket_inventory`."""
    digests = Digests()
    for listed in _listings(store, _packed, expected, threads):
        for shard, packed in listed:
            digests.add_sorted(shard, packed)
    return digests


def _listings(
    store: ObjectStore, read: Callable[[ObjectStore, str], T], expected: int, threads: int
) -> Iterator[T]:
    """Yield what `read` makes of each listing; it does so in its thread, so that no line is held until its turn."""
    prefixes = [f"{number:02x}/" for number in range(256)] if expected > _MANY else list("0123456789abcdef")
    with ThreadPoolExecutor(threads, thread_name_prefix="oss-list") as pool:
        waiting: deque[Future[T]] = deque()
        for prefix in prefixes:
            waiting.append(pool.submit(read, store, BLOBS + prefix))
            if len(waiting) >= 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _stored(store: ObjectStore, prefix: str) -> list[StoredBlob]:
    return [
        StoredBlob(digest, item.size, item.etag)
        for item in store.list(prefix)
        if (digest := digest_of(item.key)) is not None
    ]


def _packed(store: ObjectStore, prefix: str) -> list[tuple[int, bytes]]:
    names = (digest_of(item.key) for item in store.list(prefix))
    raw = (bytes.fromhex(name.removeprefix("sha256:")) for name in names if name is not None)
    return [(shard, b"".join(digests)) for shard, digests in groupby(raw, key=itemgetter(0))]
