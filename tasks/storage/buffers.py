"""Memory of parts that were sent, for the next: new memory costs up to 0.7 s of CPU a GB, sha256 0.8."""

import threading

# What nobody uses at the moment is kept up to here, and one piece of any size.
_SPARE_BYTES = 128 << 20


class Buffers:
    """Pieces of memory that go round, among all streams of a store; safe to use from many threads."""

    def __init__(self) -> None:
        self._spare: list[bytearray] = []
        self._lock = threading.Lock()

    def take(self, size: int) -> bytearray:
        """Give a piece of this size; what was there before is in it."""
        with self._lock:
            # The last one first: it is still in the caches.
            for index in reversed(range(len(self._spare))):
                if len(self._spare[index]) == size:
                    return self._spare.pop(index)
        return bytearray(size)

    def give_back(self, buffer: bytearray) -> None:
        """Take a piece that nobody reads or fills any more: it may be somebody else's at once."""
        with self._lock:
            self._spare.append(buffer)
            while len(self._spare) > 1 and sum(map(len, self._spare)) > _SPARE_BYTES:
                del self._spare[0]

    def clear(self) -> None:
        """Let go what nobody uses at the moment."""
        with self._lock:
            self._spare.clear()
