"""Frames of a byte stream, and a limit on the bytes that wait between two stages."""

import threading
from typing import BinaryIO

from tasks.errors import RemoteConnectionLost

_BLOCK = 1 << 20


class FrameReader:
    """Cuts a stream into pieces of known size.

    It reads in blocks of 1 MiB: an SSH channel's file copies its whole buffer for each read, however small.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._block = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Return exactly `size` bytes, fewer only at the end of the stream."""
        if len(self._block) >= size:
            piece, self._block = self._block[:size], self._block[size:]
            return bytes(piece)
        pieces = bytearray()
        while len(pieces) < size and (some := self.some(size - len(pieces))):
            pieces += some
        return bytes(pieces)

    def exactly(self, size: int) -> bytes:
        """Return exactly `size` bytes; raises RemoteConnectionLost at the end of the stream."""
        content = self.read(size)
        if len(content) != size:
            raise RemoteConnectionLost("The stream from the node ended in the middle of a blob.")
        return content

    def some(self, size: int) -> bytes:
        """Return between 1 and `size` bytes, none at the end."""
        if not self._block:
            self._block = memoryview(self._source.read(_BLOCK))
        piece, self._block = self._block[:size], self._block[size:]
        return bytes(piece)

    def into(self, view: memoryview) -> int:
        """Read between 1 and `len(view)` bytes to where they are needed; returns how many, 0 at the end."""
        if not self._block and (straight := getattr(self._source, "readinto", None)) is not None:
            return int(straight(view))
        piece = self.some(len(view))
        view[: len(piece)] = piece
        return len(piece)

    def limited(self, size: int) -> "LimitedReader":
        """Return the next `size` bytes as a stream of their own."""
        return LimitedReader(self, size)


class LimitedReader:
    """One frame as a stream."""

    def __init__(self, frames: FrameReader, size: int) -> None:
        self._frames, self._left = frames, size

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes; raises RemoteConnectionLost when the stream ends inside the frame."""
        wanted = self._left if size < 0 else min(size, self._left)
        if wanted == 0:
            return b""
        piece = self._frames.some(wanted)
        self._took(len(piece))
        return piece

    def readinto(self, view: memoryview, /) -> int:
        """Read to where the bytes are needed; returns how many, 0 at the frame's end. Raises as `read`."""
        if self._left == 0:
            return 0
        size = self._frames.into(view[: self._left])
        self._took(size)
        return size

    def _took(self, size: int) -> None:
        if not size:
            raise RemoteConnectionLost("The stream from the node ended in the middle of a blob.")
        self._left -= size


class Memory:
    """So many bytes may wait; who brings more waits itself."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._changed = threading.Condition()

    def take(self, size: int) -> None:
        """Wait until there is room."""
        with self._changed:
            self._changed.wait_for(lambda: self._free >= size)
            self._free -= size

    def give_back(self, size: int) -> None:
        """Make room."""
        with self._changed:
            self._free += size
            self._changed.notify_all()
