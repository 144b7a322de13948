"""Count and hash a stream while somebody else reads it."""

import hashlib
from collections.abc import Callable
from typing import Protocol

_BLOCK = 1 << 20


class Readable(Protocol):
    """Anything that gives bytes until there are none."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; empty at the end."""
        ...


class HashingReader:
    """A stream that knows what was read from it.

    It reads ahead in large blocks: age asks for 8 KiB at a time, and an SSH channel's file copies its whole
    buffer for every read. Size and hash are those of the whole stream once it was read to its end.

    Args:
        source: what is read.
        seen: called with each block's size, a million bytes as a rule.

    Attributes:
        size: bytes read from the source.
        error: what the source raised, kept because age's library reports only its text.
    """

    def __init__(self, source: Readable, seen: Callable[[int], None] = lambda size: None) -> None:
        self._source = source
        self._seen = seen
        self._sha256 = hashlib.sha256()
        self._block = memoryview(b"")
        self.size = 0
        self.error: BaseException | None = None

    def read(self, size: int = -1, /) -> bytes:
        """Give at most `size` bytes, and everything that is left for a negative size."""
        if size < 0:
            return b"".join(iter(lambda: self.read(_BLOCK), b""))
        if not self._block:
            self._refill()
        block, self._block = self._block[:size], self._block[size:]
        return bytes(block)

    def _refill(self) -> None:
        try:
            block = self._source.read(_BLOCK)
        except BaseException as error:
            self.error = error
            raise
        self._sha256.update(block)
        self.size += len(block)
        self._seen(len(block))
        self._block = memoryview(block)

    @property
    def sha256(self) -> str:
        """Hexadecimal, of everything that was read from the source."""
        return self._sha256.hexdigest()
