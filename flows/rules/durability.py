"""When is synchronous replication relaxed, and when restored?"""

from dataclasses import dataclass
from enum import StrEnum

from flows.rules.policy import Policy
from flows.rules.table import Decision, Rule, first_match, require_fresh
from tasks.clock import Moment
from tasks.operation.files import DURABILITY
from tasks.postgres.facts import NodeFacts

# Commits hang from the moment the standby is lost; writes must go on within 15 s of it.
ABSENCE_LIMIT_S = 10.0
# Re-enabled any earlier, the first commits would wait for the standby to catch up.
CAUGHT_UP_BYTES = 1 << 20


class Promise(StrEnum):
    """The site's durability setting."""

    ASYNC = "async"
    PREFERRED = "preferred"
    REQUIRED = "required"


class Standby(StrEnum):
    """The standby as its primary sees it."""

    SYNC = "synchronous"
    CAUGHT_UP = "streaming, caught up"
    BEHIND = "streaming, behind"
    JUST_LOST = "lost a moment ago"
    LOST = "lost"


class Recorded(StrEnum):
    """The state that was last recorded on the nodes; what a failover may claim about loss rests on it."""

    NONE = "none"
    SYNC = "SYNC"
    ASYNC = "ASYNC"
    ASYNC_DEGRADED = "ASYNC_DEGRADED"


class Sync(StrEnum):
    """The next step. Each is one change; look again after it."""

    NONE = "NONE"
    RECORD_DEGRADED = "RECORD_DEGRADED"
    RELAX = "RELAX"
    RESTORE = "RESTORE"
    RECORD_SYNC = "RECORD_SYNC"
    RECORD_ASYNC = "RECORD_ASYNC"
    HOLD = "HOLD"


@dataclass(frozen=True)
class SyncView:
    """What the rules below look at. `waits`: synchronous_standby_names is set, so commits wait."""

    promise: Promise
    waits: bool
    standby: Standby
    recorded: Recorded
    primary: str = "the primary"


SYNC_RULES: tuple[Rule[SyncView, Sync], ...] = (
    Rule(
        "never promised",
        "durability is async, and commits wait",
        lambda v: v.promise is Promise.ASYNC and v.waits and v.recorded is not Recorded.SYNC,
        Sync.RELAX,
        "The site is asynchronous, but synchronous_standby_names is set on {primary}: it is cleared.",
    ),
    Rule(
        "promise withdrawn",
        "durability is async, and SYNC or nothing is recorded",
        lambda v: v.promise is Promise.ASYNC and v.recorded is not Recorded.ASYNC,
        Sync.RECORD_ASYNC,
        "The site is asynchronous; that is recorded.",
    ),
    Rule(
        "asynchronous",
        "durability is async",
        lambda v: v.promise is Promise.ASYNC,
        Sync.NONE,
        "The site is asynchronous.",
    ),
    Rule(
        "claim withdrawn",
        "commits do not wait, and SYNC is recorded",
        lambda v: not v.waits and v.recorded is Recorded.SYNC,
        Sync.RECORD_DEGRADED,
        "Commits on {primary} do not wait for a standby, while SYNC is recorded: the record is corrected.",
    ),
    Rule(
        "writes stop, as required",
        "durability is required, commits wait, the standby is lost",
        lambda v: (
            v.promise is Promise.REQUIRED and v.waits and v.standby in (Standby.LOST, Standby.JUST_LOST)
        ),
        Sync.HOLD,
        "The standby of {primary} is lost: writes wait for it, as durability is `required`.",
        "Bring the standby back, or set durability to `preferred` and run check.",
    ),
    Rule(
        "record, then relax",
        "commits wait, the standby is lost for 10 s, the degrade is not recorded",
        lambda v: v.waits and v.standby is Standby.LOST and v.recorded is not Recorded.ASYNC_DEGRADED,
        Sync.RECORD_DEGRADED,
        "The standby of {primary} is lost: that writes go on without it is recorded before they do.",
    ),
    Rule(
        "relax",
        "commits wait, the standby is lost for 10 s, the degrade is recorded",
        lambda v: v.waits and v.standby is Standby.LOST,
        Sync.RELAX,
        "The standby of {primary} is lost and the degrade is recorded: writes go on without it.",
    ),
    Rule(
        "synchronous again",
        "commits wait for a synchronous standby, SYNC is not recorded",
        lambda v: v.waits and v.standby is Standby.SYNC and v.recorded is not Recorded.SYNC,
        Sync.RECORD_SYNC,
        "Commits on {primary} wait for a standby that confirms them: SYNC is recorded.",
    ),
    Rule(
        "restore",
        "commits do not wait, the standby has caught up",
        lambda v: not v.waits and v.standby in (Standby.CAUGHT_UP, Standby.SYNC),
        Sync.RESTORE,
        "The standby of {primary} has caught up: commits wait for it again.",
    ),
    Rule(
        "degraded",
        "commits do not wait, and that is not recorded",
        lambda v: not v.waits and v.recorded is not Recorded.ASYNC_DEGRADED,
        Sync.RECORD_DEGRADED,
        "Commits on {primary} do not wait for a standby: that is recorded.",
    ),
    Rule(
        "as it should be",
        "otherwise",
        lambda v: True,
        Sync.NONE,
        "Nothing to change: durability {promise}, standby {standby}, recorded {recorded}.",
    ),
)


def sync_transition(
    primary: NodeFacts, policy: Policy, lost_for_s: float | None, now: Moment
) -> Decision[Sync]:
    """Choose the next step of synchronous replication.

    Args:
        primary: facts of the primary.
        policy: the site's settings.
        lost_for_s: seconds since a streaming standby was last seen; None when that is not known, which is
            taken for a moment ago.
        now: the moment of the decision.

    Raises:
        FactsTooOld: when facts are too old to decide on.
        ValueError: when the node does not answer as a primary.
    """
    require_fresh([(primary.name, primary.observed_at)], now)
    if primary.server is None or primary.server.in_recovery:
        raise ValueError(f"{primary.name} does not answer as a primary")
    noted = primary.state.get(DURABILITY)
    state = str(noted.get("state", "")) if isinstance(noted, dict) else ""
    view = SyncView(
        promise=Promise(policy.durability),
        waits=bool(primary.server.sync_names.strip()),
        standby=_standby(primary, lost_for_s),
        recorded=Recorded(state) if state in set(Recorded) else Recorded.NONE,
        primary=primary.name,
    )
    return first_match(SYNC_RULES, view)


def _standby(primary: NodeFacts, lost_for_s: float | None) -> Standby:
    senders = primary.server.senders if primary.server else ()
    streaming = [sender for sender in senders if sender.state == "streaming"]
    if any(sender.sync_state in ("sync", "quorum") for sender in streaming):
        return Standby.SYNC
    if any(s.lag_bytes is not None and s.lag_bytes <= CAUGHT_UP_BYTES for s in streaming):
        return Standby.CAUGHT_UP
    if streaming:
        return Standby.BEHIND
    return Standby.LOST if lost_for_s is not None and lost_for_s >= ABSENCE_LIMIT_S else Standby.JUST_LOST
