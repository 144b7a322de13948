"""The bytes of objects and parts on disk, streamed, with their checksums computed on the way."""

import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.oss.catalog import Segment
from lab.oss.crc64 import crc64

BLOCK = 256 * 1024


@dataclass(frozen=True)
class Written:
    """A file that was just written: its name, size, MD5 (raw) and CRC-64."""

    file: str
    size: int
    md5: bytes
    crc: int

    @property
    def etag(self) -> str:
        """The MD5 as OSS writes it, in capitals."""
        return self.md5.hex().upper()


class Disk:
    """A directory of immutable files with random names, spread over 256 directories."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for number in range(256):
            (root / f"{number:02x}").mkdir(parents=True, exist_ok=True)

    def write(self, blocks: Iterable[bytes]) -> Written:
        """Store blocks as a new file; nothing stays behind when the source fails."""
        name = secrets.token_hex(12)
        path = self._path(name)
        md5, crc, size = hashlib.md5(), 0, 0
        try:
            with open(path, "xb", buffering=0) as file:
                for block in blocks:
                    file.write(block)
                    md5.update(block)
                    crc = crc64(block, crc)
                    size += len(block)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Written(name, size, md5.digest(), crc)

    def read(self, segments: Iterable[Segment], start: int, length: int) -> Iterator[bytes]:
        """Yield `length` bytes from offset `start` of the segments put together."""
        for segment in segments:
            if length <= 0:
                return
            if start >= segment.size:
                start -= segment.size
                continue
            with open(self._path(segment.file), "rb", buffering=0) as file:
                file.seek(start)
                left = min(segment.size - start, length)
                length -= left
                start = 0
                while left > 0:
                    block = file.read(min(left, BLOCK))
                    if not block:
                        raise OSError(f"segment {segment.file} is shorter than the catalog says")
                    left -= len(block)
                    yield block

    def flip(self, segments: Iterable[Segment], offset: int) -> None:
        """Damage one byte at rest, as a disk would: the catalog's checksums stay."""
        for segment in segments:
            if offset < segment.size:
                with open(self._path(segment.file), "r+b") as file:
                    file.seek(offset)
                    byte = file.read(1)[0]
                    file.seek(offset)
                    file.write(bytes([byte ^ 0xFF]))
                return
            offset -= segment.size
        raise ValueError("the offset is behind the end of the object")

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; missing ones are no error."""
        for name in names:
            self._path(name).unlink(missing_ok=True)

    def sweep(self, needed: Iterable[str]) -> int:
        """Remove files that nothing refers to (a server killed in a write leaves them); return how many."""
        keep = set(needed)
        lost = [
            entry.name
            for number in range(256)
            for entry in os.scandir(self.root / f"{number:02x}")
            if entry.name not in keep
        ]
        self.remove(lost)
        return len(lost)

    def _path(self, name: str) -> Path:
        return self.root / name[:2] / name
