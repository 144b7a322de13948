"""Blobs as the database, the bucket and our own index know them, and the files that list them."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import zstandard

from tasks.errors import HarborHaError

# Tuples: a million of each are made in a night, and a frozen dataclass takes 2.5 times as long to make.


class NeededBlob(NamedTuple):
    """A blob as the dumped database knows it.

    Attributes:
        size: bytes; None where only a reference and no `blob` row exists.
        proxied: only artifacts of proxy-cache projects refer to it; those may never have fetched it.
        referenced: an artifact refers to it; what none refers to is garbage that nobody collected yet.
        pulled: Unix time of the last pull of an artifact that uses it, 0 when never.
    """

    digest: str
    size: int | None
    content_type: str = ""
    status: str = ""
    proxied: bool = False
    referenced: bool = True
    pulled: int = 0


class StoredBlob(NamedTuple):
    """A blob as the bucket's listing knows it."""

    digest: str
    size: int
    etag: str = ""


class KnownBlob(NamedTuple):
    """A blob as it was when its content was hashed on the way into the bucket."""

    digest: str
    size: int
    crc64: int
    etag: str = ""


class IndexedBlob(NamedTuple):
    """One line of a backup's index of blobs.

    Attributes:
        state: `present`, or `missing_at_source`.
        crc64: None where it was never learned.
        pulled: Unix time of the last pull, for the order of a restore.
    """

    digest: str
    size: int
    crc64: int | None
    etag: str
    state: str
    pulled: int


class BlobListDamaged(HarborHaError):
    """A list of blobs does not hold what was written into it."""


T = TypeVar("T")
_LINES_AT_A_TIME = 1000
_BLOCK = 1 << 18


def needed_line(blob: NeededBlob) -> str:
    """One tab-separated line, without its end."""
    size = "" if blob.size is None else str(blob.size)
    flags = f"{blob.proxied:d}\t{blob.referenced:d}"
    return "\t".join((blob.digest, size, blob.content_type, blob.status, flags, str(blob.pulled)))


def parse_needed(line: str) -> NeededBlob:
    """Read what `needed_line`, or the query of a snapshot, wrote; raises ValueError."""
    digest, size, content_type, status, proxied, referenced, pulled = line.split("\t")
    known = int(size) if size else None
    return NeededBlob(digest, known, content_type, status, proxied == "1", referenced == "1", int(pulled))


def indexed_line(blob: IndexedBlob) -> str:
    """One tab-separated line, without its end."""
    crc = "" if blob.crc64 is None else str(blob.crc64)
    return "\t".join((blob.digest, str(blob.size), crc, blob.etag, blob.state, str(blob.pulled)))


def parse_indexed(line: str) -> IndexedBlob:
    """Read what `indexed_line` wrote; raises ValueError."""
    digest, size, crc, etag, state, pulled = line.split("\t")
    return IndexedBlob(digest, int(size), int(crc) if crc else None, etag, state, int(pulled))


@dataclass(frozen=True)
class BlobFile:
    """A compressed list on the orchestrator's disk: a million digests do not belong into memory."""

    path: Path

    def write(self, lines: Iterable[str]) -> int:
        """Write all lines and return how many there were; the file exists only when all were written."""
        partial = self.path.with_name(self.path.name + ".partial")
        count = 0
        with partial.open("wb") as target, zstandard.ZstdCompressor(level=3).stream_writer(target) as packed:
            rest = iter(lines)
            # A call of the compressor for every line costs more than the compression.
            while block := list(islice(rest, _LINES_AT_A_TIME)):
                packed.write(("\n".join(block) + "\n").encode())
                count += len(block)
        partial.replace(self.path)
        return count

    def count(self) -> int:
        """How many lines there are; much faster than reading them."""
        with self.path.open("rb") as source, zstandard.ZstdDecompressor().stream_reader(source) as plain:
            return sum(block.count(b"\n") for block in iter(lambda: plain.read(_BLOCK), b""))

    def needed(self) -> Iterator[NeededBlob]:
        """Read a list of needed blobs; raises BlobListDamaged."""
        return self._read(parse_needed)

    def indexed(self) -> Iterator[IndexedBlob]:
        """Read an index; raises BlobListDamaged."""
        return self._read(parse_indexed)

    def _read(self, parse: Callable[[str], T]) -> Iterator[T]:
        with self.path.open("rb") as source:
            yield from _parsed(source, parse, str(self.path.name))


def read_index(source: BinaryIO, where: str) -> Iterator[IndexedBlob]:
    """Read a compressed index from any stream; raises BlobListDamaged."""
    return _parsed(source, parse_indexed, where)


def _parsed(source: BinaryIO, parse: Callable[[str], T], where: str) -> Iterator[T]:
    try:
        with contextlib.closing(zstandard.ZstdDecompressor().stream_reader(source)) as plain:
            rest = b""
            while block := plain.read(_BLOCK):
                whole, end, rest = (rest + block).rpartition(b"\n")
                if end:
                    # A readline of io's for each of a million lines costs more than all the rest.
                    yield from map(parse, whole.decode().split("\n"))
            if rest:
                yield parse(rest.decode())
    except (ValueError, zstandard.ZstdError) as error:
        raise BlobListDamaged(f"The list of blobs is damaged: {error}.", where=where) from None
