"""Where does an operation go on that was killed? The record and the facts say."""

from dataclasses import dataclass
from enum import StrEnum

from flows.rules.fence import SUFFICIENT, Rung, held
from flows.rules.primary import Server, server_state
from flows.rules.table import Decision, Rule, first_match, require_fresh
from tasks.clock import Moment
from tasks.operation.record import OperationKind, OperationRecord, Phase
from tasks.postgres.facts import NodeFacts


class Entry(StrEnum):
    """The phase to go on with. Nothing irreversible lies before it that could happen twice."""

    OBSERVE = "OBSERVE"
    LAST_LOOK = "LAST_LOOK"
    PROVE = "PROVE"
    OPEN_TRAFFIC = "OPEN_TRAFFIC"
    SETTLE = "SETTLE"
    CLASSIFY_REJOIN = "CLASSIFY_REJOIN"
    CLOSE = "CLOSE"
    REFUSE = "REFUSE"


class Target(StrEnum):
    """The node to promote, as it is now."""

    PROMOTED = "primary, on a newer timeline"
    PRIMARY = "primary, on the same timeline"
    STANDBY = "standby"
    AWAY = "not answering"


@dataclass(frozen=True)
class ResumeView:
    """What the rules below look at; the texts are for the reasons."""

    kind: OperationKind
    open: bool
    opened: bool
    fenced: bool
    held: bool
    server: Server
    target_state: Target
    operation: str = "the operation"
    primary: str = "the old primary"
    target: str = "the new primary"


_RUNNING_PRIMARY = (Server.WRITABLE, Server.READ_ONLY, Server.HUNG)

RESUME_RULES: tuple[Rule[ResumeView, Entry], ...] = (
    Rule(
        "ended",
        "the operation is closed",
        lambda v: not v.open,
        Entry.CLOSE,
        "{operation} has ended; there is nothing to go on with.",
    ),
    Rule(
        "rejoin",
        "a rejoin: its classification is made anew from the facts",
        lambda v: v.kind is OperationKind.REJOIN,
        Entry.CLASSIFY_REJOIN,
        "{operation} is classified anew.",
    ),
    Rule(
        "two primaries",
        "both nodes run as primaries",
        lambda v: v.target_state in (Target.PROMOTED, Target.PRIMARY) and v.server in _RUNNING_PRIMARY,
        Entry.REFUSE,
        "{primary} and {target} both run as primaries.",
        "Decide which one holds the data to keep, stop the other one, then run rejoin for it.",
    ),
    Rule(
        "promoted, traffic open",
        "the target is primary on a newer timeline, and Harbor was repointed",
        lambda v: v.target_state is Target.PROMOTED and v.opened,
        Entry.SETTLE,
        "{target} is the primary and Harbor was repointed; {operation} goes on with settling.",
    ),
    Rule(
        "promoted",
        "the target is primary on a newer timeline",
        lambda v: v.target_state is Target.PROMOTED,
        Entry.OPEN_TRAFFIC,
        "{target} has been promoted; {operation} goes on with Harbor.",
    ),
    Rule(
        "target is primary on the old timeline",
        "the target is primary, and there was no promotion since the operation began",
        lambda v: v.target_state is Target.PRIMARY,
        Entry.CLOSE,
        "{target} is the primary and was before; {operation} is superseded.",
    ),
    Rule(
        "primary is back",
        "the old primary answers and accepts writes, and the target is not primary",
        lambda v: v.server is Server.WRITABLE,
        Entry.OBSERVE,
        "{primary} is the primary and nothing was promoted; {operation} begins again with looking.",
    ),
    Rule(
        "stopped for a switchover",
        "a switchover; the old primary is stopped or a standby; the target is a standby",
        lambda v: (
            v.kind is OperationKind.SWITCHOVER
            and v.target_state is Target.STANDBY
            and v.server in (Server.STOPPED, Server.STANDBY)
        ),
        Entry.PROVE,
        "{primary} was stopped for {operation}: it goes on with proving that {target} has everything.",
    ),
    Rule(
        "fenced",
        "a sufficient rung is recorded, or the old primary is seen held; the target is a standby",
        lambda v: (v.fenced or v.held) and v.target_state is Target.STANDBY,
        Entry.LAST_LOOK,
        "{primary} is fenced and {target} is not promoted; {operation} goes on with the last look.",
    ),
    Rule(
        "from the start",
        "otherwise",
        lambda v: True,
        Entry.OBSERVE,
        "Nothing irreversible was done by {operation}; it begins again with looking.",
    ),
)


def re_entry(record: OperationRecord, primary: NodeFacts, target: NodeFacts, now: Moment) -> Decision[Entry]:
    """Say where an open operation goes on.

    Args:
        record: the operation record, the copy that is further on.
        primary: facts of the node that it began with as primary.
        target: facts of the node to promote.
        now: the moment of the decision.

    Raises:
        FactsTooOld: when facts are too old to decide on.
    """
    require_fresh([(primary.name, primary.observed_at), (target.name, target.observed_at)], now)
    view = ResumeView(
        kind=record.kind,
        open=record.open,
        opened=record.phase is Phase.SETTLING,
        fenced=record.fence is not None and record.fence.rung in {rung.value for rung in SUFFICIENT},
        held=held(primary),
        server=server_state(primary),
        target_state=_target(target, record.from_timeline),
        operation=f"{record.kind} {record.op_id}",
        primary=primary.name,
        target=target.name,
    )
    return first_match(RESUME_RULES, view)


def recorded_rung(record: OperationRecord) -> Rung:
    """Return the rung that the record names; REFUSE when it names none that exists."""
    name = record.fence.rung if record.fence else ""
    return Rung(name) if name in set(Rung) else Rung.REFUSE


def _target(target: NodeFacts, from_timeline: int | None) -> Target:
    if target.server is None:
        return Target.AWAY
    if target.server.in_recovery:
        return Target.STANDBY
    newer = from_timeline is None or target.server.timeline > from_timeline
    return Target.PROMOTED if newer else Target.PRIMARY
