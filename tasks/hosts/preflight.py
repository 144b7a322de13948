"""What every node looks like before bootstrap changes anything: one read-only round trip a node."""

import time
from dataclasses import dataclass
from typing import Any

from blocks import HarborSite
from tasks.hosts.connection import Host
from tasks.hosts.programs import program
from tasks.postgres.layout import STATE_DIR, layout_of

# Harbor's log container binds it on loopback.
_LOG_PORT = 1514


@dataclass(frozen=True)
class DatabaseSeen:
    """What a node's data directory holds.

    Attributes:
        occupied: something is in the directory.
        sysid: the system identifier found there; None when there is no database.
        record_sysid: the one that this software recorded when it made the database.
        record_site: for which site.
        creating: a creation was begun and not finished.
        standby: `standby.signal` is there.
    """

    occupied: bool
    sysid: str | None
    record_sysid: str | None
    record_site: str | None
    creating: bool
    standby: bool


@dataclass(frozen=True)
class NodeSeen:
    """One node before bootstrap; see `tasks/remote/preflight_probe.py` for how each value is found.

    Attributes:
        skew_s: the node's clock minus ours, with half of the round trip taken off.
        free_bytes: by path.
        listeners: program by port.
        nas_mounted: file system type at the NAS path; None when nothing is mounted there.
        resolves: addresses by name.
        redis: `ok`, or what Redis said.
        connects: `ok` or the error, by `host:port`.
        secretkey: digest of Harbor's secretkey; None when there is none.
        postgres_available: None when apt has no package lists yet.
    """

    name: str
    skew_s: float
    os_id: str
    os_version: str
    systemd: int
    memory_bytes: int
    free_bytes: dict[str, int]
    listeners: dict[str, str]
    harbor_installed: bool
    nas_mounted: str | None
    resolves: dict[str, list[str]]
    redis: str
    connects: dict[str, str]
    database: DatabaseSeen | None
    secretkey: str | None
    postgres_available: bool | None
    tools: dict[str, bool]


def observe(site: HarborSite, host: Host) -> NodeSeen:
    """Look at one node.

    Raises:
        HostUnreachable, HostKeyChanged, LoginRefused: it cannot be reached as configured.
    """
    before = time.time()
    seen = host.python(program("preflight_probe"), _questions(site, host.name), timeout=60)
    # The program reads the clock first, so the round trip before it counts, not its whole run.
    after = time.time()
    skew = seen["clock"] - before if seen["clock"] < before else max(0.0, seen["clock"] - after)
    return NodeSeen(
        name=host.name,
        skew_s=skew,
        os_id=seen["os"]["id"],
        os_version=seen["os"]["version"],
        systemd=seen["systemd"],
        memory_bytes=seen["memory_bytes"],
        free_bytes=seen["free_bytes"],
        listeners=seen["listeners"],
        harbor_installed=seen["harbor_installed"],
        nas_mounted=seen["nas_mounted"],
        resolves=seen["resolves"],
        redis=seen["redis"],
        connects=seen["connects"],
        database=None if seen["database"] is None else DatabaseSeen(**seen["database"]),
        secretkey=seen["secretkey"],
        postgres_available=seen["postgres_available"],
        tools=seen["tools"],
    )


def ports_of(site: HarborSite, node_name: str) -> list[int]:
    """List the ports that must be free on a node, or be held by this site's own services."""
    node = site.node(node_name)
    harbor = [site.harbor.http_port, site.harbor.https_port, _LOG_PORT] if node.runs_harbor else []
    return harbor + ([site.postgres.port] if node.runs_postgres else [])


def disk_paths(site: HarborSite, node_name: str) -> list[str]:
    """List the paths whose free space matters on a node."""
    node = site.node(node_name)
    paths = ["/var/lib/docker", site.harbor.install_dir, site.harbor.data_volume] if node.runs_harbor else []
    return paths + ([site.postgres.data_dir, site.postgres.archive_dir] if node.runs_postgres else [])


def _questions(site: HarborSite, node_name: str) -> dict[str, Any]:
    node = site.node(node_name)
    layout = layout_of(site)
    names = [site.harbor.hostname, site.redis.host, *(other.address for other in site.nodes)]
    return {
        "paths": disk_paths(site, node_name),
        "ports": ports_of(site, node_name),
        "install_dir": site.harbor.install_dir,
        "nas": site.nas.path.rstrip("/"),
        "names": names,
        "redis": {
            "host": site.redis.host,
            "port": site.redis.port,
            "password": site.redis.password.get_secret_value(),
        },
        "connects": [[other.address, other.port] for other in site.nodes if other.name != node_name],
        "database": {
            "data": layout.data,
            "bin": layout.bin,
            "record": layout.record,
            "state_dir": STATE_DIR,
        }
        if node.runs_postgres
        else None,
        "secretkey": f"{site.harbor.data_volume}/secret/keys/secretkey",
        "package": f"postgresql-{layout.major}" if node.runs_postgres else None,
    }
