"""Does what is heard from the nodes call for a failover? The watcher only calls; the flow looks for itself."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from flows.rules.policy import Policy
from flows.rules.table import Decision, Rule, first_match
from flows.rules.watch_lines import (
    SPEAKS_S,
    SUSPECT_S,
    accepted_by,
    claims,
    fresh_of,
    has_asked,
    hears,
    limits,
    trouble_of,
)
from flows.rules.watch_notes import busy_with, cooling, pause_in, unfinished_in
from tasks.clock import Moment
from tasks.observation.beats import Beat

# While the trouble lasts and no primary was accepted.
CALL_EVERY_S = 60.0
# A call that Prefect did not take is made again after this.
AGAIN_S = 5.0
# A loop that was later than this was stopped, or starved: silence in between is its own.
LATE_S = 1.5
# The wall clock may be slewed; what is more was set, or the machine slept.
JUMP_S = 1.0
# The newest line is a beat old at the most, and a moment on its way.
_UNTOLD_BEATS = 1.5


class Watch(StrEnum):
    """What is made of it."""

    CALM = "CALM"
    SUSPECT = "SUSPECT"
    VOID = "VOID"
    HEARD = "HEARD"
    BLIND = "BLIND"
    UNKNOWN = "UNKNOWN"
    SPLIT = "SPLIT"
    HELD = "HELD"
    CALLED = "CALLED"
    CALL = "CALL"


@dataclass(frozen=True)
class WatchView:
    """What the rules below look at; the texts are for the reasons. Durations are in seconds."""

    primary: str
    known: bool
    primaries: str
    claims: int
    answers: bool
    reached: int
    speaks: bool
    told: bool
    heard: bool
    trouble_s: float
    silent_s: float
    patience_s: float
    trouble: str
    pause: str
    busy: str
    cooling: bool
    unfinished: str
    called_s: float | None
    call_every_s: float = CALL_EVERY_S
    suspect_s: float = SUSPECT_S
    speaks_s: float = SPEAKS_S


def _called(view: WatchView) -> bool:
    return view.called_s is not None and view.called_s < view.call_every_s


WATCH_RULES: tuple[Rule[WatchView, Watch], ...] = (
    Rule(
        "two primaries",
        "more than one node answers as primary",
        lambda v: v.claims > 1,
        Watch.SPLIT,
        "More than one node answers as primary: {primaries}. No failover helps there.",
        "Run check; it says which one is to be stopped.",
    ),
    Rule(
        "unfinished, and held back",
        "an operation that has come to promoting was left open, and the site is paused or somebody works on it",
        lambda v: bool(v.unfinished) and bool(v.busy or v.pause),
        Watch.HELD,
        "{unfinished} is open; {busy}{pause}",
    ),
    Rule(
        "unfinished, and called",
        "the same, and the last call was less than a minute ago",
        lambda v: bool(v.unfinished) and _called(v),
        Watch.CALLED,
        "{unfinished} is open; it was called {called_s:.0f} s ago.",
    ),
    Rule(
        "unfinished",
        "an operation that has come to promoting was left open, and nobody works on it",
        lambda v: bool(v.unfinished),
        Watch.CALL,
        "{unfinished} has come to promoting and was left open: it goes on.",
    ),
    Rule(
        "nobody known",
        "no node has ever answered as primary, and none says who was accepted",
        lambda v: not v.known,
        Watch.UNKNOWN,
        "It is not known who the primary is.",
        "Run check; a site that was never bootstrapped has none.",
    ),
    Rule(
        "answers",
        f"the primary has answered within {SUSPECT_S} s, and let somebody in",
        lambda v: v.answers,
        Watch.CALM,
        "{primary} answers as the primary.",
    ),
    Rule(
        "nothing reached",
        f"no node of the site has said anything for {SPEAKS_S} s",
        lambda v: v.reached == 0,
        Watch.BLIND,
        "No node says anything: it may be this machine's own network. Nobody could be promoted either.",
        "Check the orchestrator's network first.",
    ),
    Rule(
        "heard by its standby",
        "the primary's machine is silent, or has told of no such trouble, and a standby has heard the primary within "
        "the patience",
        lambda v: v.heard and not (v.speaks and (v.told or v.trouble_s < v.patience_s)),
        Watch.HEARD,
        "{primary} is silent to us, and its standby hears it: only the path from here is cut.",
        "Repair the path from the orchestrator to the primary.",
    ),
    Rule(
        "seen by a watcher that stood still",
        "the trouble is long enough only with what was seen before this process was late or the clock jumped",
        lambda v: v.trouble_s < v.patience_s <= v.silent_s,
        Watch.VOID,
        "What was seen of {primary} before this process stood still is void; for {trouble_s:.1f} s: {trouble}.",
    ),
    Rule(
        "not long enough",
        "the trouble has lasted for less than the patience",
        lambda v: v.trouble_s < v.patience_s,
        Watch.SUSPECT,
        "For {trouble_s:.1f} s (of {patience_s:.1f} s): {trouble}.",
    ),
    Rule(
        "paused",
        "the site is paused, as the nodes or the NAS said last",
        lambda v: bool(v.pause),
        Watch.HELD,
        "{trouble}, and the site is paused: {pause}",
        "End the pause when the maintenance is over.",
    ),
    Rule(
        "somebody works on it",
        "a live lock is on a node that is heard",
        lambda v: bool(v.busy),
        Watch.HELD,
        "{trouble}; {busy}",
    ),
    Rule(
        "cooldown",
        "the last failover is too recent, none is open, and the primary's machine is silent: it cannot be restarted",
        lambda v: v.cooling and not v.speaks,
        Watch.HELD,
        "{trouble}, less than the cooldown after the last failover.",
        "Find out why; an operator may call failover and vouch.",
    ),
    Rule(
        "called",
        f"the last call was less than {CALL_EVERY_S:.0f} s ago",
        _called,
        Watch.CALLED,
        "{trouble}; failover was called {called_s:.0f} s ago.",
    ),
    Rule(
        "call",
        "otherwise",
        lambda v: True,
        Watch.CALL,
        "For {trouble_s:.1f} s: {trouble}.",
    ),
)


@dataclass(frozen=True)
class Memory:
    """What a watcher remembers of a site between two looks. Moments are of the monotonic clock.

    Attributes:
        primary: who answered as primary last, or was accepted; None: nobody knows.
        timeline: on which timeline.
        good_at: when it last answered and let somebody in.
        void_at: from when on what was seen counts: the start, a stall of this process, a new primary.
        called_at: when failover was called last, for this primary; None: not yet.
        again_s: seconds after which it is called again.
    """

    primary: str | None = None
    timeline: int = 0
    good_at: float = -math.inf
    void_at: float = -math.inf
    called_at: float | None = None
    again_s: float = CALL_EVERY_S

    def void(self, now: Moment) -> "Memory":
        """Forget for how long there was trouble."""
        return replace(self, void_at=now.monotonic)

    def called(self, now: Moment, *, taken: bool) -> "Memory":
        """Note that failover was called, and whether Prefect took the call."""
        return replace(self, called_at=now.monotonic, again_s=CALL_EVERY_S if taken else AGAIN_S)


@dataclass(frozen=True)
class Order:
    """A call for the deployment `failover`.

    Attributes:
        expected_primary: who is to be replaced.
        outage: the same for every watcher and every minute of this outage, and another for the next.
        reason: for the report.
    """

    expected_primary: str
    outage: str
    reason: str


def stood_still(before: Moment, now: Moment, pace_s: float) -> str:
    """Say why what a loop saw before is void; nothing when it kept its pace.

    Args:
        before: when it looked last.
        now: when it looks.
        pace_s: the time between two looks.
    """
    passed = before.age(now)
    if passed > pace_s + LATE_S:
        return f"it was {passed - pace_s:.1f} s late"
    jump = (now.wall - before.wall) - passed
    return f"the clock jumped by {jump:+.1f} s" if abs(jump) > JUMP_S else ""


def follow(memory: Memory, beats: Sequence[Beat], now: Moment, beat_s: float = 1.0) -> Memory:
    """Note who is the primary, when it was last well, and from when on silence counts.

    The highest timeline wins: a node that was away says what it knew. But one that says itself that it is a standby
    is no primary beside the only one that claims to be: a site that was set up anew begins at timeline 1 again.
    """
    fresh = fresh_of(beats, now, beat_s)
    if not fresh:
        # Most likely our own network was away, and its return shows one node before the other.
        memory = memory.void(now)
    claimed = [(beat.timeline or 0, 1, beat.node) for beat in beats if claims(beat, now, beat_s)]
    denied = {beat.node for beat in fresh if beat.in_recovery} if claimed else set()
    accepted = [note for note in accepted_by(beats) if note[2] not in denied]
    best = max(claimed + accepted, default=None)
    if best is not None and (memory.primary is None or best[0] > memory.timeline):
        memory = Memory(primary=best[2], timeline=best[0], void_at=now.monotonic)
    elif len(claimed) == 1 and memory.primary in denied:
        memory = Memory(primary=claimed[0][2], timeline=claimed[0][0], void_at=now.monotonic)
    good = [beat.good_at for beat in beats if beat.node == memory.primary and beat.in_recovery is False]
    return replace(memory, good_at=max([memory.good_at, *good]))


def decide(
    memory: Memory,
    beats: Mapping[str, Beat],
    policy: Policy,
    now: Moment,
    patience_s: float,
    beat_s: float = 1.0,
) -> tuple[Decision[Watch], Order | None]:
    """Decide what is made of what is heard.

    Args:
        memory: after `follow`.
        beats: the newest line of each node that ever said one.
        policy: the site's settings.
        now: the moment of the decision.
        patience_s: for how long trouble must last.
        beat_s: seconds between two lines of a node.

    Returns:
        the decision, and the call when it is one.
    """
    view = watch_view(memory, list(beats.values()), policy, now, patience_s, beat_s)
    decision = first_match(WATCH_RULES, view)
    if decision.kind is not Watch.CALL:
        return decision, None
    record = unfinished_in(beats.values())
    if record is not None:
        return decision, Order(record.expected_primary, record.op_id, f"watcher: {decision.reasons[0]}")
    outage = f"{memory.primary}-{memory.timeline}"
    return decision, Order(str(memory.primary), outage, f"watcher: {decision.reasons[0]}")


def watch_view(
    memory: Memory,
    beats: Sequence[Beat],
    policy: Policy,
    now: Moment,
    patience_s: float,
    beat_s: float = 1.0,
) -> WatchView:
    """Condense what is heard; see `decide`."""
    at, (suspect_s, speaks_s) = now.monotonic, limits(beat_s)
    fresh = fresh_of(beats, now, beat_s)
    own = next((beat for beat in beats if beat.node == memory.primary), None)
    primaries = sorted(beat.node for beat in fresh if claims(beat, now, beat_s))
    heard = [b.heard_at for b in fresh if b.node != memory.primary and b.heard_at is not None]
    record = unfinished_in(beats) if fresh else None
    since = max(memory.good_at, memory.void_at)
    return WatchView(
        primary=memory.primary or "nobody",
        known=memory.primary is not None,
        primaries=", ".join(primaries),
        claims=len(primaries),
        answers=at - memory.good_at <= suspect_s,
        reached=len(fresh),
        speaks=own is not None and own in fresh and has_asked(own, at, speaks_s),
        # The line of a machine that stands still says no more than how old its last answer was.
        told=own is not None and own.written_at - since >= patience_s - _UNTOLD_BEATS * beat_s,
        heard=any(hears(at - moment, moment - since, patience_s) for moment in heard),
        trouble_s=round(at - since, 3),
        silent_s=round(at - memory.good_at, 3),
        patience_s=patience_s,
        trouble=trouble_of(memory.primary or "nobody", own, own in fresh, at),
        pause=pause_in(beats),
        busy=busy_with(fresh, now),
        cooling=cooling(beats, policy.cooldown_s, now),
        unfinished="" if record is None else f"{record.kind} {record.op_id} ({record.phase})",
        called_s=None if memory.called_at is None else at - memory.called_at,
        call_every_s=memory.again_s,
        suspect_s=suspect_s,
        speaks_s=speaks_s,
    )
