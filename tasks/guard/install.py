"""Put on the nodes what must work when the orchestrator is away."""

import hashlib
import json
from typing import Any

from blocks import HarborSite
from tasks.errors import HarborHaError
from tasks.guard.on_node import (
    boot_guard,
    durability_watch,
    guard_install,
    guard_look,
    guard_watch,
)
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.operation.files import ACCEPTED, shared_path
from tasks.operation.record import acceptance
from tasks.operation.store import accept
from tasks.outcome import Outcome, changed, unchanged
from tasks.postgres.layout import PASSFILE, PROGRAM_DIR, layout_of, peers_of, slot_of
from tasks.postgres.run_on_node import cluster_names, run_on_node
from tasks.postgres.sql import execute

_BOOT_GUARD = node_program(boot_guard)
_DURABILITY_WATCH = node_program(durability_watch)
_GUARD_INSTALL = node_program(guard_install)
_GUARD_WATCH = node_program(guard_watch)

CONFIG = guard_look.CONFIG
BOOT_GUARD = f"{PROGRAM_DIR}/pg-boot-guard"
_DROP_IN = "/etc/systemd/system/postgresql@.service.d/harbor-ha.conf"
_IDENTITY = """
SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int,
       (SELECT system_identifier FROM pg_control_system())
"""


class GuardNotRunning(HarborHaError):
    """A service of the guard does not run after its installation."""


def guard_version() -> str:
    """Return the version of the guard that this orchestrator installs: the hash of its text, as the guard tells it."""
    return hashlib.sha256(_script(_GUARD_WATCH).encode()).hexdigest()[:16]


def install_guard(site: HarborSite, host: Host) -> Outcome:
    """Install the boot guard, the self-fence and the durability service; a second run changes nothing.

    Args:
        host: a database node; PostgreSQL's packages are there.

    Raises:
        GuardNotRunning: a service did not start.
    """
    services = {
        "harbor-ha-guard.service": f"{PROGRAM_DIR}/guard-watch",
        "harbor-ha-durability.service": f"{PROGRAM_DIR}/durability-watch",
    }
    answer = run_on_node(
        site, host, _GUARD_INSTALL, limit=60, files=guard_files(site, host), services=services
    )
    states = host.run(["systemctl", "is-active", *services], check=False).stdout.split()
    if states != ["active"] * len(services):
        raise GuardNotRunning(
            f"{', '.join(services)}: {', '.join(states)}.",
            where=host.name,
            meaning="The node is not kept from starting as a second primary, or writes hang without a standby.",
            remedy="Read `journalctl -u harbor-ha-guard -u harbor-ha-durability` there.",
        )
    if not answer["written"] and not answer["started"]:
        return unchanged("boot guard, self-fence and durability service as wanted")
    return changed(
        f"wrote {len(answer['written'])} files, started {', '.join(answer['started']) or 'nothing'}"
    )


def accept_primary(
    site: HarborSite,
    *hosts: Host,
    primary: str,
    timeline: int,
    sysid: str,
    term: int = 0,
    required: tuple[str, ...] = (),
) -> Outcome:
    """Record on the nodes who is the primary from now on; the boot guard of each goes by it.

    Args:
        hosts: the database nodes, reachable or not.
        primary: its name.
        timeline: its timeline; the fencing token: a lower one is not primary any more.
        sysid: the database's system identifier.
        term: of the operation that accepts it.
        required: nodes that must have it.

    Raises:
        NotMirrored: a required node, or every node, could not be written.
        Superseded: a node knows a later promotion.
    """
    return accept(site, *hosts, accepted=acceptance(primary, timeline, sysid, term), required=required)


def accept_running_primary(site: HarborSite, primary: Host, *others: Host) -> Outcome:
    """Record the primary that runs, as it is: at the end of a bootstrap.

    Raises:
        NotMirrored: no node could be written.
    """
    timeline, sysid = execute(site, primary, _IDENTITY)[0]
    hosts = (primary, *others)
    return accept_primary(site, *hosts, primary=primary.name, timeline=int(timeline), sysid=sysid)


def node_config(site: HarborSite, host: Host) -> dict[str, Any]:
    """Say what the programs on a node need to know; without secrets."""
    port = layout_of(site).port
    peers = peers_of(site, host.name)
    witnesses = [["redis", site.redis.host, site.redis.port]]
    if site.balancer.kind != "none":
        witnesses.append(["balancer", site.balancer.address, site.balancer.port])
    return {
        **cluster_names(site, host),
        "site": site.name,
        "peers": [[peer.name, peer.address, port] for peer in peers],
        "standbys": [slot_of(peer.name) for peer in peers],
        "witnesses": witnesses,
        "replication_user": site.postgres.replication.user,
        "passfile": PASSFILE,
        "durability": site.postgres.durability,
        "self_fence_s": site.failover.self_fence_s,
        "nas_path": site.nas.path.rstrip("/"),
        "nas_accepted": shared_path(site.nas.path, site.name, ACCEPTED),
    }


def guard_files(site: HarborSite, host: Host) -> dict[str, tuple[str, int]]:
    """Render every file by its path: the text and the mode."""
    config = json.dumps(node_config(site, host), indent=1, sort_keys=True) + "\n"
    return {
        CONFIG: (config, 0o644),
        BOOT_GUARD: (_script(_BOOT_GUARD), 0o755),
        f"{PROGRAM_DIR}/guard-watch": (_script(_GUARD_WATCH), 0o755),
        f"{PROGRAM_DIR}/durability-watch": (_script(_DURABILITY_WATCH), 0o755),
        _DROP_IN: (f"[Service]\nExecCondition=+{BOOT_GUARD} %i\n", 0o644),
        "/etc/systemd/system/harbor-ha-guard.service": (
            _unit("Stops a primary that must not be one", "guard-watch"),
            0o644,
        ),
        "/etc/systemd/system/harbor-ha-durability.service": (
            _unit("Lets writes go on without a lost standby", "durability-watch"),
            0o644,
        ),
    }


def _script(program: str) -> str:
    return "#!/usr/bin/python3\n" + program


def _unit(description: str, name: str) -> str:
    # Before PostgreSQL would be too early for the watch and is not needed: the boot guard stands there.
    # Without a limit of starts: five crashes within ten seconds, and systemd would leave it down for ever.
    return f"""[Unit]
Description=Harbor HA: {description}
After=network-online.target
StartLimitIntervalSec=0

[Service]
ExecStart={PROGRAM_DIR}/{name}
Restart=always
RestartSec=2

[Install]
WantedBy=multi-user.target
"""
