"""What was observed of one node, frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tasks.clock import Moment
from tasks.postgres.controldata import ControlData
from tasks.postgres.history import TimelineHistory
from tasks.postgres.lsn import Lsn, WalPosition

# Within wal_receiver_timeout a receiver of an idle pair asks its primary once, at half of the time, and the age of the
# last message goes back to 0; what is silent for more than this share of the time has not answered that question.
FRESH_SHARE = 0.8
# So much for a receiver that does not tell its time: before it was 5 s it was 10 s.
FRESH_MESSAGE_S = 8.0

# Among the problems of a node: its login prints something of its own before or after our answers.
NOISE = "noise"


@dataclass(frozen=True)
class Receiver:
    """The WAL receiver of a standby.

    Attributes:
        message_age_s: seconds since the last message of the primary.
        timeout_s: its wal_receiver_timeout; None when it has none or does not tell.
    """

    status: str
    sender_host: str | None
    slot: str | None
    received_timeline: int | None
    flushed: Lsn | None
    message_age_s: float | None
    timeout_s: float | None = None

    @property
    def fresh(self) -> bool:
        """Whether the primary was heard a moment ago: the standby's vote against calling it dead."""
        age, timeout = self.message_age_s, self.timeout_s
        limit = timeout * FRESH_SHARE if timeout else FRESH_MESSAGE_S
        return self.status == "streaming" and age is not None and age < limit


@dataclass(frozen=True)
class Sender:
    """A WAL sender: a standby as its primary sees it. `lag_bytes` is written minus replayed."""

    application_name: str
    client_addr: str | None
    state: str
    sync_state: str
    replayed: Lsn | None
    lag_bytes: int | None
    reply_age_s: float | None


@dataclass(frozen=True)
class Slot:
    """A replication slot. `safe_wal_size` is what may be written before the slot is lost, in bytes.

    Attributes:
        has_xmin: it keeps vacuum from removing rows (hot_standby_feedback of its standby, present or not).
        xmin_age: by how many transactions; None without one.
        held_bytes: WAL written since the oldest that it keeps; None on a standby.
    """

    name: str
    kind: str
    active: bool
    restart_lsn: Lsn | None
    wal_status: str | None
    safe_wal_size: int | None
    has_xmin: bool
    xmin_age: int | None = None
    held_bytes: int | None = None


@dataclass(frozen=True)
class Archiver:
    """WAL archiving. Times are seconds since 1970 on the node; `last_failed_at` is kept after a success."""

    enabled: bool
    failed_count: int
    last_failed_wal: str | None
    last_failed_at: float | None
    last_archived_at: float | None

    @property
    def failing(self) -> bool:
        """Whether the last attempt failed."""
        if not self.enabled or self.last_failed_at is None:
            return False
        return self.last_archived_at is None or self.last_failed_at > self.last_archived_at


@dataclass(frozen=True)
class Server:
    """A running PostgreSQL that answered SQL.

    Attributes:
        timeline: the true one (of a standby as IDENTIFY_SYSTEM says it).
        write_lsn: where a primary writes; None on a standby.
        read_only: default_transaction_read_only, set by a hand: the self-fence stops the server.
        clients: sessions on Harbor's database over the network, by client address.
        oldest_wal: where the oldest segment in its pg_wal begins; None when not known.
    """

    version_num: int
    system_identifier: str
    in_recovery: bool
    started_at: float
    data_directory: str
    timeline: int
    write_lsn: Lsn | None
    receive_lsn: Lsn | None
    replay_lsn: Lsn | None
    replay_paused: bool
    read_only: bool
    sync_names: str
    archiver: Archiver
    receiver: Receiver | None
    senders: tuple[Sender, ...]
    slots: tuple[Slot, ...]
    free_senders: int
    free_slots: int
    hba_errors: int
    base_backups: int
    oldest_transaction_s: float
    clients: Mapping[str, int]
    oldest_wal: Lsn | None = None

    @property
    def position(self) -> WalPosition | None:
        """How far this server is.

        Of a standby the greater of received and replayed: after a restart the received position may be the
        start of the segment, below what was replayed.
        """
        lsns = [lsn for lsn in (self.write_lsn, self.receive_lsn, self.replay_lsn) if lsn is not None]
        if self.write_lsn is not None:
            return WalPosition(self.timeline, self.write_lsn)
        return WalPosition(self.timeline, max(lsns)) if lsns else None


@dataclass(frozen=True)
class Cluster:
    """The cluster on disk, running or not.

    Attributes:
        processes: ids of the processes that work, or may work, in the data directory; empty: it is stopped.
        postmaster_status: last line of postmaster.pid: `starting`, `ready`, `standby`, `stopping`.
        backup_label_method: `pg_rewind` or `streamed` when a backup_label is there.
        auto_conf: names of the settings in postgresql.auto.conf, which override the configuration files.
        checkpoint_end: end of the shutdown checkpoint's record; None while running or when it is unknown.
        history: of the newest timeline that the node has heard of; None when it was never promoted.
        ready_count: WAL segments that wait for the archiver.
        control: None when pg_controldata failed.
    """

    major: int
    control: ControlData | None
    processes: tuple[int, ...]
    postmaster_status: str | None
    standby_signal: bool
    recovery_signal: bool
    backup_label_method: str | None
    auto_conf: tuple[str, ...]
    writable: bool
    ready_count: int
    checkpoint_end: Lsn | None
    history: TimelineHistory | None


@dataclass(frozen=True)
class Disk:
    """Space of a file system in bytes."""

    total: int
    free: int

    @property
    def free_share(self) -> float:
        """Free space as a share of the whole, 0 to 1."""
        return self.free / self.total if self.total else 0.0


@dataclass(frozen=True)
class HarborOnNode:
    """Harbor on one node.

    Attributes:
        containers: state (`running`, `exited`, …) and status text by name.
        configured_database: POSTGRESQL_HOST in common/config/core/env, for the next start.
        running_database: POSTGRESQL_HOST in the environment of the running core.
        health: `healthy` or `unhealthy` by the body; None when there was no answer.
        components: the same by component.
        certificate_end: when the served certificate expires.
        jobs_behind: its jobservice was started before the core that is there was made.
    """

    containers: Mapping[str, str]
    configured_database: str | None
    running_database: str | None
    health: str | None
    components: Mapping[str, str]
    certificate_end: datetime | None
    jobs_behind: bool = False


# A pass of the guard takes one to four seconds, and a stop that it carries out fifteen.
GUARD_SILENT_S = 20.0


@dataclass(frozen=True)
class Guard:
    """The guard of a database node, as it tells of itself with every pass.

    Attributes:
        present: it has told something since the machine started.
        age_s: seconds since, by the node's monotonic clock; None when it never did.
        version: the hash of the program that runs.
        self_fence_s: the limit that it goes by; None: it does not fence itself.
    """

    present: bool
    age_s: float | None = None
    version: str | None = None
    self_fence_s: float | None = None

    @property
    def runs(self) -> bool:
        """Whether it has told so a moment ago."""
        return self.present and self.age_s is not None and self.age_s <= GUARD_SILENT_S


@dataclass(frozen=True)
class NodeFacts:
    """Everything seen of one node at one moment.

    Attributes:
        name: the node.
        observed_at: when the look began, on the orchestrator.
        reachable_by: the paths that SSH worked over (`direct`, `via node-b`); empty: not reached.
        error: why it was not reached.
        problems: parts of the look that failed or were late, by name (`server`, `control`, `nas`, …).
        cluster: None when there is no cluster in the data directory (or the node was not reached).
        server: None when no SQL was answered.
        start_conf: Debian's `auto`, `manual` or `disabled`; None when the file is missing.
        masked: whether the server's unit is masked; None when the node was not reached.
        tcp: for each peer, whether PostgreSQL's port there was `open`, `refused` or `silent` from this node.
        state: our JSON files on the node by name; see tasks/operation/files.py.
        shared: the NAS's copies of such files, and what a node without a database keeps of the site, by name.
        images_denied: directories of the image data that Harbor's registry may not use; of a Harbor node.
        guard: of a database node; None when it was not looked at.
        addresses: the IP addresses of its interfaces, without loopback, link-local and Docker's bridges.
        clock_skew_s: the node's wall clock minus the orchestrator's; exact to half a round trip.
        boot_id: changes with every start of the machine.
    """

    name: str
    observed_at: Moment
    reachable_by: tuple[str, ...] = ()
    error: str = ""
    problems: Mapping[str, str] = field(default_factory=dict)
    cluster: Cluster | None = None
    server: Server | None = None
    start_conf: str | None = None
    masked: bool | None = None
    data_disk: Disk | None = None
    nas_mounted: bool | None = None
    nas_disk: Disk | None = None
    images_denied: tuple[str, ...] = ()
    harbor: HarborOnNode | None = None
    tcp: Mapping[str, str] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    shared: Mapping[str, Any] = field(default_factory=dict)
    guard: Guard | None = None
    addresses: tuple[str, ...] = ()
    clock_skew_s: float | None = None
    boot_id: str | None = None
    uptime_s: float | None = None

    @property
    def reachable(self) -> bool:
        """Whether the node was reached over any path."""
        return bool(self.reachable_by)

    @property
    def running(self) -> bool:
        """Whether any process works in the data directory."""
        return self.cluster is not None and bool(self.cluster.processes)

    @property
    def accepting(self) -> bool:
        """Whether SQL was answered."""
        return self.server is not None

    @property
    def is_primary(self) -> bool:
        """Whether a server answered that is not in recovery; read-only or not, it is a primary."""
        return self.server is not None and not self.server.in_recovery

    @property
    def is_standby(self) -> bool:
        """Whether a server answered that is in recovery."""
        return self.server is not None and self.server.in_recovery

    @property
    def control(self) -> ControlData | None:
        """The control file; None when there is no cluster or it could not be read."""
        return self.cluster.control if self.cluster else None

    @property
    def system_identifier(self) -> str | None:
        """The cluster's identity, from the server or from the control file."""
        if self.server is not None:
            return self.server.system_identifier
        return self.control.system_identifier if self.control else None

    @property
    def timeline(self) -> int | None:
        """The true timeline of a running server; else the highest one that the control file names."""
        if self.server is not None:
            return self.server.timeline
        return self.control.latest_timeline if self.control else None

    @property
    def position(self) -> WalPosition | None:
        """How far a running server is; None when no SQL was answered."""
        return self.server.position if self.server else None
