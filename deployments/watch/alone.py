"""The watcher's last way: Prefect does not take the call, so the failover runs without it, as a process of its own."""

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from flows.rules.watch import Order

logger = logging.getLogger("harbor_ha.watch")

# A busy server refuses one call and takes the next, five seconds later.
_CALLS = 2
# Calls of one outage that are further apart than this were of different troubles of Prefect.
_TOGETHER_S = 60.0
# After a run that has ended and changed nothing (refused, cooldown, in progress) the next one waits as an alert's does.
_AGAIN_S = 60.0

Spawn = Callable[[Sequence[str]], "subprocess.Popen[bytes]"]


def spawn(argv: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start a process that outlives this one; its lines and its report are kept in files by itself."""
    nothing = subprocess.DEVNULL
    return subprocess.Popen(argv, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)


class WithoutPrefect:
    """Starts a failover without Prefect when that has not taken two calls in a row, one at a time for a site.

    Against a run that Prefect starts after all, or another watcher's, there is the lock on the nodes.
    """

    def __init__(self, start: Spawn = spawn, clock: Callable[[], float] = time.monotonic) -> None:
        self._start, self._clock = start, clock
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._begun: dict[str, float] = {}
        self._failed: dict[str, list[float]] = {}

    def __call__(self, site: str, order: Order, why: str) -> None:
        """Prefect did not take a call.

        Args:
            why: what kept it from that.
        """
        now = self._clock()
        failed = [at for at in self._failed.get(site, ()) if now - at < _TOGETHER_S] + [now]
        self._failed[site] = failed
        running = self._running.get(site)
        if running is not None and running.poll() is None:
            return
        logger.critical(
            "site %s needs a failover from %s and Prefect does not take the call (%s)",
            site,
            order.expected_primary,
            why,
        )
        if len(failed) < _CALLS or now - self._begun.get(site, float("-inf")) < _AGAIN_S:
            return
        self._begun[site] = now
        given = {"expected_primary": order.expected_primary, "reason": order.reason}
        words = [word for name, value in given.items() for word in ("--param", f"{name}={value}")]
        argv = [sys.executable, "-m", "deployments.cli", "run", "failover", "--site", site, *words]
        try:
            self._running[site] = self._start([*argv, "--without-prefect"])
        except OSError as error:
            logger.critical("site %s: the failover could not be started here: %s", site, error.strerror)
            return
        logger.critical(
            "site %s: the failover runs without Prefect: harbor-ha's reports directory has it", site
        )
