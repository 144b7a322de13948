"""Memory of parts that were sent, for the next: new memory costs up to 0.7 s of CPU a GB, sha256 0.8."""

import threading

# What nobody uses at the moment is kept up to here, and one piece of any size.
_SPARE_BYTES = 64 << 20


class Buffers:
    """Pieces of memory that go round, among all streams of a store; safe to use from many threads."""

    def __init__(self) -> None:
        self._spare: list[bytearray] = []
        self._lock = threading.Lock()

    def take(self, size: int) -> bytearray:
        """Give a piece of this size; what was there before is in it. Spare ones of other sizes are let go."""
        with self._lock:
            while self._spare:
                if len(buffer := self._spare.pop()) == size:
                    return buffer
        return bytearray(size)

    def give_back(self, buffer: bytearray) -> None:
        """Take a piece that nobody reads or fills any more: it may be somebody else's at once."""
        with self._lock:
            held = sum(map(len, self._spare))
            if not self._spare or held + len(buffer) <= _SPARE_BYTES:
                self._spare.append(buffer)
