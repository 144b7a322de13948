"""Health as Harbor reports it: always HTTP 200, from checkers that look every ten seconds.

A reader sees a state that may be ten seconds old, and `SELECT 1` is all that is asked of the database.
"""

import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any

PERIOD = 10.0  # seconds, Harbor's own
PATIENCE = 60.0  # seconds after which a check that hangs counts as failed, Harbor's own
Check = Callable[[], None]


def http_check(url: str) -> Check:
    """A check that a URL answers 200 within five seconds."""

    def check() -> None:
        with urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status != 200:
                raise RuntimeError(f"unexpected status {answer.status}")

    return check


class Checker:
    """Runs one check for ever and remembers its last result."""

    def __init__(self, name: str, check: Check, period: float = PERIOD, patience: float = PATIENCE) -> None:
        self.name = name
        self._patience = patience
        self._check = check
        self._period = period
        self._error: str | None = "unknown status"
        self._running_since: float | None = None
        threading.Thread(target=self._loop, daemon=True, name=f"health-{name}").start()

    def _loop(self) -> None:
        while True:
            started = self._running_since = time.monotonic()
            try:
                self._check()
                self._error = None
            except Exception as error:
                self._error = str(error).strip() or type(error).__name__
            self._running_since = None
            time.sleep(max(self._period - (time.monotonic() - started), 0.1))

    def report(self) -> dict[str, str]:
        """This component's part of the answer."""
        # A database whose machine is gone answers nothing at all, and the old result would stand for minutes.
        since = self._running_since
        hangs = since is not None and time.monotonic() - since > self._patience
        error = f"no answer in {self._patience:.0f} s" if hangs else self._error
        if error is None:
            return {"name": self.name, "status": "healthy"}
        return {"name": self.name, "status": "unhealthy", "error": error}


def overall(components: list[dict[str, str]]) -> dict[str, Any]:
    """The whole answer: one sick component makes the site unhealthy."""
    healthy = all(component["status"] == "healthy" for component in components)
    return {"components": components, "status": "healthy" if healthy else "unhealthy"}


class Health:
    """All checkers of one core."""

    def __init__(self, checks: dict[str, Check], period: float = PERIOD) -> None:
        self._checkers = [Checker(name, check, period) for name, check in sorted(checks.items())]

    def __call__(self) -> dict[str, Any]:
        return overall([checker.report() for checker in self._checkers])
