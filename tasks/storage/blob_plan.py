"""Which blobs to copy, and in which order. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from tasks.backup.format.blobs import NeededBlob
from tasks.storage.digests import SIZE, Digests, name_of

NAMED_AT_MOST = 1000
_NEVER = 2**63


@dataclass(frozen=True)
class BlobPlan:
    """The blobs that the bucket lacks.

    Attributes:
        packed: raw digests one after the other, in the order of copying: what the database refers to comes
            first, and of that what was pulled most recently.
        referenced: how many of them the database refers to.
        unreferenced: how many it does not.
        missing: needed, but neither at the source nor in the bucket; at most 1,000 names.
        missing_count: how many there are.
        size: bytes of those that the database knows the size of.
    """

    packed: bytes
    referenced: int
    unreferenced: int
    missing: tuple[str, ...]
    missing_count: int
    size: int = 0

    def __len__(self) -> int:
        return len(self.packed) // SIZE

    def batches(self, size: int) -> Iterator[bytes]:
        """Yield packed batches of at most `size` digests."""
        for start in range(0, len(self.packed), size * SIZE):
            yield self.packed[start : start + size * SIZE]


def share_of_plan(packed: bytes) -> BlobPlan:
    """Return the plan of somebody who copies these, in this order, and needs to know no more of them."""
    return BlobPlan(packed, 0, len(packed) // SIZE, (), 0)


def plan_blobs(
    local: Digests,
    remote: Digests,
    referenced: Iterable[NeededBlob] | None = None,
    *,
    unreferenced_too: bool = True,
) -> BlobPlan:
    """Compare three sorted sets, one 256th at a time, so that a million blobs need 200 MB and not a gigabyte.

    Args:
        local: at the source.
        remote: in the bucket.
        referenced: what the database needs, sorted by digest; None when it is not known.
        unreferenced_too: copy also what no artifact refers to (its artifact may have been pushed just now).

    Raises:
        ValueError: `referenced` is not sorted.
    """
    ranked: list[bytes] = []
    rest = bytearray()
    missing: list[str] = []
    missing_count = size = 0
    by_shard = _by_shard(referenced or ())
    group = next(by_shard, None)
    for shard in range(256):
        here, there = set(local.shard(shard)), set(remote.shard(shard))
        todo = here - there
        if group is not None and group[0] == shard:
            for digest, blob in group[1]:
                if digest in todo:
                    todo.discard(digest)
                    size += max(0, blob.size or 0)
                    ranked.append((_NEVER - blob.pulled).to_bytes(8, "big") + digest)
                elif digest not in there and digest not in here:
                    missing_count += 1
                    if len(missing) < NAMED_AT_MOST:
                        missing.append(name_of(digest))
            group = next(by_shard, None)
        if unreferenced_too:
            rest += b"".join(sorted(todo))
    count = len(ranked)
    packed = _packed(ranked)
    packed += rest
    return BlobPlan(bytes(packed), count, len(rest) // SIZE, tuple(missing), missing_count, size)


def _packed(ranked: list[bytes]) -> bytearray:
    """Sort by rank and drop it. Emptied on the way: a million records twice would be 150 MB more."""
    ranked.sort(reverse=True)
    packed = bytearray()
    while ranked:
        packed += ranked.pop()[8:]
    return packed


def _by_shard(blobs: Iterable[NeededBlob]) -> Iterator[tuple[int, Iterator[tuple[bytes, NeededBlob]]]]:
    return groupby(_raw(blobs), key=lambda pair: pair[0][0])


def _raw(blobs: Iterable[NeededBlob]) -> Iterator[tuple[bytes, NeededBlob]]:
    last = b""
    for blob in blobs:
        algorithm, _, digits = blob.digest.partition(":")
        if algorithm != "sha256":
            continue
        digest = bytes.fromhex(digits)
        if digest <= last:
            raise ValueError(f"the list of needed blobs is not sorted: {blob.digest}")
        last = digest
        yield digest, blob
