"""One moment on the orchestrator, so that the age of a fact can be told."""

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Moment:
    """A point in time of the orchestrator.

    Attributes:
        monotonic: seconds of the monotonic clock; ages are counted with it, because the wall clock jumps.
        wall: seconds since 1970 in UTC; for people, and for what outlives a reboot.
    """

    monotonic: float
    wall: float

    def age(self, now: "Moment") -> float:
        """Return the seconds from this moment to `now`."""
        return now.monotonic - self.monotonic


def now() -> Moment:
    """Read both clocks."""
    return Moment(time.monotonic(), time.time())
