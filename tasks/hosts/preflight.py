"""What every node looks like before bootstrap changes anything; read-only."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from blocks import HarborSite
from tasks.docker import engine
from tasks.docker.engine import EngineFacts
from tasks.harbor import found
from tasks.harbor.found import HarborFound
from tasks.harbor.on_node.containers import LOG_PORT
from tasks.hosts import nas
from tasks.hosts.connection import MARK, Host
from tasks.hosts.on_node import preflight_probe, supply_probe
from tasks.node_program import node_program
from tasks.pitr.install import PACKAGE as PGBACKREST
from tasks.pitr.settings import PATHS, uses_repository
from tasks.postgres import packages as postgres
from tasks.postgres.layout import STATE_DIR, layout_of

_PREFLIGHT_PROBE = node_program(preflight_probe)
_SUPPLY_PROBE = node_program(supply_probe)


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
        mount_points: of the data and the archive directory, those that a file system is mounted on.
        cluster_data: where a cluster that has the name of the site's has its data, if that is elsewhere.
    """

    occupied: bool
    sysid: str | None
    record_sysid: str | None
    record_site: str | None
    creating: bool
    standby: bool
    mount_points: Sequence[str] = ()
    cluster_data: str | None = None


@dataclass(frozen=True)
class OperationSeen:
    """The last failover, switchover or rejoin that a node knows of."""

    kind: str
    op_id: str
    phase: str


@dataclass(frozen=True)
class NodeSeen:
    """One node before bootstrap; see `tasks/hosts/on_node/preflight_probe.py` for how each value is found.

    Attributes:
        skew_s: the node's clock minus ours, with half of the round trip taken off.
        free_bytes: by path.
        listeners: program by port.
        nas_mounted: file system type at the NAS path; None when nothing is mounted there.
        resolves: addresses by name.
        redis: `ok`, or what Redis said.
        connects: `ok` or the error, by `host:port`.
        secretkey: digest of Harbor's secretkey; None when there is none.
        docker: its engine and compose; None when the node runs no Harbor.
        bundled_database: `running` or `stopped` when Harbor's own database container has data here that was
            not taken over; None when there is none.
        images_beside: the registry's directory holds images that are not on the NAS.
        wal_repository: the node has what pgBackRest needs to write into the bucket.
        daemon_json: content of Docker's daemon.json; None when there is none.
        lacking: packages that it needs and that are not installed, or not to the end; Docker's left out.
        harbor_sha256: checksum of the installer that was unpacked here; None when none was.
        packages: `ok`, or why it cannot be installed, by what is still missing.
        installer: `ok`, or why the node cannot fetch Harbor's installer from its address.
        operation: what was last done to the site, as far as this node knows.
        unfinished: commands that an earlier run began here and that still run.
        harbor: the Harbor that the node has already, wherever it lies; None when it has none.
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
    tools: dict[str, bool]
    docker: EngineFacts | None
    bundled_database: str | None
    images_beside: bool
    wal_repository: bool
    daemon_json: str | None
    lacking: Sequence[str]
    harbor_sha256: str | None
    packages: dict[str, str]
    installer: str
    operation: OperationSeen | None
    unfinished: list[str]
    harbor: HarborFound | None = None


def observe(site: HarborSite, host: Host) -> NodeSeen:
    """Look at one node.

    Raises:
        HostUnreachable, HostKeyChanged, LoginRefused: it cannot be reached as configured.
    """
    with ThreadPoolExecutor(3) as pool:
        runs_harbor = site.node(host.name).runs_harbor
        asked = pool.submit(engine.observe, host) if runs_harbor else None
        harbor = pool.submit(found.observe, site, host) if runs_harbor else None
        seen = _probe(site, host, asked.result if asked else lambda: None)
        seen = replace(seen, harbor=harbor.result() if harbor else None)
    return with_supplies(site, host, seen)


def _probe(site: HarborSite, host: Host, docker: Callable[[], EngineFacts | None]) -> NodeSeen:
    before = time.time()
    seen = host.python(_PREFLIGHT_PROBE, _questions(site, host.name), timeout=60)
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
        tools=seen["tools"],
        docker=docker(),
        bundled_database=seen["bundled_database"],
        images_beside=seen["images_beside"],
        wal_repository=seen["wal_repository"],
        daemon_json=seen["daemon_json"],
        lacking=seen["lacking"],
        harbor_sha256=seen["harbor_sha256"],
        packages={},
        installer="ok",
        operation=None if seen["operation"] is None else OperationSeen(**seen["operation"]),
        unfinished=seen["unfinished"],
    )


def with_supplies(site: HarborSite, host: Host, seen: NodeSeen) -> NodeSeen:
    """Add whether what the node lacks can be had; nothing is asked for a node that lacks nothing.

    apt takes seconds for its lists, and more where a repository does not answer.
    """
    wanted = missing_packages(site, seen)
    remote = site.harbor.installer.startswith(("https://", "http://"))
    lacks_harbor = seen.docker is not None and seen.harbor_sha256 != site.harbor.sha256.lower()
    url = site.harbor.installer if remote and lacks_harbor else None
    if not seen.tools.get("apt-get") or not (wanted or url):
        return seen
    server = postgres.server_package(site)
    payload = {"packages": wanted, "postgres": server if server in wanted else None, "url": url}
    answer = host.python(_SUPPLY_PROBE, payload, timeout=600)
    return replace(seen, packages=answer["packages"], installer=answer["installer"])


def missing_packages(site: HarborSite, seen: NodeSeen) -> dict[str, list[str]]:
    """List what is to be installed from packages: what it is, and the packages of which any will do."""
    wanted: dict[str, list[str]] = {}
    if seen.docker is not None and seen.docker.engine is None:
        wanted["Docker"] = [engine.ENGINE]
    elif seen.docker is not None and not seen.docker.client:
        wanted["Docker's client"] = list(engine.CLIENT_CHOICES)
    if seen.docker is not None and not seen.docker.compose:
        wanted["compose"] = list(engine.COMPOSE_CHOICES)
    return wanted | {package: [package] for package in seen.lacking}


def packages_of(site: HarborSite, node_name: str) -> list[str]:
    """List the packages that a node needs besides Docker's, which may have come from the operator."""
    node = site.node(node_name)
    needed = nas.packages_of(site) if node.runs_harbor else ()
    if node.runs_postgres:
        needed += postgres.packages_of(site)
        needed += (PGBACKREST,) if uses_repository(site) else ()
    return list(needed)


def ports_of(site: HarborSite, node_name: str) -> list[int]:
    """List the ports that must be free on a node, or be held by this site's own services."""
    node = site.node(node_name)
    harbor = [site.harbor.http_port, site.harbor.https_port, LOG_PORT] if node.runs_harbor else []
    return harbor + ([site.postgres.port] if node.runs_postgres else [])


def disk_paths(site: HarborSite, node_name: str) -> list[str]:
    """List the paths whose free space matters on a node."""
    node = site.node(node_name)
    paths = ["/var/lib/docker", site.harbor.install_dir, site.harbor.data_volume] if node.runs_harbor else []
    # Without a mount there it is the node's own disk, which is another objection.
    paths += [site.nas.path] if node.runs_harbor else []
    return paths + ([site.postgres.data_dir, site.postgres.archive_dir] if node.runs_postgres else [])


def _questions(site: HarborSite, node_name: str) -> dict[str, Any]:
    node = site.node(node_name)
    layout = layout_of(site)
    names = [site.harbor.hostname, site.redis.host, *(other.address for other in site.nodes)]
    return {
        "paths": disk_paths(site, node_name),
        "ports": ports_of(site, node_name),
        "install_dir": site.harbor.install_dir.rstrip("/"),
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
            "renamed": [layout.data, layout.archive],
            "conf": layout.conf,
        }
        if node.runs_postgres
        else None,
        "data_volume": site.harbor.data_volume.rstrip("/"),
        "wal_repository": PATHS.config,
        "secretkey": f"{site.harbor.data_volume}/secret/keys/secretkey",
        "packages": packages_of(site, node_name),
        "state_dir": STATE_DIR,
        "mark": MARK,
    }
