"""Where does an operation go on that was killed? The record, the target seen under our lock, and the facts say."""

from dataclasses import dataclass
from enum import StrEnum

from flows.rules.primary import Server, server_state
from flows.rules.table import Decision, Rule, first_match, require_fresh
from tasks.clock import Moment
from tasks.operation.record import OperationKind, OperationRecord, Phase
from tasks.postgres.facts import NodeFacts


class Entry(StrEnum):
    """The phase to go on with. Nothing irreversible lies before it that could happen twice."""

    OBSERVE = "OBSERVE"
    PROVE = "PROVE"
    OPEN_TRAFFIC = "OPEN_TRAFFIC"
    FINISH = "FINISH"
    CLASSIFY_REJOIN = "CLASSIFY_REJOIN"
    CLOSE = "CLOSE"
    REFUSE = "REFUSE"


class Target(StrEnum):
    """The node to promote, as it is now; asked on the node itself, after its lock has become ours."""

    PROMOTED = "primary, on a newer timeline"
    PRIMARY = "primary, on the same timeline"
    PENDING = "standby, told to promote itself"
    STANDBY = "standby, and stays one"
    AWAY = "not answering"


@dataclass(frozen=True)
class ResumeView:
    """What the rules below look at; the texts are for the reasons.

    Attributes:
        past_return: the record has come to promoting: the target may be the primary, whatever is seen of it.
    """

    kind: OperationKind
    open: bool
    past_return: bool
    opened: bool
    server: Server
    target_state: Target
    operation: str = "the operation"
    primary: str = "the old primary"
    target: str = "the new primary"


_RUNNING_PRIMARY = (Server.WRITABLE, Server.READ_ONLY, Server.HUNG, Server.STARTING)

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
        Entry.FINISH,
        "{target} is the primary and Harbor was repointed; {operation} goes on with what is left.",
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
        "promotion under way",
        "the target was told to promote itself and is still in recovery",
        lambda v: v.target_state is Target.PENDING,
        Entry.REFUSE,
        "{target} was told to promote itself and becomes the primary at any moment.",
        "Run again in a few seconds; {primary} must stay down. A restart of PostgreSQL on {target} takes it back.",
    ),
    Rule(
        "promoted or not",
        "promoting was recorded, and the target does not answer: not to be reached is not to be unpromoted",
        lambda v: v.past_return and v.target_state is Target.AWAY,
        Entry.REFUSE,
        "{target} was about to be promoted and does not answer: it may be the primary.",
        "Bring {target} back and run again; it goes on. Until then {primary} must stay down.",
    ),
    Rule(
        "target away",
        "a switchover whose target does not answer, while the old primary does not run as one",
        lambda v: (
            v.kind is OperationKind.SWITCHOVER
            and v.target_state is Target.AWAY
            and v.server is not Server.WRITABLE
        ),
        Entry.REFUSE,
        "{target} does not answer, so it cannot be seen that it was not promoted; {primary} is {server}.",
        "Bring {target} back and run again; it goes on, or takes {primary} back.",
    ),
    Rule(
        "primary is back",
        "the old primary answers and accepts writes, and the target is no primary",
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
        "from the start",
        "otherwise: a fence counts only for the process that climbed it",
        lambda v: True,
        Entry.OBSERVE,
        "Nothing was promoted by {operation}; it begins again with looking, and fences anew.",
    ),
)


def re_entry(
    record: OperationRecord, primary: NodeFacts, target: NodeFacts, held: Target, now: Moment
) -> Decision[Entry]:
    """Say where an open operation goes on.

    Args:
        record: the operation record, the copy that is further on.
        primary: facts of the node that it began with as primary.
        target: facts of the node to promote, for their age.
        held: what the target is, asked after its lock was taken.
        now: the moment of the decision.

    Raises:
        FactsTooOld: when facts are too old to decide on.
    """
    require_fresh([(primary.name, primary.observed_at), (target.name, target.observed_at)], now)
    view = ResumeView(
        kind=record.kind,
        open=record.open,
        past_return=record.past_return,
        opened=record.phase is Phase.SETTLING,
        server=server_state(primary),
        target_state=held,
        operation=f"{record.kind} {record.op_id}",
        primary=primary.name,
        target=target.name,
    )
    return first_match(RESUME_RULES, view)


def target_of_hold(state: str, timeline: int | None, from_timeline: int | None) -> Target:
    """Read the answer of the node: `standby`, `pending`, `primary` or `down`, and its timeline."""
    if state == "primary":
        newer = from_timeline is None or timeline is None or timeline > from_timeline
        return Target.PROMOTED if newer else Target.PRIMARY
    return {"standby": Target.STANDBY, "pending": Target.PENDING}.get(state, Target.AWAY)
