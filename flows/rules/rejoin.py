"""How does a node become a standby again: follow, rewind or clone?"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from flows.rules.table import Decision, Rule, first_match, require_fresh
from tasks.clock import Moment
from tasks.operation.files import REWIND
from tasks.postgres.controldata import IN_ARCHIVE_RECOVERY, SHUT_DOWN, SHUT_DOWN_IN_RECOVERY, ControlData
from tasks.postgres.facts import Cluster, NodeFacts, Server
from tasks.postgres.history import FIRST, TimelineHistory
from tasks.postgres.lsn import Lsn

# Methods in backup_label.
PG_REWIND = "pg_rewind"
BASE_BACKUP = "streamed"


class Rejoin(StrEnum):
    """What is done to the node. STOP_FIRST leads to another look."""

    NOTHING = "NOTHING"
    STOP_FIRST = "STOP_FIRST"
    START_ONLY = "START_ONLY"
    FOLLOW = "FOLLOW"
    REWIND = "REWIND"
    CLONE = "CLONE"
    REFUSE = "REFUSE"


class Copy(StrEnum):
    """A copy onto the node that was begun and not started since."""

    NONE = "none"
    COMPLETE = "complete"
    HALF = "half done"


class Line(StrEnum):
    """The node's timeline against the primary's."""

    SAME = "the same"
    FORKED_SAME = "the same number, another line"
    ANCESTOR = "an ancestor"
    STRANGER = "not an ancestor"
    NEWER = "a newer one"


class End(StrEnum):
    """How the node's cluster ended."""

    AS_PRIMARY = "shut down as primary"
    AS_STANDBY = "shut down as standby"
    CRASHED_PRIMARY = "crashed as primary"
    CRASHED_STANDBY = "crashed as standby"


@dataclass(frozen=True)
class RejoinView:
    """What the rules below look at; the texts are for the reasons.

    Attributes:
        beyond: the node's WAL reaches beyond what the primary's line holds of its timeline; None: not known.
        wal_gone: the primary has dropped WAL that the node needs.
        cloning: an open rejoin of the node has begun to clone it, and the copy is not complete.
        can_rewind: checksums or wal_log_hints were on.
    """

    reached: bool
    primary_ready: bool
    follows: bool
    running: bool
    has_cluster: bool
    readable: bool
    same_system: bool
    same_major: bool
    copy: Copy
    line: Line
    end: End
    beyond: bool | None
    wal_gone: bool
    can_rewind: bool
    cloning: bool = False
    node: str = "the node"
    primary: str = "the primary"
    detail: str = ""

    @property
    def clean(self) -> bool:
        """Whether its end is on record: it was shut down, and its WAL ends within the primary's line."""
        return self.end in (End.AS_PRIMARY, End.AS_STANDBY) and self.beyond is False


REJOIN_RULES: tuple[Rule[RejoinView, Rejoin], ...] = (
    Rule(
        "not reached",
        "SSH to the node fails",
        lambda v: not v.reached,
        Rejoin.REFUSE,
        "{node} cannot be reached: {detail}",
        "Bring it back; its cluster does not start as a primary by itself.",
    ),
    Rule(
        "no primary",
        "there is no primary that answers and could be followed",
        lambda v: not v.primary_ready,
        Rejoin.REFUSE,
        "There is no single primary on another node that {node} could follow.",
        "Run check; failover or a decision of the operator comes first.",
    ),
    Rule(
        "follows already",
        "the node streams from the primary, on its timeline",
        lambda v: v.follows,
        Rejoin.NOTHING,
        "{node} follows {primary} already.",
    ),
    Rule(
        "no cluster",
        "the data directory holds no cluster",
        lambda v: not v.has_cluster,
        Rejoin.CLONE,
        "{node} has no cluster: it gets a copy.",
    ),
    Rule(
        "another major version",
        "the data directory is of another major version",
        lambda v: not v.same_major,
        Rejoin.REFUSE,
        "The cluster on {node} is of another major version of PostgreSQL than {primary}.",
        "Move the directory aside if it is not needed, then run rejoin again.",
    ),
    Rule(
        "control file unreadable",
        "pg_controldata fails and no copy was begun",
        lambda v: not v.readable and v.copy is not Copy.HALF,
        Rejoin.REFUSE,
        "The control file on {node} cannot be read, so it is not known whose database it is: {detail}",
        "Move the directory aside if it is not needed, then run rejoin again.",
    ),
    Rule(
        "another database",
        "the system identifier differs from the primary's",
        lambda v: v.readable and not v.same_system,
        Rejoin.REFUSE,
        "{node} holds another database than {primary} (system identifiers differ); it is not wiped.",
        "Find out whose it is; move the directory aside if it is not needed, then run rejoin again.",
    ),
    Rule(
        "running",
        "a server runs and does not follow",
        lambda v: v.running,
        Rejoin.STOP_FIRST,
        "PostgreSQL runs on {node} and does not follow {primary}: it is stopped and looked at again.",
    ),
    Rule(
        "copied, not started",
        "backup_label of a complete rewind or copy, on the primary's timeline",
        lambda v: v.copy is Copy.COMPLETE and v.line is Line.SAME,
        Rejoin.START_ONLY,
        "{node} was rewound or copied and not started since; a second rewind would damage it.",
    ),
    Rule(
        "copy half done",
        "a rewind was begun and is not complete",
        lambda v: v.copy is Copy.HALF,
        Rejoin.CLONE,
        "A rewind of {node} was begun and not ended; the directory is a mixture.",
    ),
    Rule(
        "newer timeline",
        "the node's timeline is higher than the primary's",
        lambda v: v.line is Line.NEWER,
        Rejoin.REFUSE,
        "{node} is on a newer timeline than {primary}: {detail}. It may be the rightful primary.",
        "Decide which one holds the data to keep; to keep {primary}, move the directory on {node} aside.",
    ),
    Rule(
        "clone begun",
        "an open rejoin of the node has begun to clone it, and no complete copy is there",
        lambda v: v.cloning and v.copy is Copy.NONE,
        Rejoin.CLONE,
        "A clone of {node} was begun and not completed; what called for it may look otherwise by now.",
    ),
    Rule(
        "copied from another line",
        "a complete rewind or copy that was not started, and the primary has changed since",
        lambda v: v.copy is Copy.COMPLETE,
        Rejoin.CLONE,
        "{node} was rewound or copied, not started, and {primary} has left that line since.",
    ),
    Rule(
        "same timeline, another line",
        "same number, but the histories differ, or the node was a primary on it, or its WAL reaches beyond",
        lambda v: (
            v.line is Line.FORKED_SAME
            or (
                v.line is Line.SAME
                and (v.end in (End.AS_PRIMARY, End.CRASHED_PRIMARY) or v.beyond is not False)
            )
        ),
        Rejoin.CLONE,
        "{node} and {primary} have written different WAL on the same timeline; a rewind cannot see that.",
    ),
    Rule(
        "needed WAL is gone",
        "the oldest WAL that the primary has begins behind what the node needs",
        lambda v: v.wal_gone and v.line in (Line.SAME, Line.ANCESTOR),
        Rejoin.CLONE,
        "{primary} no longer has the WAL that {node} needs.",
    ),
    Rule(
        "same line",
        "a standby on the primary's timeline, not beyond it",
        lambda v: v.line is Line.SAME,
        Rejoin.FOLLOW,
        "{node} was a standby on the timeline of {primary}: it goes on following.",
    ),
    Rule(
        "clean end on an ancestor",
        "shut down, and its WAL ends where the primary's line left that timeline, or before",
        lambda v: v.line is Line.ANCESTOR and v.clean,
        Rejoin.FOLLOW,
        "{node} was shut down before {primary} left its timeline: nothing diverged.",
    ),
    Rule(
        "diverged",
        "otherwise, with checksums or wal_log_hints",
        lambda v: v.can_rewind,
        Rejoin.REWIND,
        "{node} may hold WAL that {primary} never had ({end}, timeline {line}): it is rewound.",
    ),
    Rule(
        "diverged, no rewind",
        "otherwise",
        lambda v: True,
        Rejoin.CLONE,
        "{node} may hold WAL that {primary} never had, and neither checksums nor wal_log_hints were on.",
    ),
)


def classify_rejoin(
    node: NodeFacts, primary: NodeFacts, now: Moment, *, slot: str | None = None, cloning: bool = False
) -> Decision[Rejoin]:
    """Choose the cheapest safe way to make a node follow.

    Args:
        node: facts of the node.
        primary: facts of the primary.
        now: the moment of the decision.
        slot: name of the node's replication slot on the primary.
        cloning: an open rejoin of this node says that it has begun to clone.

    Raises:
        FactsTooOld: when facts are too old to decide on.
    """
    require_fresh([(node.name, node.observed_at), (primary.name, primary.observed_at)], now)
    return first_match(REJOIN_RULES, rejoin_view(node, primary, slot, cloning=cloning))


def rejoin_view(
    node: NodeFacts, primary: NodeFacts, slot: str | None, *, cloning: bool = False
) -> RejoinView:
    """Condense facts to what the rules look at."""
    cluster, control, server = node.cluster, node.control, primary.server
    history = primary.cluster.history if primary.cluster else None
    line = _line(node, primary.timeline or 0, history)
    return RejoinView(
        reached=node.reachable,
        primary_ready=primary.is_primary and primary.name != node.name,
        follows=_follows(node, primary),
        running=node.running or node.accepting,
        has_cluster=cluster is not None or "cluster" in node.problems,
        readable=control is not None,
        same_system=control is not None and control.system_identifier == primary.system_identifier,
        same_major=cluster is None or server is None or cluster.major == server.version_num // 10000,
        copy=_copy(cluster, control, node.state.get(REWIND)),
        line=line,
        end=_end(control, cluster),
        beyond=_beyond(line, control, cluster, history, server.write_lsn if server else None),
        wal_gone=_wal_gone(line, control, cluster, history, server, slot),
        cloning=cloning,
        can_rewind=control is not None and control.can_rewind,
        node=node.name,
        primary=primary.name,
        detail=_detail(node, primary),
    )


def _follows(node: NodeFacts, primary: NodeFacts) -> bool:
    server = node.server
    if server is None or not server.in_recovery or server.receiver is None:
        return False
    same = server.timeline == primary.timeline and server.system_identifier == primary.system_identifier
    return same and server.receiver.fresh


def _line(node: NodeFacts, primary_timeline: int, history: TimelineHistory | None) -> Line:
    timeline = node.timeline or 0
    if timeline > primary_timeline:
        return Line.NEWER
    history = history or FIRST
    own = node.cluster.history if node.cluster else None
    # Of both only what is below the node's timeline: it may have heard of newer ones than it is on.
    known = own is not None and own.timeline >= timeline
    differs = known and own is not None and _forks(own, timeline) != _forks(history, timeline)
    if timeline == primary_timeline:
        return Line.FORKED_SAME if differs else Line.SAME
    ancestor = history.switchpoint(timeline) is not None and not differs
    return Line.ANCESTOR if ancestor else Line.STRANGER


def _forks(history: TimelineHistory, below: int) -> list[tuple[int, Lsn]]:
    return [(fork.timeline, fork.switchpoint) for fork in history.forks if fork.timeline < below]


def _end(control: ControlData | None, cluster: Cluster | None) -> End:
    state = control.state if control else ""
    if state == SHUT_DOWN:
        return End.AS_PRIMARY
    if state == SHUT_DOWN_IN_RECOVERY:
        return End.AS_STANDBY
    # "in production", "shutting down" and "in crash recovery" are a primary's.
    return End.CRASHED_STANDBY if state == IN_ARCHIVE_RECOVERY else End.CRASHED_PRIMARY


def _beyond(
    line: Line,
    control: ControlData | None,
    cluster: Cluster | None,
    history: TimelineHistory | None,
    primary_lsn: Lsn | None,
) -> bool | None:
    """Tell whether the node's WAL reaches beyond what the primary's line holds; None when not known.

    The end of a shutdown checkpoint that could not be measured is judged by its beginning: a record that
    begins before the switchpoint ends at it or before, since a switchpoint is never inside a record.
    """
    if control is None:
        return None
    limit = history.switchpoint(control.latest_timeline) if line is Line.ANCESTOR and history else primary_lsn
    if limit is None or line not in (Line.ANCESTOR, Line.SAME):
        return None
    if control.state == SHUT_DOWN:
        end = cluster.checkpoint_end if cluster else None
        return end > limit if end is not None else control.checkpoint >= limit
    return control.min_recovery_end > limit


def _wal_gone(
    line: Line,
    control: ControlData | None,
    cluster: Cluster | None,
    history: TimelineHistory | None,
    server: Server | None,
    slot: str | None,
) -> bool:
    """Tell whether the primary has dropped WAL that the node needs, by positions.

    Not by the state of the node's slot: a clone makes it anew, and when that failed the next rejoin found a sound
    slot and let the node wait for ever for what is gone. The slot is believed only where positions are not known.
    """
    if server is None:
        return False
    if server.oldest_wal is None or control is None:
        return any(s.name == slot and s.wal_status in ("lost", "unreserved") for s in server.slots)
    needed = max(control.min_recovery_end, control.redo)
    if control.state == SHUT_DOWN:
        needed = (cluster.checkpoint_end if cluster else None) or control.checkpoint
    switchpoint = history.switchpoint(control.latest_timeline) if line is Line.ANCESTOR and history else None
    if switchpoint is not None:
        needed = min(needed, switchpoint)
    return needed < server.oldest_wal


def _copy(cluster: Cluster | None, control: ControlData | None, note: Any) -> Copy:
    """Tell how far a copy is. pg_rewind writes backup_label, then the control file: both make it complete.

    Before it begins, the program that runs it leaves a note on the node. The operation record is written earlier
    and would not tell a rewind from the intent to rewind.
    """
    begun = note is not None and not (isinstance(note, dict) and note.get("state") == "done")
    label = cluster.backup_label_method if cluster else None
    rewound = label == PG_REWIND
    in_recovery = control is not None and control.state == IN_ARCHIVE_RECOVERY
    # A label of another method is left by an exclusive backup of a primary: that is no copy at all.
    if label == BASE_BACKUP or (rewound and in_recovery):
        return Copy.COMPLETE
    return Copy.HALF if rewound or begun else Copy.NONE


def _detail(node: NodeFacts, primary: NodeFacts) -> str:
    if not node.reachable:
        return node.error
    if node.control is None:
        return node.problems.get("control", "pg_controldata gave nothing")
    return f"timeline {node.timeline} against {primary.timeline}"
