"""May the roles be exchanged as planned, without losing anything?"""

from dataclasses import dataclass, replace
from enum import StrEnum

from flows.rules.admission import pause_reason
from flows.rules.promotion import MIN_FREE_SHARE, OVERRIDES, RECOVERY_TARGET
from flows.rules.table import Check, Decision, Weight, describe_bytes, require_fresh, weigh
from tasks.clock import Moment
from tasks.harbor.proof import BY_POLICY, FAILED
from tasks.postgres.facts import NodeFacts

# The shutdown waits until the standby has everything; this much is sent in well under a second.
MAX_LAG_BYTES = 16 << 20
# `stop -m fast` does not return before the archiver is done; more than a few segments means a slow archive.
MAX_ARCHIVE_BACKLOG = 3
LONG_TRANSACTION_S = 60.0
MAX_CLOCK_SKEW_S = 2.0


class MaySwitch(StrEnum):
    """Whether the roles may be exchanged."""

    ALLOW = "ALLOW"
    ALREADY = "ALREADY"
    REFUSE = "REFUSE"


@dataclass(frozen=True)
class SwitchView:
    """The pair before a planned exchange. `reverse_path` is None when it was not tried."""

    primary: str
    standby: str
    paused: bool
    busy: bool
    primary_reached: bool
    standby_reached: bool
    primary_is_primary: bool
    standby_is_standby: bool
    same_system: bool
    same_major: bool
    same_timeline: bool
    receiver: str
    message_fresh: bool
    sender_state: str
    lag_bytes: int | None
    replay_paused: bool
    standby_free_senders: int
    standby_free_slots: int
    reverse_path: bool | None
    start_conf: str | None
    masked: bool
    overrides: str
    archive_backlog: int
    archive_failing: bool
    base_backups: int
    oldest_transaction_s: float
    hba_errors: int
    free_share: float
    clock_skew_s: float
    primary_error: str = ""
    standby_error: str = ""
    client_write: str = ""
    client_error: str = ""

    @property
    def both(self) -> bool:
        """Whether both are what they should be, so that the rest can be judged at all."""
        return self.primary_is_primary and self.standby_is_standby

    @property
    def lag(self) -> str:
        """How far the standby is behind, in words."""
        return describe_bytes(self.lag_bytes)


SWITCH_CHECKS: tuple[Check[SwitchView], ...] = (
    Check(
        "paused",
        "the site is paused",
        lambda v: v.paused,
        Weight.REFUSE,
        "The site is paused.",
        "End the pause first.",
    ),
    Check(
        "busy",
        "another operation holds the lock or was left unfinished",
        lambda v: v.busy,
        Weight.REFUSE,
        "Another operation is in progress or was left unfinished.",
        "Wait for it, or run the same flow again to finish it.",
    ),
    Check(
        "primary not reached",
        "SSH to the primary fails",
        lambda v: not v.primary_reached,
        Weight.REFUSE,
        "{primary} cannot be reached: {primary_error}",
        "Repair the path; an exchange needs both nodes.",
    ),
    Check(
        "standby not reached",
        "SSH to the standby fails",
        lambda v: not v.standby_reached,
        Weight.REFUSE,
        "{standby} cannot be reached: {standby_error}",
        "Repair the path; an exchange needs both nodes.",
    ),
    Check(
        "not a primary",
        "the old primary does not answer as one",
        lambda v: v.primary_reached and not v.primary_is_primary,
        Weight.REFUSE,
        "{primary} does not answer as a primary.",
        "Run check; when it is down, failover is the flow to run.",
    ),
    Check(
        "not a standby",
        "the new primary does not answer as a standby",
        lambda v: v.standby_reached and not v.standby_is_standby,
        Weight.REFUSE,
        "{standby} does not answer as a standby.",
        "Run rejoin for it.",
    ),
    Check(
        "another database",
        "system identifiers differ",
        lambda v: v.both and not v.same_system,
        Weight.REFUSE,
        "{primary} and {standby} hold different databases (system identifiers differ).",
        "Find out whose database {standby} holds.",
    ),
    Check(
        "another major version",
        "major versions differ",
        lambda v: v.both and not v.same_major,
        Weight.REFUSE,
        "{primary} and {standby} run different major versions of PostgreSQL.",
        "Install the same one.",
    ),
    Check(
        "another timeline",
        "timelines differ",
        lambda v: v.both and not v.same_timeline,
        Weight.REFUSE,
        "{standby} is on another timeline than {primary}.",
        "Run rejoin for {standby}.",
    ),
    Check(
        "not streaming",
        "the receiver is not streaming from a fresh primary, or the primary has no sender for it",
        lambda v: (
            v.both and not (v.receiver == "streaming" and v.message_fresh and v.sender_state == "streaming")
        ),
        Weight.REFUSE,
        "{standby} does not stream from {primary} (receiver: {receiver}, sender: {sender_state}).",
        "Look at the log of {standby}; run rejoin for it.",
    ),
    Check(
        "lag too large",
        f"the standby is more than {MAX_LAG_BYTES >> 20} MiB behind, or it is not known",
        lambda v: v.both and (v.lag_bytes is None or v.lag_bytes > MAX_LAG_BYTES),
        Weight.REFUSE,
        "{standby} is {lag} behind {primary}.",
        "Wait until it has caught up.",
    ),
    Check(
        "replay paused",
        "replay is paused on the standby",
        lambda v: v.both and v.replay_paused,
        Weight.REFUSE,
        "Replay is paused on {standby}.",
        "SELECT pg_wal_replay_resume() there, and find out who paused it.",
    ),
    Check(
        "no free sender",
        "the standby has no free WAL sender for the old primary",
        lambda v: v.both and v.standby_free_senders < 1,
        Weight.REFUSE,
        "{standby} has no free WAL sender for {primary}.",
        "Raise max_wal_senders there.",
    ),
    Check(
        "no free slot",
        "the standby has no free replication slot for the old primary",
        lambda v: v.both and v.standby_free_slots < 1,
        Weight.REFUSE,
        "{standby} has no free replication slot for {primary}.",
        "Drop slots that nobody uses there, or raise max_replication_slots.",
    ),
    Check(
        "no way back",
        "the old primary cannot log in to the standby for replication",
        lambda v: v.both and v.reverse_path is False,
        Weight.REFUSE,
        "{primary} cannot log in to {standby} for replication; it could not follow afterwards.",
        "Compare pg_hba.conf and the pass file with bootstrap's; run bootstrap.",
    ),
    Check(
        "masked",
        "the old primary's unit is masked",
        lambda v: v.both and v.masked,
        Weight.REFUSE,
        "The unit of PostgreSQL on {primary} is masked: a fence was left there.",
        "Unmask it when {primary} is the rightful primary.",
    ),
    Check(
        "autostart unusual",
        "start.conf on the old primary is not `auto`",
        lambda v: v.both and v.start_conf != "auto",
        Weight.WARN,
        "start.conf on {primary} says `{start_conf}`; it will say `auto` afterwards.",
        "",
    ),
    Check(
        "settings overridden",
        "postgresql.auto.conf overrides replication or recovery settings on either node",
        lambda v: v.both and bool(v.overrides),
        Weight.REFUSE,
        "postgresql.auto.conf overrides settings of ours: {overrides}.",
        "ALTER SYSTEM RESET them; conf.d is where they belong.",
    ),
    Check(
        "archive behind",
        f"more than {MAX_ARCHIVE_BACKLOG} segments wait for the archiver, or its last attempt failed",
        lambda v: v.both and (v.archive_backlog > MAX_ARCHIVE_BACKLOG or v.archive_failing),
        Weight.REFUSE,
        "The archiver of {primary} is behind ({archive_backlog} segments); the shutdown would wait for it.",
        "Repair the archive directory (mounted, space, rights).",
    ),
    Check(
        "base backup running",
        "a base backup is being taken",
        lambda v: v.both and v.base_backups > 0,
        Weight.REFUSE,
        "A base backup of {primary} is being taken; the exchange would break it.",
        "Wait for it.",
    ),
    Check(
        "long transaction",
        f"a transaction is older than {LONG_TRANSACTION_S:.0f} s",
        lambda v: v.both and v.oldest_transaction_s > LONG_TRANSACTION_S,
        Weight.WARN,
        "A transaction on {primary} is {oldest_transaction_s:.0f} s old; it will be rolled back.",
        "",
    ),
    Check(
        "pg_hba.conf broken",
        "the standby's pg_hba.conf has errors",
        lambda v: v.both and v.hba_errors > 0,
        Weight.REFUSE,
        "pg_hba.conf on {standby} has {hba_errors} lines in error.",
        "SELECT * FROM pg_hba_file_rules WHERE error IS NOT NULL, and repair them.",
    ),
    Check(
        "disk nearly full",
        f"less than {MIN_FREE_SHARE:.0%} of either data disk is free, or it is not known",
        lambda v: v.both and v.free_share < MIN_FREE_SHARE,
        Weight.REFUSE,
        "A data disk is nearly full or cannot be read ({free_share:.0%} free).",
        "Free space on it.",
    ),
    Check(
        "Harbor refuses writes",
        "Harbor works and refuses a client's write: read-only mode, or another admin password",
        lambda v: v.client_write == BY_POLICY,
        Weight.REFUSE,
        "Harbor refuses a write through the load balancer, so it could not be seen that clients work: {client_error}",
        "End the read-only mode, or correct harbor.admin_password and apply the site file.",
    ),
    Check(
        "Harbor's writes fail",
        "a client's write through the load balancer is not accepted",
        lambda v: v.client_write == FAILED,
        Weight.WARN,
        "Clients cannot write through the load balancer now: {client_error}",
        "",
    ),
    Check(
        "clocks apart",
        f"clocks differ by more than {MAX_CLOCK_SKEW_S:.0f} s",
        lambda v: v.both and abs(v.clock_skew_s) > MAX_CLOCK_SKEW_S,
        Weight.WARN,
        "The clocks of the nodes are {clock_skew_s:.1f} s apart; times in reports will be off.",
        "",
    ),
)


def may_switch_over(
    primary: NodeFacts,
    standby: NodeFacts,
    now: Moment,
    *,
    busy: bool = False,
    reverse_path: bool | None = None,
    client_write: tuple[str, str] | None = None,
) -> Decision[MaySwitch]:
    """Say whether the roles may be exchanged, with every reason against it.

    Args:
        primary: facts of the primary.
        standby: facts of the node that is to become primary.
        now: the moment of the decision.
        busy: another operation is in progress or unfinished; see `admission`.
        reverse_path: whether the primary can log in to the standby for replication; None: not tried.
        client_write: what became of a client's write, and why; None: not tried.

    Raises:
        FactsTooOld: when facts are too old to decide on.
    """
    require_fresh([(primary.name, primary.observed_at), (standby.name, standby.observed_at)], now)
    view = switch_view(primary, standby, busy=busy, reverse_path=reverse_path)
    if client_write is not None:
        view = replace(view, client_write=client_write[0], client_error=client_write[1])
    return weigh("may switch over", SWITCH_CHECKS, view, yes=MaySwitch.ALLOW, no=MaySwitch.REFUSE)


def switch_view(
    primary: NodeFacts, standby: NodeFacts, *, busy: bool = False, reverse_path: bool | None = None
) -> SwitchView:
    """Condense facts to what the checks look at."""
    up, down = primary.server, standby.server
    receiver = down.receiver if down else None
    end, replayed = up.write_lsn if up else None, down.replay_lsn if down else None
    streaming = [s for s in up.senders if s.state == "streaming"] if up else []
    disks = (primary.data_disk, standby.data_disk)
    return SwitchView(
        primary=primary.name,
        standby=standby.name,
        paused=bool(pause_reason(primary) or pause_reason(standby)),
        busy=busy,
        primary_reached=primary.reachable,
        standby_reached=standby.reachable,
        primary_is_primary=primary.is_primary,
        standby_is_standby=standby.is_standby,
        same_system=primary.system_identifier == standby.system_identifier,
        same_major=bool(up and down and up.version_num // 10000 == down.version_num // 10000),
        same_timeline=primary.timeline == standby.timeline,
        receiver=receiver.status if receiver else "none",
        message_fresh=receiver is not None and receiver.fresh,
        sender_state="streaming" if streaming else "none",
        lag_bytes=None if end is None or replayed is None else max(0, end - replayed),
        replay_paused=bool(down and down.replay_paused),
        standby_free_senders=down.free_senders if down else 0,
        standby_free_slots=down.free_slots if down else 0,
        reverse_path=reverse_path,
        start_conf=primary.start_conf,
        masked=bool(primary.masked),
        overrides=", ".join(_overrides(primary) + _overrides(standby)),
        archive_backlog=primary.cluster.ready_count if primary.cluster else 0,
        archive_failing=bool(up and up.archiver.failing),
        base_backups=up.base_backups if up else 0,
        oldest_transaction_s=up.oldest_transaction_s if up else 0.0,
        hba_errors=down.hba_errors if down else 0,
        free_share=min(disk.free_share if disk else 0.0 for disk in disks),
        clock_skew_s=(primary.clock_skew_s or 0.0) - (standby.clock_skew_s or 0.0),
        primary_error=primary.error,
        standby_error=standby.error,
    )


def _overrides(node: NodeFacts) -> list[str]:
    names = node.cluster.auto_conf if node.cluster else ()
    bad = [name for name in names if name in OVERRIDES or name.startswith(RECOVERY_TARGET)]
    return [f"{name} on {node.name}" for name in bad]
