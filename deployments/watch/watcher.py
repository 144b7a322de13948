"""The watcher's loop: every site in its turn, none of which can delay the others."""

import heapq
import itertools
import logging
import queue
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from blocks import HarborSite
from deployments.watch.rounds import Backups, Round, look_at_backups, take_round
from deployments.watch.site_watch import SiteWatch
from tasks import clock
from tasks.errors import HarborHaError
from tasks.observation.beacon import BEAT_S, listener_of
from tasks.postgres.layout import database_nodes

logger = logging.getLogger("harbor_ha.watch")

ROUND_S = 60.0
BACKUPS_S = 1800.0
# So many thorough looks at once. A dead site's takes the whole budget of a look, others wait for their turn.
ROUNDS_AT_ONCE = 6


@dataclass
class Watched:
    """One site with what was found in its thorough looks."""

    watch: SiteWatch
    round: Round | None = None
    backups: Backups | None = None
    round_error: str = ""
    round_due: float = 0.0
    backups_due: float = 0.0
    busy: bool = field(default=False)

    @property
    def name(self) -> str:
        """The site's name."""
        return self.watch.site.name


def watched(site: HarborSite, beat_s: float = BEAT_S, *, calls: bool = True) -> Watched:
    """Make what watches a site, over SSH, and with `calls` starts its failover."""
    listeners = {node.name: listener_of(site, node.name, beat_s) for node in database_nodes(site)}
    return Watched(SiteWatch(site, listeners, beat_s, calls=calls))


class Watcher:
    """Looks at every site at its pace.

    Args:
        sites: what is watched.
        rounds: take thorough looks as well.

    Attributes:
        looked_at: when it looked at any site last, by the monotonic clock.
        worst_late_s: by how much the latest of all looks was late.
    """

    def __init__(self, sites: Sequence[Watched], *, rounds: bool = True) -> None:
        self.sites = list(sites)
        self.ended = threading.Event()
        self.looked_at = time.monotonic()
        self.worst_late_s = 0.0
        self._rounds = rounds
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        for number in range(ROUNDS_AT_ONCE if rounds else 0):
            # No pool: Python waits for its threads at the end, and nobody would watch meanwhile.
            threading.Thread(target=self._do_work, daemon=True, name=f"round {number}").start()

    def run(self) -> None:
        """Look until `stop` is called."""
        begun = time.monotonic()
        for item in self.sites:
            # Each at a second of its own: a hundred thorough looks in one second are late together.
            part = zlib.crc32(item.name.encode()) % 100 / 100
            item.round_due = begun + 2.0 + part * ROUND_S
            item.backups_due = begun + 5.0 + part * 300.0
            for listener in item.watch.listeners.values():
                listener.start()
        order = itertools.count()
        turns = [
            (begun + item.watch.pace_s * number / max(1, len(self.sites)), next(order), item)
            for number, item in enumerate(self.sites)
        ]
        heapq.heapify(turns)
        while turns and not self.ended.is_set():
            due, _, item = turns[0]
            if self.ended.wait(max(0.0, due - time.monotonic())):
                break
            heapq.heapreplace(turns, (self._look(item, due), next(order), item))
        self._end()

    def stop(self) -> None:
        """End the loop."""
        self.ended.set()

    def _look(self, item: Watched, due: float) -> float:
        """Look at one site; return when it is due again."""
        now = clock.now()
        self.worst_late_s = max(self.worst_late_s, now.monotonic - due)
        try:
            item.watch.look(now)
            self._look_thoroughly(item, now.monotonic)
        except Exception:
            # A defect in what is made of one site must not take the others with it.
            logger.exception("site %s: a defect", item.name)
        self.looked_at = time.monotonic()
        return max(due + item.watch.pace_s, now.monotonic + item.watch.pace_s / 2)

    def _look_thoroughly(self, item: Watched, now: float) -> None:
        if not self._rounds or item.busy:
            return
        if now >= item.round_due and not item.watch.troubled:
            item.round_due, item.busy = now + ROUND_S, True
            self._work.put(lambda: self._take_round(item))
        elif now >= item.backups_due:
            item.backups_due, item.busy = now + BACKUPS_S, True
            self._work.put(lambda: self._beside(item, lambda: self._take_backups(item)))

    def _do_work(self) -> None:
        while not self.ended.is_set():
            self._work.get()()

    def _take_round(self, item: Watched) -> None:
        def work() -> None:
            item.round = take_round(item.watch.site, item.watch.keep)

        self._beside(item, work)

    @staticmethod
    def _take_backups(item: Watched) -> None:
        item.backups = look_at_backups(item.watch.site)

    @staticmethod
    def _beside(item: Watched, work: Callable[[], None]) -> None:
        try:
            work()
            item.round_error = ""
        except HarborHaError as error:
            item.round_error = str(error)
            logger.warning("site %s: a thorough look failed: %s", item.name, error)
        except Exception as error:
            # Of what is not ours only the name: its text is not known.
            item.round_error = type(error).__name__
            logger.warning("site %s: a thorough look failed: %s", item.name, type(error).__name__)
        finally:
            item.busy = False

    def _end(self) -> None:
        for item in self.sites:
            for listener in item.watch.listeners.values():
                listener.stop()
