"""An act on something that cannot ask whether it may still be done is not done late.

A node asks, under its own lock, whether a program's operation is still the one that counts. A load balancer, a
machine's power supply and a Harbor, which may stand on a node that keeps no record, do as they are told. A run that
had stood still for minutes drained a node that another run had long served again; in the same way it would have
switched off a primary, and it started a core for the database that it had chosen then.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

from tasks.errors import HarborHaError
from tasks.outcome import Outcome


class StoodStill(HarborHaError):
    """This process stood still between what it wrote down and what it wanted to do."""

    def __init__(self, late_s: float) -> None:
        super().__init__(
            f"This was to be done {late_s:.0f} s ago at the latest: the process stood still.",
            where="orchestrator",
            meaning="Another run may have ended the operation since; nothing was done.",
            remedy="Run the flow again; it looks anew.",
        )


def timely(act: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Give a step's function the argument `by`: when it begins later, it does nothing.

    `by` is a moment of this process's monotonic clock in seconds; None: at any time.

    Raises:
        StoodStill: it is later than that.
    """

    @functools.wraps(act)
    def in_time(*given: Any, by: float | None = None, **plain: Any) -> Outcome:
        late = 0.0 if by is None else time.monotonic() - by
        if late > 0:
            raise StoodStill(late)
        return act(*given, **plain)

    return in_time
