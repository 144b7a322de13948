"""What one line of a beacon says, as frozen facts in the orchestrator's own time."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.errors import HarborHaError
from tasks.postgres.lsn import Lsn, WalPosition

# A line is a few hundred bytes; the notes of a site with ten nodes are a few thousand.
MAX_LINE = 64 << 10
# Two machines' clocks run apart by less; a line is not taken for late because of that.
_DRIFT = 2e-4


class LineDamaged(HarborHaError):
    """A line of a beacon cannot be read; the next one may."""


@dataclass(frozen=True)
class SenderBeat:
    """A standby that streams from a primary, as the primary tells it; `lag_s` is None while nothing is written."""

    name: str
    state: str
    sync_state: str
    lag_bytes: int | None
    lag_s: float | None


@dataclass(frozen=True)
class Beat:
    """One line. Moments are of the orchestrator's monotonic clock, seconds.

    Attributes:
        node: who told it.
        written_at: when it was written, as near as can be told.
        up_s: seconds since the node's boot.
        boot: which boot that is.
        answered_at: when the question was put to which the newest answer of its server is; None before the first.
        well_at: until when no question to its server was left open; None: as `answered_at`.
        open_at: until when it let in who knocked; None: nobody since the beacon began.
        ended: its session has ended, and no new one has answered yet.
        in_recovery: a standby; None before the first answer.
        timeline: of a primary; of a standby that receives.
        lsn: written on a primary, received on a standby.
        read_only: its transactions are.
        sync_names: synchronous_standby_names.
        receiver: the status of a standby's receiver, empty when it has none.
        heard_at: when a standby last heard its primary.
        senders: the standbys of a primary.
        session_at: when the first line of this session was written.
        shared_at: when it read last what is on the NAS; None: not in this session.
        guard_age_s: seconds since its guard said that it runs; None when it did not.
        notes: the state files of the node, as it told them last.
        kept: what became of notes that it was to keep, by name: `kept`, `older` (what is there is newer), or why not.
    """

    node: str
    written_at: float
    up_s: float = 0.0
    boot: str = ""
    answered_at: float | None = None
    well_at: float | None = None
    open_at: float | None = None
    ended: bool = False
    in_recovery: bool | None = None
    timeline: int | None = None
    lsn: Lsn | None = None
    replay_lsn: Lsn | None = None
    read_only: bool = False
    sync_names: str = ""
    receiver: str = ""
    heard_at: float | None = None
    senders: tuple[SenderBeat, ...] = ()
    guard_age_s: float | None = None
    session_at: float = -math.inf
    shared_at: float | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)

    @property
    def good_at(self) -> float:
        """When its server last answered whoever is in, and let in who was not; minus infinity before that."""
        known = (self.answered_at if self.well_at is None else self.well_at, self.open_at)
        return min(-math.inf if at is None else at for at in known)

    @property
    def position(self) -> WalPosition | None:
        """Where a primary writes."""
        if self.in_recovery is not False or self.timeline is None or self.lsn is None:
            return None
        return WalPosition(self.timeline, self.lsn)

    @property
    def self_fence_s(self) -> float | None:
        """The limit that its guard goes by, while it runs; None: it does not fence itself."""
        guard = self.notes.get("guard")
        limit = guard.get("self_fence_s") if isinstance(guard, dict) else None
        fresh = self.guard_age_s is not None and self.guard_age_s < GUARD_LIMIT_S
        return float(limit) if fresh and isinstance(limit, int | float) else None


# As `tasks.postgres.facts`: a guard that has not told for 20 s does not run.
GUARD_LIMIT_S = 20.0


class Ear:
    """Reads the lines of one connection, one after the other.

    A line that waited in a buffer looks new when it comes. The least time that any line of the connection took is
    taken for the way; what is longer is the age of the line.

    Args:
        node: whose lines.
        notes: what the node told last over the connection before.
    """

    def __init__(self, node: str, notes: Mapping[str, Any] | None = None) -> None:
        self.node = node
        self.notes: Mapping[str, Any] = dict(notes or {})
        self._way: float | None = None
        self._boot = ""
        self._read_at = 0.0
        self._begun_at: float | None = None

    def read(self, told: Any, now: float) -> Beat:
        """Read a line.

        Args:
            told: decoded JSON.
            now: when it came, by the monotonic clock.

        Raises:
            LineDamaged: it is not a beacon's.
        """
        try:
            return self._read(told, now)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise LineDamaged(f"A line cannot be read ({type(error).__name__}).", where=self.node) from error

    def _read(self, told: Any, now: float) -> Beat:
        up, boot = float(told["up"]), str(told["boot"])
        written = self._written(up, boot, now)
        self._begun_at = written if self._begun_at is None else self._begun_at
        if "notes" in told:
            # What the NAS said stands until it is read again: it may hang.
            of_nas = {name: note for name, note in self.notes.items() if name == "shared_paused"}
            self.notes = {**of_nas, **told["notes"]}
        sql: dict[str, Any] = told["sql"] or {}
        answered = _ago(written, told["sql_age"])
        receiver: dict[str, Any] = sql.get("receiver") or {}
        return Beat(
            node=self.node,
            written_at=written,
            up_s=up,
            boot=boot,
            answered_at=answered,
            well_at=_ago(written, told["sql_well_age"]),
            open_at=_ago(written, told["door_well_age"]),
            ended=bool(told["ended"]),
            in_recovery=None if not sql else bool(sql["in_recovery"]),
            timeline=_whole(sql.get("timeline")),
            lsn=_lsn(sql.get("lsn")),
            replay_lsn=_lsn(sql.get("replay_lsn")),
            read_only=bool(sql.get("read_only")),
            sync_names=str(sql.get("sync_names") or ""),
            receiver=str(receiver.get("status") or ""),
            heard_at=None if answered is None else _ago(answered, receiver.get("age_s")),
            senders=tuple(map(_sender, sql.get("senders") or ())),
            guard_age_s=_number(told.get("guard_age")),
            session_at=self._begun_at,
            shared_at=_ago(written, told.get("shared_age")),
            notes=self.notes,
            kept={str(name): str(word) for name, word in (told.get("kept") or {}).items()},
        )

    def _written(self, up: float, boot: str, now: float) -> float:
        way = now - up
        if self._way is None or boot != self._boot:
            self._way, self._boot = way, boot
        else:
            self._way = min(way, self._way + (now - self._read_at) * _DRIFT)
        self._read_at = now
        return min(now, up + self._way)


def _ago(moment: float, age: Any) -> float | None:
    return None if age is None else moment - max(0.0, float(age))


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _lsn(value: Any) -> Lsn | None:
    return None if value is None else Lsn.parse(str(value))


def _sender(row: Any) -> SenderBeat:
    lag = _whole(row["lag_bytes"])
    return SenderBeat(str(row["name"]), str(row["state"]), str(row["sync_state"]), lag, _number(row["lag_s"]))
