"""What is known about objects: frozen facts."""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class StoredObject:
    """An object that was written and whose checksum OSS confirmed, or that was read and verified.

    Attributes:
        key: relative to the store's base.
        size: bytes.
        crc64: CRC-64/XZ of the content, as OSS reports it.
        sha256: of the content, hexadecimal.
        etag: capitals; the MD5 unless it was a multipart upload.
        parts: number of parts, 0 for a single put.
    """

    key: str
    size: int
    crc64: int
    sha256: str
    etag: str
    parts: int = 0


@dataclass(frozen=True)
class ObjectFacts:
    """What HEAD says about an object.

    Attributes:
        crc64: None when OSS has none (objects written before 2015).
        modified: Unix time.
    """

    key: str
    size: int
    crc64: int | None
    etag: str
    modified: int


class ListedObject(NamedTuple):
    """One line of a listing; `is_prefix` for a directory of a listing with a delimiter.

    A tuple, because a listing has millions, and a frozen dataclass takes 2.5 times as long to make.
    """

    key: str
    size: int = 0
    etag: str = ""
    modified: str = ""
    is_prefix: bool = False
