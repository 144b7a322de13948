"""Waiting for a condition, with a limit of time and a word of what it came to."""

import time
from collections.abc import Callable


def until(condition: Callable[[], bool], told: Callable[[], object], limit_s: float = 30.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.02)
