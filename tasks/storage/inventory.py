"""What blobs there are: on the node's storage, and in the bucket."""

import json
import struct
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO

from tasks.backup.format.blobs import StoredBlob
from tasks.backup.format.layout import BLOBS, digest_of
from tasks.errors import HarborHaError
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.storage.digests import SIZE, Digests
from tasks.storage.objects import ListedObject
from tasks.storage.on_node import blob_inventory
from tasks.storage.store import ObjectStore

_BLOB_INVENTORY = node_program(blob_inventory)

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
    prefixes = [f"{number:02x}/" for number in range(256)] if expected > _MANY else list("0123456789abcdef")
    with ThreadPoolExecutor(threads, thread_name_prefix="oss-list") as pool:
        waiting: deque[Future[list[ListedObject]]] = deque()
        for prefix in prefixes:
            waiting.append(pool.submit(_list_shard, store, prefix))
            if len(waiting) >= 2 * threads:
                yield from _blobs(waiting.popleft().result())
        while waiting:
            yield from _blobs(waiting.popleft().result())


def _list_shard(store: ObjectStore, prefix: str) -> list[ListedObject]:
    return list(store.list(BLOBS + prefix))


def _blobs(listed: list[ListedObject]) -> Iterator[StoredBlob]:
    for item in listed:
        digest = digest_of(item.key)
        if digest is not None:
            yield StoredBlob(digest, item.size, item.etag)
