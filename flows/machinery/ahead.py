"""A look that begins at its time, whatever the flow waits for meanwhile."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from flows.machinery.protocol import Protocol
from flows.machinery.sight import describe_suspect
from tasks.observation.look import SiteLook
from tasks.operation.witnesses import Witnesses

Seen = TypeVar("Seen")


class Ahead(Generic[Seen]):
    """A look in a thread of its own, which begins later than it is asked for.

    A failover that waits for the answers of a machine that is silent, or writes its record, would begin it afterwards.

    Args:
        look: the look; it must end by itself, or the thread stays for ever.
        after_s: seconds from now to its beginning.

    Attributes:
        begins_at: the moment, by the monotonic clock.
    """

    def __init__(self, look: Callable[[], Seen], after_s: float) -> None:
        self.begins_at = time.monotonic() + after_s
        self._look = look
        self._after_s = after_s
        self._seen: list[Seen] = []
        self._error: Exception | None = None
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="the next look")
        self._thread.start()

    def take(self) -> Seen:
        """Wait for its end and return what was seen; raises what the look has raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._seen[0]

    def leave(self) -> None:
        """Do without it: it does not begin any more, and nobody waits for one that has begun."""
        self._left.set()

    def _run(self) -> None:
        if self._left.wait(self._after_s):
            return
        try:
            self._seen.append(self._look())
        except Exception as error:
            self._error = error


def watched(
    run: Protocol, node: str, look: Callable[[], tuple[SiteLook, Witnesses]], **begun: float
) -> tuple[SiteLook, Witnesses]:
    """Look at a suspect as a step of a run; `begun` (monotonic, seconds) where the look began before."""
    return run.watch(f"Look at {node} over every path", look, describe_suspect, **begun)
