"""May this call for a failover begin at all? The compare-and-set on the expected primary."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from flows.rules.policy import Policy
from flows.rules.table import Decision, Rule, first_match, require_fresh
from tasks.clock import Moment
from tasks.operation.files import ACCEPTED, LOCK, OPERATION, PAUSED, TERM
from tasks.operation.holder import describe
from tasks.operation.record import (
    Lock,
    OperationKind,
    OperationRecord,
    RecordDamaged,
    lock_from,
    record_from,
)
from tasks.postgres.facts import NodeFacts


class Admission(StrEnum):
    """What becomes of a call."""

    ADMIT = "ADMIT"
    RESUME = "RESUME"
    TAKE_OVER = "TAKE_OVER"
    NOOP = "NOOP"
    PAUSED = "PAUSED"
    COOLDOWN = "COOLDOWN"
    IN_PROGRESS = "IN_PROGRESS"
    REFUSE = "REFUSE"


class Expected(StrEnum):
    """How the expected primary compares with what is known."""

    CURRENT = "is the primary"
    OTHER = "is not the primary"
    UNKNOWN = "not known"
    NO_SUCH_NODE = "no such node"


class Open(StrEnum):
    """The operation that is recorded on the nodes."""

    NONE = "none"
    SAME = "the same failover"
    ANOTHER = "another operation"
    DAMAGED = "unreadable"


@dataclass(frozen=True)
class AdmissionView:
    """What the rules below look at; the texts are for the reasons."""

    expected: Expected
    paused: bool
    cooling: bool
    by_operator: bool
    open: Open
    lock_alive: bool
    lock_ours: bool
    past_return: bool = False
    expected_primary: str = "the expected primary"
    current: str = "another node"
    operation: str = "an operation"
    pause: str = ""


ADMISSION_RULES: tuple[Rule[AdmissionView, Admission], ...] = (
    Rule(
        "unknown node",
        "the site has no database node of that name",
        lambda v: v.expected is Expected.NO_SUCH_NODE,
        Admission.REFUSE,
        "The site has no database node `{expected_primary}`.",
        "Call with the name of the node that is the primary.",
    ),
    Rule(
        "unreadable record",
        "an operation record or lock on a node cannot be read",
        lambda v: v.open is Open.DAMAGED,
        Admission.REFUSE,
        "What another operation recorded cannot be read: {operation}",
        "Look at the files in /var/lib/harbor-ha on the nodes and move the damaged one aside.",
    ),
    Rule(
        "in progress elsewhere",
        "another process holds a live lock",
        lambda v: v.lock_alive and not v.lock_ours,
        Admission.IN_PROGRESS,
        "{operation} is in progress.",
        "Wait for it; when its process is dead, its lock runs out by itself.",
    ),
    Rule(
        "paused before the promotion",
        "the site is paused, and the same failover is open and has not come to promoting",
        lambda v: v.paused and v.open is Open.SAME and not v.past_return,
        Admission.PAUSED,
        "The site is paused: {pause}",
        "End the pause when the maintenance is over.",
    ),
    Rule(
        "resume",
        "the same failover is open, or any operation that has come to promoting, and nobody works on it",
        lambda v: v.open is Open.SAME,
        Admission.RESUME,
        "{operation} was begun and not ended; it goes on.",
    ),
    Rule(
        "late alert",
        "another node is the primary already",
        lambda v: v.expected is Expected.OTHER,
        Admission.NOOP,
        "{expected_primary} is not the primary; {current} is. The alert is late, or a second one.",
    ),
    Rule(
        "paused",
        "the site is paused",
        lambda v: v.paused,
        Admission.PAUSED,
        "The site is paused: {pause}",
        "End the pause when the maintenance is over.",
    ),
    Rule(
        "cooldown",
        "the last failover is too recent, and no operator has vouched for anything",
        lambda v: v.cooling and not v.by_operator,
        Admission.COOLDOWN,
        "The last failover was less than the cooldown ago; two in a row point at another trouble.",
        "Find out why; an operator may call again and vouch (accept_data_loss or attest_fenced).",
    ),
    Rule(
        "take over",
        "another operation is open and nobody works on it",
        lambda v: v.open is Open.ANOTHER,
        Admission.TAKE_OVER,
        "{operation} was left unfinished; the failover takes over from it.",
    ),
    Rule(
        "admit", "otherwise", lambda v: True, Admission.ADMIT, "{expected_primary} is the expected primary."
    ),
)


def admit_failover(
    nodes: Sequence[NodeFacts],
    expected_primary: str,
    policy: Policy,
    holder: str,
    now: Moment,
    *,
    by_operator: bool = False,
) -> Decision[Admission]:
    """Decide what becomes of a call for a failover.

    Args:
        nodes: facts of all database nodes.
        expected_primary: whom the caller believes to be the primary.
        policy: the site's settings.
        holder: how this process signs a lock, `host:pid`.
        now: the moment of the decision.
        by_operator: an operator vouches for something, so this is not an alert.

    Raises:
        FactsTooOld: when facts are too old to decide on.
    """
    require_fresh([(node.name, node.observed_at) for node in nodes], now)
    return first_match(
        ADMISSION_RULES, _view(nodes, expected_primary, policy, holder, now, by_operator=by_operator)
    )


def accepted_primary(nodes: Sequence[NodeFacts]) -> tuple[str, int] | None:
    """Return who is the primary, and on which timeline, as far as the nodes tell; the highest timeline wins.

    A server that answers as primary counts with its own timeline. Else the acceptance counts that the last
    promotion wrote on the nodes, unless a node has been on a newer timeline: it was away at that promotion, and
    what it knows is from before. Such a note once turned the call for the new primary away as late.
    """
    claims = [(node.timeline or 0, 1, node.name) for node in nodes if node.is_primary]
    newest = max((node.timeline or 0 for node in nodes), default=0)
    for node in nodes:
        accepted = node.state.get(ACCEPTED)
        if isinstance(accepted, dict) and "primary" in accepted:
            told = accepted.get("timeline")
            # One that cannot be read is older than any that can.
            timeline = told if isinstance(told, int) else 0
            if timeline >= newest:
                claims.append((timeline, 0, str(accepted["primary"])))
    if not claims:
        return None
    timeline, _, name = max(claims)
    return name, timeline


def pause_reason(node: NodeFacts) -> str:
    """Return why the site is paused, from the flag on a node or on the NAS; empty when there is none.

    A flag that cannot be read is a pause: somebody put it there.
    """
    flag = node.state.get(PAUSED, node.shared.get(PAUSED))
    if flag is None:
        return ""
    return str(flag.get("reason") or "no reason given") if isinstance(flag, dict) else "no reason given"


def latest_record(nodes: Sequence[NodeFacts]) -> OperationRecord | None:
    """Return the operation begun last, from the copies on the nodes; of two copies the one further on.

    Raises:
        RecordDamaged: when a copy cannot be read.
    """
    found = [record_from(node.state.get(OPERATION), node.name) for node in nodes]
    records = [record for record in found if record is not None]
    return max(records, key=lambda record: record.progress, default=None)


def highest_term(nodes: Sequence[NodeFacts]) -> int:
    """Return the highest term that any node knows; 0 before the first operation.

    Raises:
        RecordDamaged: when a copy cannot be read.
    """
    records = [record_from(node.state.get(OPERATION), node.name) for node in nodes]
    terms = [record.term for record in records if record is not None]
    for node in nodes:
        known = node.state.get(TERM)
        if known is not None and not (isinstance(known, dict) and isinstance(known.get("term"), int)):
            raise RecordDamaged("The term cannot be read.", where=node.name)
        terms += [known["term"]] if known is not None else []
        # The NAS is a witness more: what cannot be read there is not known, and ends nothing.
        shared = node.shared.get(TERM)
        terms += [shared["term"]] if isinstance(shared, dict) and isinstance(shared.get("term"), int) else []
    return max(terms, default=0)


def live_lock(nodes: Sequence[NodeFacts], now: Moment) -> Lock | None:
    """Return the lock that is alive and was taken first, if any.

    Raises:
        RecordDamaged: when a lock cannot be read.
    """
    found = [(lock_from(node.state.get(LOCK), node.name), node) for node in nodes]
    alive = [lock for lock, node in found if lock is not None and _alive(lock, node, now)]
    return min(alive, key=lambda lock: lock.taken_at, default=None)


def _alive(lock: Lock, node: NodeFacts, now: Moment) -> bool:
    """Judge a lock by the clocks of the node that keeps it; the wall clock may have been set since."""
    # A container starts later than its host, whose clock the lock goes by.
    boot, _, started = (node.boot_id or "").rpartition(":")
    wall = now.wall + (node.clock_skew_s or 0.0)
    if node.uptime_s is None or not started.isdigit():
        return lock.alive(wall)
    return lock.alive(wall, boot, node.uptime_s + float(started) + node.observed_at.age(now))


def _view(
    nodes: Sequence[NodeFacts],
    expected_primary: str,
    policy: Policy,
    holder: str,
    now: Moment,
    *,
    by_operator: bool,
) -> AdmissionView:
    current = accepted_primary(nodes)
    state, alive, ours, cooling, words, past_return = _operation(nodes, expected_primary, policy, holder, now)
    pauses = [reason for reason in map(pause_reason, nodes) if reason]
    return AdmissionView(
        expected=_expected(nodes, expected_primary, current),
        paused=bool(pauses),
        cooling=cooling,
        by_operator=by_operator,
        open=state,
        lock_alive=alive,
        lock_ours=ours,
        expected_primary=expected_primary,
        current=f"{current[0]} (timeline {current[1]})" if current else "nobody known",
        operation=words,
        pause=pauses[0] if pauses else "",
        past_return=past_return,
    )


def _expected(nodes: Sequence[NodeFacts], expected_primary: str, current: tuple[str, int] | None) -> Expected:
    if expected_primary not in {node.name for node in nodes}:
        return Expected.NO_SUCH_NODE
    if current is None:
        return Expected.UNKNOWN
    return Expected.CURRENT if current[0] == expected_primary else Expected.OTHER


def _operation(
    nodes: Sequence[NodeFacts], expected_primary: str, policy: Policy, holder: str, now: Moment
) -> tuple[Open, bool, bool, bool, str, bool]:
    """Return the state of the recorded operation, lock alive, lock ours, cooling down, words, past the promotion."""
    try:
        record, lock = latest_record(nodes), live_lock(nodes, now)
    except RecordDamaged as error:
        return Open.DAMAGED, False, False, False, str(error), False
    alive, ours = lock is not None, lock is not None and lock.holder == holder
    words = f"{record.kind} {record.op_id} ({record.phase})" if record else "an operation"
    if lock is not None and not ours:
        words += f" of {describe(lock.holder)}"
    # Also of the failover before a rejoin: without one in between there is no standby to fail over to.
    last = record.failover_at if record is not None else None
    cooling = last is not None and now.wall - last < policy.cooldown_s
    if record is None or not record.open:
        return Open.NONE, alive, ours, cooling, words, False
    # What has come to promoting has only the way forward left, and whoever comes next goes it: taken over instead, it
    # was never finished, and nothing else could begin.
    own = record.kind is OperationKind.FAILOVER and record.expected_primary == expected_primary
    same = own or record.past_return
    state = Open.SAME if same else Open.ANOTHER
    return state, alive, ours, cooling and not same, words, record.past_return
