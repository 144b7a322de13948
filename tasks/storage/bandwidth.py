"""One limit for many threads: a bucket of tokens that fills at the permitted rate."""

import threading
import time
from collections.abc import Callable


class Bandwidth:
    """Bytes per second, shared by all threads of a run.

    Args:
        bytes_per_s: the limit; None is no limit.
        clock: seconds, monotonic; tests replace it.
        sleep: how to wait; tests replace it.
    """

    def __init__(
        self,
        bytes_per_s: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = bytes_per_s
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = clock()

    def take(self, size: int) -> None:
        """Wait until `size` more bytes may be sent.

        A reservation: each caller is given the next free stretch of time, so that a thread with a large
        part is not starved by many with small ones. At most one second of unused rate is kept.
        """
        if self._rate is None:
            return
        with self._lock:
            now = self._clock()
            start = max(self._free_at, now - 1.0)
            self._free_at = start + size / self._rate
            wait = self._free_at - now
        if wait > 0:
            self._sleep(wait)


UNLIMITED = Bandwidth(None)
