"""A million sha256 digests in 32 MB: raw, sorted, in 256 pieces by their first byte."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

SIZE = 32


class _Rows(Sequence[bytes]):
    """A buffer seen as a sorted sequence of digests, for bisect."""

    def __init__(self, buffer: bytes | bytearray) -> None:
        self._buffer = buffer

    def __len__(self) -> int:
        return len(self._buffer) // SIZE

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]
        if index >= len(self):
            raise IndexError(index)  # iteration ends by it
        return bytes(self._buffer[index * SIZE : (index + 1) * SIZE])


class Digests:
    """A set of raw digests. Filled in sorted order, read by shard or in order."""

    def __init__(self) -> None:
        self._shards = [bytearray() for _ in range(256)]

    def add_sorted(self, shard: int, packed: bytes) -> None:
        """Append packed digests that all begin with the byte `shard` and sort after what is there."""
        self._shards[shard] += packed

    def shard(self, first_byte: int) -> list[bytes]:
        """Return the digests that begin with this byte, sorted."""
        packed = bytes(self._shards[first_byte])
        return [packed[start : start + SIZE] for start in range(0, len(packed), SIZE)]

    def __len__(self) -> int:
        return sum(len(shard) for shard in self._shards) // SIZE

    def __iter__(self) -> Iterator[bytes]:
        for number in range(256):
            yield from self.shard(number)

    def __contains__(self, digest: object) -> bool:
        if not isinstance(digest, bytes) or len(digest) != SIZE:
            return False
        rows = _Rows(self._shards[digest[0]])
        place = bisect_left(rows, digest)
        return place < len(rows) and rows[place] == digest


def digests_of(names: Iterable[str]) -> Digests:
    """Return the set of `sha256:…` names, which must come sorted; others than sha256 are left out."""
    result = Digests()
    for name in names:
        algorithm, _, digits = name.partition(":")
        if algorithm == "sha256":
            raw = bytes.fromhex(digits)
            result.add_sorted(raw[0], raw)
    return result


def name_of(digest: bytes) -> str:
    """Return a raw digest as Harbor writes it."""
    return f"sha256:{digest.hex()}"
