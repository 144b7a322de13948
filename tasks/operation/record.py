"""The operation record: what is being done to the site, where a second orchestrator finds it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from tasks.errors import HarborHaError
from tasks.postgres.lsn import Lsn, WalPosition


class RecordDamaged(HarborHaError):
    """A record on a node cannot be read. It must not pass for absent: an operation may be half done."""


class OperationKind(StrEnum):
    """What can be done to a site."""

    FAILOVER = "failover"
    SWITCHOVER = "switchover"
    REJOIN = "rejoin"


class Phase(StrEnum):
    """How far an operation is; written before the step that it names."""

    STARTED = "started"
    FENCING = "fencing"
    FENCED = "fenced"
    STOPPING = "stopping"  # switchover: the primary is being shut down
    TAKING_BACK = "taking back"  # nothing was promoted, and the old primary is being started again
    PROMOTING = "promoting"  # the intent: the standby may be a primary from here on
    PROMOTED = "promoted"
    OPENING = "opening"  # Harbor is being repointed
    SETTLING = "settling"
    REWINDING = "rewinding"
    CLONING = "cloning"
    FOLLOWING = "following"
    DONE = "done"
    ABORTED = "aborted"


CLOSED = frozenset({Phase.DONE, Phase.ABORTED})
# From here on the target may be the primary, whatever can be seen of it: there is only the way forward.
PAST_RETURN = frozenset({Phase.PROMOTING, Phase.PROMOTED, Phase.OPENING, Phase.SETTLING})
_ORDER = [phase for phase in Phase if phase not in (*PAST_RETURN, *CLOSED)]
_ORDER += [Phase.ABORTED, Phase.PROMOTING, Phase.PROMOTED, Phase.OPENING, Phase.SETTLING, Phase.DONE]


@dataclass(frozen=True)
class Fence:
    """How the old primary was cut off: the rung of the ladder, what showed it, and the wall time."""

    rung: str
    evidence: str
    at: float


@dataclass(frozen=True)
class LastPrimary:
    """The last that was seen of a primary: it bounds what can be lost, and says what it does when it is cut off.

    Attributes:
        at: wall time of the look.
        self_fence_s: the limit in seconds that its own guard said it goes by; None: it does not fence itself.
    """

    node: str
    position: WalPosition
    at: float
    self_fence_s: float | None = None


@dataclass(frozen=True)
class OperationRecord:
    """One operation.

    Attributes:
        op_id: drawn when it began.
        kind: what is done.
        site: the site.
        expected_primary: the primary that it began with.
        target: the node to promote, or to rejoin.
        from_timeline: the timeline that it began on.
        started_at: wall time, seconds since 1970.
        orchestrator: `host:pid` of the process that works on it.
        phase: how far it is.
        term: the number of this operation among all of the site; a node that knows a higher one obeys no lower one.
        staged: every Harbor was told to make ready for the new primary, which is to be put back on an abort.
        drained: nodes that this operation took out of the load balancer, likewise.
        system_identifier: of the cluster that it is about.
        fence: how the old primary was cut off; None before.
        last_primary: the last position seen on the old primary; None when unknown.
        durability_state: `SYNC`, `ASYNC` or `ASYNC_DEGRADED` when it began.
        promoted_timeline: the timeline after the promotion; None before.
        last_failover: wall time at which the last finished failover before this operation began; None: none.
        notes: what else the report needs, without secrets.
        revision: how often it was changed since it began. A node that was away has an older copy of the same phase,
            and whoever went on by that did not know whom the run had drained.
    """

    op_id: str
    kind: OperationKind
    site: str
    expected_primary: str
    target: str
    from_timeline: int | None
    started_at: float
    orchestrator: str
    phase: Phase = Phase.STARTED
    system_identifier: str | None = None
    fence: Fence | None = None
    last_primary: LastPrimary | None = None
    durability_state: str | None = None
    promoted_timeline: int | None = None
    last_failover: float | None = None
    term: int = 0
    staged: bool = False
    drained: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    revision: int = 0

    @property
    def open(self) -> bool:
        """Whether it has not come to an end."""
        return self.phase not in CLOSED

    @property
    def past_return(self) -> bool:
        """Whether the promotion may have happened: nothing before it may be taken back any more."""
        return self.phase in PAST_RETURN and self.kind is not OperationKind.REJOIN

    @property
    def progress(self) -> tuple[int, float, int, int]:
        """Order copies of records: the later operation, then what was written last."""
        return self.term, self.started_at, self.revision, _ORDER.index(self.phase)

    @property
    def failover_at(self) -> float | None:
        """When the last finished failover began, this operation included."""
        failed_over = self.kind is OperationKind.FAILOVER and self.phase is Phase.DONE
        return self.started_at if failed_over else self.last_failover

    def at(self, phase: Phase, **changes: Any) -> "OperationRecord":
        """Return the record in another phase, with other values where given."""
        return replace(self, phase=phase, revision=self.revision + 1, **changes)


@dataclass(frozen=True)
class Lock:
    """Who works on the site.

    Attributes:
        expires_at: wall time of the node; the lock is over when it has passed without a renewal.
        ttl_s: seconds from one renewal to the end.
        renewed: when it was renewed last, by the node's clock since its boot, which judges it there.
        written: when the newest record was written, likewise; an intent is as old as that.
        sent: when its holder sent the newest of what is here, by the holder's own clock since boot.
    """

    op_id: str
    holder: str
    taken_at: float
    expires_at: float
    ttl_s: float = 0.0
    renewed: Mapping[str, Any] | None = None
    written: Mapping[str, Any] | None = None
    sent: float | None = None

    def alive(self, wall: float, boot: str | None = None, uptime: float | None = None) -> bool:
        """Tell whether the holder may still be working, as the node would (`tasks.on_node.authority.alive`).

        Args:
            wall: the node's wall clock, which somebody may have set since.
            boot: the node's boot; None: not known.
            uptime: seconds since that boot, which nobody sets.
        """
        if self.renewed is None or boot is None or uptime is None:
            return wall < self.expires_at
        if self.renewed["boot"] == boot:
            return uptime - float(self.renewed["uptime"]) < self.ttl_s
        # Renewed before this boot.
        return wall < self.expires_at and uptime < self.ttl_s


def to_json(record: OperationRecord | Lock | LastPrimary) -> str:
    """Write a record as JSON, sorted, so that equal records are equal files."""
    return json.dumps(asdict(record), sort_keys=True, indent=1, default=str) + "\n"


def acceptance(primary: str, timeline: int, system_identifier: str, term: int) -> str:
    """Write accepted.json: who is the primary from now on; a lower timeline is not primary any more."""
    value = {"primary": primary, "timeline": timeline, "system_identifier": system_identifier, "term": term}
    return json.dumps(value, sort_keys=True) + "\n"


def record_from(value: Any, where: str = "") -> OperationRecord | None:
    """Read a record from decoded JSON; None when there is none.

    Raises:
        RecordDamaged: when something is there and cannot be read.
    """
    if value is None:
        return None
    try:
        fields = dict(value)
        fields["kind"] = OperationKind(fields["kind"])
        fields["phase"] = Phase(fields["phase"])
        fields["fence"] = Fence(**fields["fence"]) if fields.get("fence") else None
        fields["last_primary"] = _last_primary(fields.get("last_primary"))
        fields["drained"] = tuple(fields.get("drained", ()))
        return OperationRecord(**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged("operation record", where, error) from error


def lock_from(value: Any, where: str = "") -> Lock | None:
    """Read a lock from decoded JSON; None when there is none.

    Raises:
        RecordDamaged: when something is there and cannot be read.
    """
    if value is None:
        return None
    try:
        lock = Lock(**value)
        moment = lock.renewed
        renewed = moment and {"boot": str(moment["boot"]), "uptime": float(moment["uptime"])}
        return replace(
            lock, taken_at=float(lock.taken_at), expires_at=float(lock.expires_at), renewed=renewed
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged("lock", where, error) from error


def last_primary_from(value: Any, where: str = "") -> LastPrimary | None:
    """Read the last position of a primary from decoded JSON; None when there is none.

    Raises:
        RecordDamaged: when something is there and cannot be read.
    """
    try:
        return _last_primary(value)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged("last primary position", where, error) from error


def _last_primary(value: Any) -> LastPrimary | None:
    if value is None:
        return None
    position = value["position"]
    lsn = position["lsn"]
    at = WalPosition(int(position["timeline"]), Lsn(lsn) if isinstance(lsn, int) else Lsn.parse(lsn))
    limit = value.get("self_fence_s")
    return LastPrimary(str(value["node"]), at, float(value["at"]), None if limit is None else float(limit))


def _damaged(what: str, where: str, error: Exception) -> RecordDamaged:
    return RecordDamaged(
        f"The {what} cannot be read: {type(error).__name__}: {error}.",
        where=where,
        meaning="An operation may be half done there; it is not taken for absent.",
        remedy="Look at the files in /var/lib/harbor-ha; move the damaged one aside when the state is known.",
    )
