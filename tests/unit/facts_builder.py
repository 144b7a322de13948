"""Facts as a test wants them: a healthy pair, and what differs from it."""

from dataclasses import replace
from typing import Any

from tasks.clock import Moment
from tasks.operation.witnesses import Witnesses
from tasks.postgres.controldata import ControlData
from tasks.postgres.facts import (
    Archiver,
    Cluster,
    Disk,
    Guard,
    HarborOnNode,
    NodeFacts,
    Receiver,
    Sender,
    Server,
)
from tasks.postgres.history import Fork, TimelineHistory
from tasks.postgres.lsn import Lsn

NOW = Moment(1000.0, 1_700_000_000.0)
SEEN = Moment(999.0, 1_699_999_999.0)
SYSTEM = "7300000000000000001"
HISTORY = TimelineHistory(2, (Fork(1, Lsn(0x4000000), "test"),))


def control(**changes: Any) -> ControlData:
    """A control file of a running primary on timeline 2."""
    base = ControlData(
        system_identifier=SYSTEM,
        state="in production",
        checkpoint=Lsn(0x5000028),
        redo=Lsn(0x5000028),
        timeline=2,
        min_recovery_end=Lsn(0),
        min_recovery_timeline=0,
        can_rewind=True,
    )
    return replace(base, **changes)


def cluster(**changes: Any) -> Cluster:
    """A running cluster on disk."""
    base = Cluster(
        major=15,
        control=control(),
        processes=(100, 101),
        postmaster_status="ready",
        standby_signal=False,
        recovery_signal=False,
        backup_label_method=None,
        auto_conf=(),
        writable=True,
        ready_count=0,
        checkpoint_end=None,
        history=HISTORY,
    )
    return replace(base, **changes)


def server(**changes: Any) -> Server:
    """A primary that answers."""
    base = Server(
        version_num=150018,
        system_identifier=SYSTEM,
        in_recovery=False,
        started_at=0.0,
        data_directory="/data/pgsql/data",
        timeline=2,
        write_lsn=Lsn(0x6000000),
        receive_lsn=None,
        replay_lsn=None,
        replay_paused=False,
        read_only=False,
        sync_names="",
        archiver=Archiver(True, 0, None, None, 1.0),
        receiver=None,
        senders=(),
        slots=(),
        free_senders=9,
        free_slots=9,
        hba_errors=0,
        base_backups=0,
        oldest_transaction_s=0.0,
        clients={},
    )
    return replace(base, **changes)


def sender(**changes: Any) -> Sender:
    """A standby that streams and has caught up."""
    return replace(Sender("ha_node_b", "10.0.0.12", "streaming", "async", Lsn(0x6000000), 0, 0.1), **changes)


def receiver(**changes: Any) -> Receiver:
    """A receiver that hears its primary."""
    base = Receiver("streaming", "10.0.0.11", "ha_node_b", 2, Lsn(0x6000000), 0.5)
    return replace(base, **changes)


def node(name: str, **changes: Any) -> NodeFacts:
    """A reached node without a database."""
    base = NodeFacts(
        name,
        SEEN,
        reachable_by=("direct",),
        data_disk=Disk(100 << 30, 50 << 30),
        nas_mounted=True,
        nas_disk=Disk(100 << 30, 50 << 30),
        start_conf="auto",
        masked=False,
        clock_skew_s=0.0,
    )
    return replace(base, **changes)


def guard(**changes: Any) -> Guard:
    """A guard that told a second ago that it runs, without a self-fence."""
    return replace(Guard(True, 1.0, "v1", None), **changes)


def harbor(**changes: Any) -> HarborOnNode:
    """A healthy Harbor on the database at 10.0.0.11."""
    return replace(HarborOnNode({}, "10.0.0.11", "10.0.0.11", "healthy", {}, None), **changes)


def primary(
    name: str = "node-a", *, server_changes: dict[str, Any] | None = None, **changes: Any
) -> NodeFacts:
    """A healthy primary with a standby that streams."""
    up = server(**{"senders": (sender(),), **(server_changes or {})})
    return node(name, **{"cluster": cluster(), "server": up, **changes})


def standby(
    name: str = "node-b", *, server_changes: dict[str, Any] | None = None, **changes: Any
) -> NodeFacts:
    """A healthy standby that hears its primary."""
    settings = {
        "in_recovery": True,
        "write_lsn": None,
        "receive_lsn": Lsn(0x6000000),
        "replay_lsn": Lsn(0x6000000),
        "receiver": receiver(),
    }
    down = server(**{**settings, **(server_changes or {})})
    disk = cluster(standby_signal=True, control=control(state="in archive recovery"))
    return node(name, **{"cluster": disk, "server": down, **changes})


def deaf_standby(name: str = "node-b", **server_changes: Any) -> NodeFacts:
    """A standby that lost its primary."""
    return standby(name, server_changes={"receiver": None, **server_changes})


def stopped(name: str = "node-a", *, held: bool = False, **cluster_changes: Any) -> NodeFacts:
    """A node whose server was shut down cleanly; held: and kept from starting as a primary."""
    disk = cluster(
        **{
            "processes": (),
            "control": control(state="shut down"),
            "checkpoint_end": Lsn(0x50000A0),
            "standby_signal": held,
            **cluster_changes,
        }
    )
    return node(name, cluster=disk, masked=held, start_conf="disabled" if held else "auto")


def unreached(name: str = "node-a") -> NodeFacts:
    """A node that no path leads to."""
    return NodeFacts(name, SEEN, error="direct: timed out")


def witnesses(**changes: Any) -> Witnesses:
    """Witnesses that have all lost the node, which they saw before, with the load balancer draining it."""
    base = Witnesses(
        "node-a",
        SEEN,
        tcp={"orchestrator": "silent", "node-b": "silent"},
        balancer_up=False,
        balancer_drained=True,
        redis_connected=False,
        saw=frozenset({"node-b", "node-c", "orchestrator", "balancer", "redis"}),
    )
    return replace(base, **changes)
