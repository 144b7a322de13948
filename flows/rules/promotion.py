"""May this standby be promoted, and what would be lost?"""

from dataclasses import dataclass
from enum import StrEnum

from flows.rules.policy import Policy
from flows.rules.table import Check, Decision, Weight, require_fresh, weigh
from tasks.clock import Moment
from tasks.operation.files import DURABILITY, HEARD
from tasks.operation.record import LastPrimary
from tasks.postgres.facts import FRESH_MESSAGE_S, NodeFacts
from tasks.postgres.lsn import Lsn

# Below this share of free space a new primary would stop within hours.
MIN_FREE_SHARE = 0.10
# With these in postgresql.auto.conf a promotion would stop at a recovery target of long ago.
RECOVERY_TARGET = "recovery_target"
# What must not stand in postgresql.auto.conf: it beats conf.d, and base backups carry it to the other node.
OVERRIDES = ("primary_conninfo", "primary_slot_name", "restore_command", "recovery_end_command")


class MayPromote(StrEnum):
    """Whether the standby qualifies."""

    ALLOW = "ALLOW"
    REFUSE = "REFUSE"


@dataclass(frozen=True)
class CandidateView:
    """A standby held against the primary that it would replace.

    Attributes:
        lag_bytes: last known position of the primary minus that of the standby; None when unknown.
        position_exact: the primary's end is known from its control file, written at a clean shutdown.
        position_age_s: from the last known position to the primary's last sign of life.
    """

    standby: str
    reached: bool
    answers: bool
    in_recovery: bool
    same_system: bool | None
    timeline_behind: bool
    hears_primary: bool
    replay_paused: bool
    lag_bytes: int | None
    max_lag_bytes: int
    position_exact: bool
    position_age_s: float | None
    position_limit_s: float
    promised_sync: bool
    recorded_sync: bool
    free_share: float | None
    hba_errors: int
    recovery_target: bool
    overrides: str = ""
    why_not_reached: str = ""

    @property
    def lag_known(self) -> bool:
        """Whether the loss can be bounded."""
        return self.lag_bytes is not None


def _answering(view: CandidateView) -> bool:
    return view.reached and view.answers


CANDIDATE_CHECKS: tuple[Check[CandidateView], ...] = (
    Check(
        "standby not reached",
        "SSH to the standby fails",
        lambda v: not v.reached,
        Weight.REFUSE,
        "{standby} cannot be reached: {why_not_reached}",
        "Bring {standby} back; there is nothing else to promote.",
    ),
    Check(
        "standby not answering",
        "reached, but no SQL is answered",
        lambda v: v.reached and not v.answers,
        Weight.REFUSE,
        "PostgreSQL on {standby} does not answer.",
        "Start it as a standby and call again.",
    ),
    Check(
        "not a standby",
        "the server is not in recovery",
        lambda v: _answering(v) and not v.in_recovery,
        Weight.REFUSE,
        "{standby} is not in recovery: there is nothing to promote.",
        "Run check; {standby} may be the primary already.",
    ),
    Check(
        "another database",
        "the system identifier differs from the primary's",
        lambda v: _answering(v) and v.same_system is False,
        Weight.REFUSE,
        "{standby} holds another database than the primary (system identifiers differ).",
        "Find out whose database it is; it is not promoted.",
    ),
    Check(
        "database not known",
        "the primary's system identifier is not known from anywhere",
        lambda v: _answering(v) and v.same_system is None,
        Weight.REFUSE,
        "Nothing on the nodes says which database is this site's.",
        "Run bootstrap or check while the site is up; it records the database's identity.",
    ),
    Check(
        "older timeline",
        "the standby is on a lower timeline than the last known primary",
        lambda v: _answering(v) and v.timeline_behind,
        Weight.REFUSE,
        "{standby} is on an older timeline than the last primary: it missed a promotion.",
        "Bring the last primary back, or restore from a backup.",
    ),
    Check(
        "primary is heard",
        "the standby's receiver is fresh, and the primary is neither seen stopped nor seen to commit nothing any more",
        lambda v: _answering(v) and v.hears_primary,
        Weight.REFUSE,
        "{standby} still receives WAL from the primary: it is alive.",
        "Nothing to do for the database; find out why the alert came.",
    ),
    Check(
        "replay paused",
        "replay is paused on the standby",
        lambda v: _answering(v) and v.replay_paused,
        Weight.REFUSE,
        "Replay is paused on {standby}.",
        "SELECT pg_wal_replay_resume() there, and find out who paused it.",
    ),
    Check(
        "lag too large",
        "more WAL than max_lag_bytes would be lost",
        lambda v: _answering(v) and v.lag_bytes is not None and v.lag_bytes > v.max_lag_bytes,
        Weight.DATA_LOSS,
        "{standby} is {lag_bytes:,} bytes behind the last position of the primary ({max_lag_bytes:,} allowed).",
        "Bring the primary back, or call with accept_data_loss.",
    ),
    Check(
        "loss not known",
        "no last position of the primary is known",
        lambda v: _answering(v) and not v.lag_known,
        Weight.DATA_LOSS,
        "The last position of the primary is not known: what would be lost cannot be bounded.",
        "Bring the primary back, or call with accept_data_loss.",
    ),
    Check(
        "bound too old",
        "the last known position of the primary is too old to bound the loss",
        lambda v: (
            _answering(v)
            and v.lag_known
            and not v.position_exact
            and (v.position_age_s is None or v.position_age_s > v.position_limit_s)
        ),
        Weight.DATA_LOSS,
        "The primary lived for {position_age_s} s after its last known position ({position_limit_s} s allowed).",
        "Bring the primary back, or call with accept_data_loss. The watcher keeps that position: let it run.",
    ),
    Check(
        "not synchronous",
        "the site promises synchronous replication and the last recorded state is not SYNC",
        lambda v: _answering(v) and v.promised_sync and not v.recorded_sync and not v.position_exact,
        Weight.DATA_LOSS,
        "Replication was not synchronous when the primary was lost; acknowledged writes may be missing.",
        "Bring the primary back, or call with accept_data_loss.",
    ),
    Check(
        "disk nearly full",
        f"less than {MIN_FREE_SHARE:.0%} of the standby's data disk is free",
        lambda v: v.reached and v.free_share is not None and v.free_share < MIN_FREE_SHARE,
        Weight.REFUSE,
        "The data disk of {standby} is nearly full ({free_share:.0%} free).",
        "Free space there.",
    ),
    Check(
        "disk not known",
        "the space on the standby's data disk could not be read",
        lambda v: v.reached and v.free_share is None,
        Weight.WARN,
        "The space on the data disk of {standby} is not known.",
        "Look at the disk.",
    ),
    Check(
        "pg_hba.conf broken",
        "the standby's pg_hba.conf has errors",
        lambda v: _answering(v) and v.hba_errors > 0,
        Weight.REFUSE,
        "pg_hba.conf on {standby} has {hba_errors} lines in error; Harbor could not log in.",
        "SELECT * FROM pg_hba_file_rules WHERE error IS NOT NULL, and repair them.",
    ),
    Check(
        "recovery target set",
        "postgresql.auto.conf on the standby sets a recovery target",
        lambda v: v.reached and v.recovery_target,
        Weight.REFUSE,
        "postgresql.auto.conf on {standby} sets a recovery target.",
        "ALTER SYSTEM RESET the setting there.",
    ),
    Check(
        "settings overridden",
        "postgresql.auto.conf on the standby overrides replication settings",
        lambda v: v.reached and bool(v.overrides),
        Weight.WARN,
        "postgresql.auto.conf on {standby} overrides {overrides}.",
        "ALTER SYSTEM RESET them there.",
    ),
)


def may_fail_over(
    standby: NodeFacts,
    primary: NodeFacts,
    last: LastPrimary | None,
    system_identifier: str | None,
    policy: Policy,
    now: Moment,
    *,
    accept_data_loss: bool = False,
    begun_at: float | None = None,
    stalled: bool = False,
) -> Decision[MayPromote]:
    """Say whether a standby may take over without its primary's help, with every reason against it.

    Args:
        standby: facts of the candidate.
        primary: facts of the old primary; its control file, when readable, gives the exact end.
        last: the last position that `check` or the flow saw on the primary.
        system_identifier: of this site's database, from the accepted primary or the operation record.
        policy: the site's settings.
        now: the moment of the decision.
        accept_data_loss: turns the reasons about lag and synchrony, and only these, into warnings.
        begun_at: wall time at which the operation began, maybe in a run before this one; None: now.
        stalled: the primary was seen to commit nothing any more; that it is heard says nothing.

    Raises:
        FactsTooOld: when facts are too old to decide on.
    """
    require_fresh([(standby.name, standby.observed_at), (primary.name, primary.observed_at)], now)
    view = candidate_view(standby, primary, last, system_identifier, policy, now, begun_at, stalled=stalled)
    return weigh(
        "may fail over",
        CANDIDATE_CHECKS,
        view,
        yes=MayPromote.ALLOW,
        no=MayPromote.REFUSE,
        accept_data_loss=accept_data_loss,
    )


def candidate_view(
    standby: NodeFacts,
    primary: NodeFacts,
    last: LastPrimary | None,
    system_identifier: str | None,
    policy: Policy,
    now: Moment,
    begun_at: float | None = None,
    *,
    stalled: bool = False,
) -> CandidateView:
    """Condense facts to what the checks look at."""
    server, cluster = standby.server, standby.cluster
    identity = system_identifier or primary.system_identifier
    end, exact = _primary_end(primary, last)
    position = standby.position
    known_timeline = max([0, *([last.position.timeline] if last else []), *_stopped_timeline(primary)])
    names = cluster.auto_conf if cluster else ()
    durability = standby.state.get(DURABILITY)
    return CandidateView(
        standby=standby.name,
        reached=standby.reachable,
        answers=server is not None,
        in_recovery=server is not None and server.in_recovery,
        same_system=None if identity is None else standby.system_identifier == identity,
        timeline_behind=standby.timeline is not None and standby.timeline < known_timeline,
        # A primary that is seen stopped cannot be heard; what the receiver tells is from before the stop.
        hears_primary=_hears(standby) and not stopped(primary) and not stalled,
        replay_paused=server is not None and server.replay_paused,
        lag_bytes=None if end is None or position is None else max(0, end - position.lsn),
        max_lag_bytes=policy.max_lag_bytes,
        position_exact=exact,
        position_age_s=None if last is None else _age(last, standby, begun_at, now),
        position_limit_s=policy.last_position_limit_s,
        promised_sync=policy.durability != "async",
        recorded_sync=isinstance(durability, dict) and durability.get("state") == "SYNC",
        free_share=standby.data_disk.free_share if standby.data_disk else None,
        hba_errors=server.hba_errors if server else 0,
        recovery_target=any(name.startswith(RECOVERY_TARGET) for name in names),
        overrides=", ".join(name for name in names if name in OVERRIDES),
        why_not_reached=standby.error,
    )


def stopped(node: NodeFacts) -> bool:
    """Whether a node was reached and no server runs there."""
    return node.reachable and node.cluster is not None and not node.cluster.processes


def _age(last: LastPrimary, standby: NodeFacts, begun_at: float | None, now: Moment) -> float:
    """Return how long the primary lived after its last known position, as far as anybody knows.

    Not how long ago that was: what a dead primary did not write is not lost, and whoever is called after an hour
    must get the answer of the first minute.
    """
    heard = _last_heard(standby)
    if heard is not None and heard >= last.at - FRESH_MESSAGE_S:
        end = heard
    elif begun_at is not None and last.at <= begun_at:
        # The standby does not know, or was cut off from a primary that others saw later.
        end = begun_at
    else:
        end = now.wall
    return round(max(0.0, min(end, now.wall) - last.at), 1)


def _last_heard(standby: NodeFacts) -> float | None:
    """Return when a standby last heard its primary, by our clock; None when it does not know."""
    receiver = standby.server.receiver if standby.server else None
    if receiver is not None and receiver.status == "streaming" and receiver.message_age_s is not None:
        return standby.observed_at.wall - receiver.message_age_s
    note = standby.state.get(HEARD)
    if not isinstance(note, dict) or note.get("silent") is not True or standby.clock_skew_s is None:
        return None
    at = note.get("at")
    return float(at) - standby.clock_skew_s if isinstance(at, int | float) else None


def _hears(standby: NodeFacts) -> bool:
    receiver = standby.server.receiver if standby.server else None
    return receiver is not None and receiver.fresh


def _stopped_timeline(primary: NodeFacts) -> list[int]:
    return [primary.timeline] if primary.timeline is not None else []


def _primary_end(primary: NodeFacts, last: LastPrimary | None) -> tuple[Lsn | None, bool]:
    """Return the end of the primary's WAL as far as known, and whether that is exact."""
    control = primary.control
    if stopped(primary) and control is not None and control.shut_down_cleanly and primary.cluster is not None:
        return (
            primary.cluster.checkpoint_end or control.checkpoint,
            primary.cluster.checkpoint_end is not None,
        )
    return (last.position.lsn if last else None), False
