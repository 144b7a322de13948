"""Is the primary dead, ill, or only out of sight?"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from flows.rules.table import Decision, Rule, first_match, require_fresh
from tasks.clock import Moment
from tasks.operation.witnesses import Witnesses
from tasks.postgres.facts import NodeFacts

# What the control file says during crash recovery, and how a server then turns clients away.
_RECOVERING = ("starting up", "in crash recovery")
_SAYS_STARTING = ("is starting up", "is in recovery mode", "is not yet accepting connections")

# PostgreSQL cannot even start in less: crash recovery wants a WAL segment and some room.
START_NEEDS_BYTES = 64 << 20


class Server(StrEnum):
    """PostgreSQL on the primary's machine, as seen over SSH."""

    WRITABLE = "writable primary"
    READ_ONLY = "read-only primary"
    STANDBY = "standby"
    HUNG = "running, not answering"
    STARTING = "starting, in crash recovery"
    STOPPED = "stopped"
    UNUSABLE = "cannot run or write"
    UNSEEN = "not seen"


class Other(StrEnum):
    """The best that is known of the other database nodes."""

    PRIMARY = "is primary"
    HEARS = "standby, hears the primary"
    SILENT = "standby, hears nothing"
    DOWN = "its server does not answer"
    UNREACHABLE = "not reached"


class Contact(StrEnum):
    """What the witnesses say together."""

    SEEN = "somebody sees it"
    LOST = "all have lost it"
    UNKNOWN = "some have no vote"


class Primary(StrEnum):
    """What the primary is taken for."""

    HEALTHY = "HEALTHY"
    READ_ONLY = "READ_ONLY"
    HUNG = "HUNG"
    STARTING = "STARTING"
    DOWN_HOST_UP = "DOWN_HOST_UP"
    BROKEN = "BROKEN"
    DEMOTED = "DEMOTED"
    CONTROL_PARTITION = "CONTROL_PARTITION"
    WRITERS_ATTACHED = "WRITERS_ATTACHED"
    UNRESPONSIVE = "UNRESPONSIVE"
    GONE = "GONE"
    AMBIGUOUS = "AMBIGUOUS"
    ALREADY_PROMOTED = "ALREADY_PROMOTED"
    SPLIT_BRAIN = "SPLIT_BRAIN"


@dataclass(frozen=True)
class PrimaryView:
    """What the rules below look at; the texts are for the reasons.

    Attributes:
        unresponsive: its kernel completes TCP handshakes and nothing else is seen of it, and clients cannot write.
    """

    server: Server
    other: Other
    contact: Contact
    unresponsive: bool = False
    primary: str = "the primary"
    standby: str = "the standby"
    sightings: str = ""
    gaps: str = ""
    trouble: str = ""


# Whatever runs there and is no standby.
RUNS_AS_PRIMARY = (Server.WRITABLE, Server.READ_ONLY, Server.HUNG, Server.STARTING)

Rules = tuple[Rule[PrimaryView, Primary], ...]

PRIMARY_RULES: Rules = (
    Rule(
        "split brain",
        "the server runs here in any form but standby, and another node is primary",
        lambda v: v.other is Other.PRIMARY and v.server in RUNS_AS_PRIMARY,
        Primary.SPLIT_BRAIN,
        "{primary} runs as a primary ({server}) and {standby} is a primary too.",
        "Decide which one holds the data to keep, stop the other one, then run rejoin for it.",
    ),
    Rule(
        "already promoted",
        "another node is primary; here nothing runs as a primary, or nothing is seen",
        lambda v: v.other is Other.PRIMARY,
        Primary.ALREADY_PROMOTED,
        "{standby} is the primary already; {primary} is {server}.",
        "Run rejoin for {primary} when its machine is back.",
    ),
    Rule(
        "healthy",
        "SSH works and the server answers and accepts writes",
        lambda v: v.server is Server.WRITABLE,
        Primary.HEALTHY,
        "{primary} answers as a writable primary.",
    ),
    Rule(
        "read-only",
        "SSH works and the server answers, but its transactions are read-only",
        lambda v: v.server is Server.READ_ONLY,
        Primary.READ_ONLY,
        "{primary} is a primary whose default_transaction_read_only is on.",
        "Somebody set it, and a failover would not undo it: find out why, then set it off and reload.",
    ),
    Rule(
        "starting",
        "SSH works; the server replays its WAL after a crash and lets nobody in yet",
        lambda v: v.server is Server.STARTING,
        Primary.STARTING,
        "PostgreSQL on {primary} is in crash recovery: it does not hang, and a kill would only begin it anew.",
    ),
    Rule(
        "hung",
        "SSH works; the server runs and does not answer",
        lambda v: v.server is Server.HUNG,
        Primary.HUNG,
        "PostgreSQL on {primary} runs and does not answer: {trouble}",
    ),
    Rule(
        "down, host up",
        "SSH works; the server is stopped",
        lambda v: v.server is Server.STOPPED,
        Primary.DOWN_HOST_UP,
        "PostgreSQL on {primary} is stopped while its machine is up.",
    ),
    Rule(
        "broken",
        "SSH works; the server cannot run or cannot write there",
        lambda v: v.server is Server.UNUSABLE,
        Primary.BROKEN,
        "PostgreSQL cannot work on {primary}: {trouble}",
        "Repair the machine, then run rejoin for it.",
    ),
    Rule(
        "demoted",
        "SSH works; the server runs as a standby and there is no other primary",
        lambda v: v.server is Server.STANDBY,
        Primary.DEMOTED,
        "{primary} runs as a standby, and no node is primary.",
    ),
    Rule(
        "control path only",
        "not reached; the standby hears it",
        lambda v: v.other is Other.HEARS,
        Primary.CONTROL_PARTITION,
        "{primary} cannot be reached from here, but {standby} still receives WAL from it: it is alive.",
        # A WAL sender speaks from memory: of a machine whose system and data lie on one storage that hangs, this is all
        # that is seen.
        "Repair the path from the orchestrator to {primary}. Where clients cannot write all the same, its disks may "
        "hang: switch {primary} off at its power supply, hypervisor or cloud console, look that it is off, and call "
        "again.",
    ),
    Rule(
        "unresponsive",
        "not reached; the standby has lost it; only its kernel answers, and a write through the load balancer fails",
        lambda v: v.unresponsive and v.contact is Contact.SEEN and v.other is Other.SILENT,
        Primary.UNRESPONSIVE,
        "{primary} completes TCP handshakes and does nothing else: {standby} has lost it, {sightings}, and clients "
        "cannot write.",
        "The fence command switches it off. Without one: switch {primary} off at its power supply, hypervisor or "
        "cloud console, look that it is off, and call again.",
    ),
    Rule(
        "writers attached",
        "not reached; the standby has lost it; a witness sees it",
        lambda v: v.contact is Contact.SEEN,
        Primary.WRITERS_ATTACHED,
        "{primary} cannot be reached from here, but {sightings}.",
        "Repair the path to {primary}, or make sure that it is off and call again.",
    ),
    Rule(
        "orchestrator isolated",
        "no database node is reached",
        lambda v: v.other is Other.UNREACHABLE,
        Primary.AMBIGUOUS,
        "Neither {primary} nor {standby} can be reached: the trouble may be the orchestrator's own.",
        "Check the orchestrator's network first.",
    ),
    Rule(
        "no second opinion",
        "not reached; the standby's server does not answer",
        lambda v: v.other is Other.DOWN,
        Primary.AMBIGUOUS,
        "{primary} cannot be reached and {standby} has no running server that could tell.",
        "Bring one of the two back; look at {standby} first.",
    ),
    Rule(
        "a witness is missing",
        "not reached; the standby has lost it; some witness could not be asked, or never saw it",
        lambda v: v.contact is Contact.UNKNOWN,
        Primary.AMBIGUOUS,
        "{primary} cannot be reached and {standby} has lost it, but it may still be written to: {gaps}.",
        "Make the missing witness answer, or make sure that {primary} is off and attest it. Who sees a node is "
        "noted by `check` while the site is well.",
    ),
    Rule(
        "gone",
        "not reached; the standby and every witness have lost it",
        lambda v: True,
        Primary.GONE,
        "{primary} cannot be reached over any path; {standby} and every witness have lost it.",
    ),
)


def classify_primary(
    primary: NodeFacts,
    others: Sequence[NodeFacts],
    witnesses: Witnesses,
    now: Moment,
    *,
    unresponsive: bool = False,
) -> Decision[Primary]:
    """Say what has become of the primary.

    Args:
        primary: facts of the node that is expected to be the primary, over the best path that was found.
        others: facts of the other database nodes.
        witnesses: what everybody else sees of it.
        now: the moment of the decision.
        unresponsive: only its kernel answers, and a write through the load balancer has failed just now.

    Raises:
        FactsTooOld: when any of it is too old to decide on.
    """
    seen = [(node.name, node.observed_at) for node in (primary, *others)]
    require_fresh([*seen, ("the witnesses", witnesses.observed_at)], now)
    return first_match(PRIMARY_RULES, primary_view(primary, others, witnesses, unresponsive))


def primary_view(
    primary: NodeFacts, others: Sequence[NodeFacts], witnesses: Witnesses, unresponsive: bool = False
) -> PrimaryView:
    """Condense facts to what the rules look at."""
    other = other_state(others)
    standby = ", ".join(node.name for node in others if _other(node) is other) or "no other database node"
    return PrimaryView(
        server=server_state(primary),
        other=other,
        contact=contact_of(witnesses),
        unresponsive=unresponsive and witnesses.only_handshakes,
        primary=primary.name,
        standby=standby,
        sightings=", ".join(witnesses.sightings),
        gaps=", ".join(witnesses.unknown),
        trouble=_trouble(primary),
    )


def agreed(rounds: Sequence[Decision[Primary]]) -> Decision[Primary]:
    """Make one decision of several rounds of looking; one round that differs is enough to hold back.

    Raises:
        ValueError: without any round.
    """
    if not rounds:
        raise ValueError("no round of observation")
    kinds = [decision.kind for decision in rounds]
    for calm in (Primary.SPLIT_BRAIN, Primary.HEALTHY, Primary.ALREADY_PROMOTED):
        if calm in kinds:
            return rounds[kinds.index(calm)]
    if len(set(kinds)) == 1:
        return rounds[-1]
    return Decision(
        Primary.AMBIGUOUS,
        "rounds differ",
        (f"The rounds of observation do not agree: {', '.join(kinds)}.",),
        ("Wait until the network is stable and call again.",),
        evidence=rounds[-1].evidence,
    )


def server_state(node: NodeFacts) -> Server:
    """Say how PostgreSQL is on a node."""
    if not node.reachable:
        return Server.UNSEEN
    cluster = node.cluster
    if node.server is not None:
        if node.server.in_recovery:
            return Server.STANDBY
        if cluster is not None and not cluster.writable:
            return Server.UNUSABLE
        return Server.READ_ONLY if node.server.read_only else Server.WRITABLE
    if cluster is None:
        # The look at the directory itself failed: that is not an empty one, and a server may be running.
        return Server.HUNG if "cluster" in node.problems else Server.UNUSABLE
    if cluster.processes:
        if cluster.standby_signal:
            return Server.STANDBY
        return Server.STARTING if _starting(node) else Server.HUNG
    full = node.data_disk is not None and node.data_disk.free < START_NEEDS_BYTES
    return Server.UNUSABLE if full or not cluster.writable or cluster.control is None else Server.STOPPED


def _starting(node: NodeFacts) -> bool:
    """Tell a server in crash recovery from one that hangs, by what it writes down and by what it answers."""
    cluster = node.cluster
    if cluster is None or cluster.postmaster_status == "stopping":
        return False
    recovering = cluster.control is not None and cluster.control.state in _RECOVERING
    told = any(words in node.problems.get("server", "") for words in _SAYS_STARTING)
    return cluster.postmaster_status == "starting" or recovering or told


def other_state(others: Sequence[NodeFacts]) -> Other:
    """Say the best that is known of the other nodes; a primary or a hearing standby outweighs the rest."""
    states = {_other(node) for node in others}
    return next((state for state in Other if state in states), Other.UNREACHABLE)


def contact_of(witnesses: Witnesses) -> Contact:
    """Add up the witnesses: one sighting outweighs everything, one gap outweighs every loss."""
    if witnesses.sightings:
        return Contact.SEEN
    return Contact.UNKNOWN if witnesses.unknown else Contact.LOST


def _other(node: NodeFacts) -> Other:
    if not node.reachable:
        return Other.UNREACHABLE
    if node.server is None:
        return Other.DOWN
    if not node.server.in_recovery:
        return Other.PRIMARY
    receiver = node.server.receiver
    return Other.HEARS if receiver is not None and receiver.fresh else Other.SILENT


def _trouble(node: NodeFacts) -> str:
    cluster = node.cluster
    if cluster is None:
        return node.problems.get("cluster") or "there is no cluster in its data directory."
    if not cluster.writable:
        return "its data directory cannot be written to (file system read-only?)."
    if node.data_disk is not None and node.data_disk.free < START_NEEDS_BYTES:
        return f"its data disk is full ({node.data_disk.free >> 20} MiB free)."
    return node.problems.get("control") or node.problems.get("server") or "no SQL was answered."
