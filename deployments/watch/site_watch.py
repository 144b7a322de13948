"""One site, as the watcher sees it: what its beacons say, what is made of it, and what is done then.

`look` never waits: whatever may take time (a session that is opened, a call to Prefect, a thorough look) has a thread
of its own, so a site that is dead does not delay the others.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from blocks import HarborSite
from deployments.attempts import AlertRefused, PrefectTrouble
from deployments.watch.alone import WithoutPrefect
from deployments.watch.calls import Start, start_failover
from flows.rules.policy import Policy, policy_of
from flows.rules.table import Decision
from flows.rules.watch import Memory, Order, Watch, decide, follow, stood_still
from tasks.clock import Moment
from tasks.observation.beacon import BEAT_S, Listener
from tasks.observation.beats import Beat
from tasks.operation.files import LAST_PRIMARY
from tasks.operation.record import LastPrimary, to_json

logger = logging.getLogger("harbor_ha.watch")

# The primary's position is kept on the nodes so often while it changes: a small file, written and synced.
KEEP_S = 5.0
# And so often while it does not: a failover refuses what is older than three minutes.
KEEP_UNCHANGED_S = 30.0
# A failover that was just called needs the nodes for itself.
_LEFT_ALONE_S = 30.0
# Where lines come each five seconds, trouble must last longer: two of them, and a moment for the way.
_BEATS_OF_PATIENCE = 2.0

Spawn = Callable[[Callable[[], None]], None]


def in_a_thread(work: Callable[[], None]) -> None:
    """Do something that may take long beside everything else."""
    threading.Thread(target=work, daemon=True).start()


@dataclass
class Counts:
    """What has happened since the start, for the metrics."""

    calls: int = 0
    calls_failed: int = 0
    stood_still: int = 0
    prefect_takes_calls: bool = True


@dataclass
class SiteWatch:
    """What is known of one site.

    Args:
        site: the site.
        listeners: one for each database node, by name.
        beat_s: seconds between two lines of a node; it is looked at twice in this time.
        start: starts a failover.
        no_prefect: what is done when Prefect does not take a call.
        spawn: does something beside the loop.
        calls: whether it starts a failover; without, it tells Prometheus, and whoever is told there decides.
    """

    site: HarborSite
    listeners: Mapping[str, Listener]
    beat_s: float = BEAT_S
    start: Start = start_failover
    no_prefect: Callable[[str, Order, str], None] = field(default_factory=WithoutPrefect)
    spawn: Spawn = in_a_thread
    calls: bool = True
    memory: Memory = field(default_factory=Memory)
    decision: Decision[Watch] | None = None
    counts: Counts = field(default_factory=Counts)
    kept: LastPrimary | None = None
    kept_at: float = float("-inf")
    looked_at: Moment | None = None
    _calling: bool = False
    _last_run: str = ""
    _told: dict[str, str] = field(default_factory=dict)
    _outcome: tuple[str | None, Moment, bool] | None = None
    _policy: Policy | None = None

    @property
    def policy(self) -> Policy:
        """What the site's settings allow."""
        if self._policy is None:
            self._policy = policy_of(self.site)
        return self._policy

    @property
    def pace_s(self) -> float:
        """Seconds between two looks."""
        return self.beat_s / 2

    @property
    def patience_s(self) -> float:
        """For how long trouble must last."""
        least = 0.0 if self.beat_s <= BEAT_S else _BEATS_OF_PATIENCE * self.beat_s + 1.0
        return max(self.site.failover.call_after_s, least)

    @property
    def troubled(self) -> bool:
        """Whether something is amiss that a failover may come of, or has; no time for a thorough look."""
        seen = self.decision.evidence if self.decision is not None else {}
        called = seen.get("called_s")
        amiss = self.decision is not None and self.decision.kind in (Watch.SUSPECT, Watch.VOID, Watch.CALL)
        return amiss or (called is not None and called < _LEFT_ALONE_S)

    def beats(self) -> dict[str, Beat]:
        """The newest line of each node that ever said one."""
        return {name: item.beat for name, item in self.listeners.items() if item.beat is not None}

    def look(self, now: Moment) -> None:
        """Make what is to be made of what was heard; waits for nothing."""
        why = "" if self.looked_at is None else stood_still(self.looked_at, now, self.pace_s)
        if self.looked_at is None or why:
            self.memory = self.memory.void(now)
        if why:
            self.counts.stood_still += 1
            logger.warning("site %s: what was seen before is void: %s", self.site.name, why)
        self.looked_at = now
        for listener in self.listeners.values():
            listener.hang_up_when_deaf(now.monotonic)
            self._tell_of(listener)
        beats = self.beats()
        self._follow(list(beats.values()), now)
        self._note_call()
        decision, order = decide(self.memory, beats, self.policy, now, self.patience_s, self.beat_s)
        if self.decision is None or decision.kind is not self.decision.kind:
            log = logger.info if decision.kind in (Watch.CALM, Watch.SUSPECT) else logger.warning
            log("site %s: %s: %s", self.site.name, decision.kind, "; ".join(decision.reasons))
        self.decision = decision
        if order is not None and self.calls and not self._calling and self._outcome is None:
            self._calling, primary = True, self.memory.primary
            self.spawn(lambda: self._call(order, primary, now))
        if decision.kind is Watch.CALM:
            self._keep_position(beats, now)

    def _tell_of(self, listener: Listener) -> None:
        """Log when a node is heard no more, or again, or cannot keep what it is to keep."""
        state = listener.error or "; ".join(
            f"{name} is not kept: {why}" for name, why in listener.unkept.items()
        )
        if state != self._told.get(listener.node, ""):
            self._told[listener.node] = state
            what = f"{listener.node}: {state}" if state else f"{listener.node} is heard"
            logger.warning("site %s: %s", self.site.name, what)

    def _follow(self, beats: Sequence[Beat], now: Moment) -> None:
        before = self.memory.primary
        self.memory = follow(self.memory, beats, now, self.beat_s)
        if self.memory.primary != before:
            logger.warning(
                "site %s: %s is the primary on timeline %d",
                self.site.name,
                self.memory.primary,
                self.memory.timeline,
            )

    def _note_call(self) -> None:
        outcome, self._outcome = self._outcome, None
        if outcome is not None and outcome[0] == self.memory.primary:
            self.memory = self.memory.called(outcome[1], taken=outcome[2])

    def _call(self, order: Order, primary: str | None, now: Moment) -> None:
        name, taken = self.site.name, False
        self.counts.calls += 1
        try:
            run = self.start(name, order)
            # The same run as before is still under way, or waits for its process: asked again soon, and no new one.
            taken, self._last_run = run != self._last_run, run
            self.counts.prefect_takes_calls = True
            if taken:
                logger.warning("site %s: failover is started: flow run %s (%s)", name, run, order.reason)
        except AlertRefused as refused:
            taken = True
            self._failed(order, str(refused))
        except PrefectTrouble as trouble:
            self._failed(order, str(trouble))
        except Exception as error:
            # Of what is not ours only the name: its text is not known.
            self._failed(order, type(error).__name__)
        finally:
            # Noted by the loop: what two threads write to is lost by one of them.
            self._outcome = (primary, now, taken)
            self._calling = False

    def _failed(self, order: Order, why: str) -> None:
        self.counts.calls_failed += 1
        self.counts.prefect_takes_calls = False
        self.no_prefect(self.site.name, order, why)

    def _keep_position(self, beats: Mapping[str, Beat], now: Moment) -> None:
        """Have the primary's position kept on all nodes: it bounds what a failover can lose."""
        own = beats.get(self.memory.primary or "")
        if own is None or own.position is None or own.timeline != self.memory.timeline:
            return
        age = now.monotonic - (own.answered_at or own.written_at)
        changed = self.kept is None or self.kept.position != own.position
        if now.monotonic - self.kept_at < (KEEP_S if changed else KEEP_UNCHANGED_S):
            return
        self.kept = LastPrimary(own.node, own.position, now.wall - age, own.self_fence_s)
        self.kept_at = now.monotonic
        self.keep(LAST_PRIMARY, to_json(self.kept))

    def keep(self, name: str, text: str) -> None:
        """Have a note kept on every database node that is heard; on one that is not, when it is heard again."""
        for listener in self.listeners.values():
            listener.keep(name, text)
