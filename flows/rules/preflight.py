"""May bootstrap begin, and which node is the primary: from what was seen, all objections at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from blocks import HarborSite
from blocks.certificates import flaws
from flows.rules.adoption import adoption_objections
from tasks.docker import daemon, engine
from tasks.errors import Refused
from tasks.hosts.observation import SiteSeen
from tasks.hosts.preflight import DatabaseSeen, NodeSeen
from tasks.operation.record import CLOSED
from tasks.pitr.settings import uses_repository

MAX_SKEW_S = 2.0
# Harbor's images, one generation of upgrades and the logs; PostgreSQL with its WAL.
MIN_FREE_BYTES = 5 << 30
# A node that has everything needs room for new configuration only; to refuse it there would help nobody.
LEFT_FREE_BYTES = 200 << 20
# Harbor's documentation asks for 4 GB; the machine's kernel keeps some of it for itself.
MIN_MEMORY_BYTES = 1500 << 20
# The boot guard is an ExecCondition, which systemd has since 243.
MIN_SYSTEMD = 243
# The phases of tasks.operation.record in which an operation is over.
_CLOSED = {str(phase) for phase in CLOSED}
OLDEST = {"debian": 11.0, "ubuntu": 20.04}


@dataclass(frozen=True)
class Plan:
    """Who is what.

    Attributes:
        primary: the node that holds, or will hold, the primary.
        standbys: the other database nodes.
        harbor: the nodes that run Harbor, in the order in which they are brought up.
        first_time: no node holds a database yet.
        migrate_from: the node whose bundled database is taken over; None when there is none.
        forget: the nodes that have the bucket's key for WAL that goes there no more.
    """

    primary: str
    standbys: tuple[str, ...]
    harbor: tuple[str, ...]
    first_time: bool
    migrate_from: str | None = None
    forget: tuple[str, ...] = ()


def plan_bootstrap(site: HarborSite, seen: SiteSeen, now: datetime, *, adopting: str | None = None) -> Plan:
    """Decide whether and how to build the site.

    Args:
        site: what is wanted.
        seen: what there is.
        now: the time, for certificates.
        adopting: the node whose Harbor is being taken over, which `flows/rules/take_over.py` judges.

    Raises:
        Refused: with every reason on every node.
    """
    objections = [*seen.unreachable, *site_objections(site, seen, now)]
    for node in seen.nodes:
        objections += [f"{node.name}: {text}" for text in node_objections(site, node, adopting)]
    objections += [*across_objections(seen.nodes), *_bundled_objections(site, seen.nodes)]
    if objections:
        raise Refused(f"The site {site.name} cannot be built as it is.", objections)
    return _roles(site, seen.nodes)


def site_objections(site: HarborSite, seen: SiteSeen, now: datetime) -> Iterator[str]:
    """List what is wrong with what the site's settings name; a certificate expires after it was applied."""
    key = site.harbor.certificate_key.get_secret_value()
    for flaw in flaws(site.harbor.certificate, key, site.harbor.hostname, now):
        yield f"the TLS {flaw.of}: {flaw.what} -> {flaw.right}"
    for problem in seen.bucket:
        yield f"OSS: {problem}" if "->" in problem else f"OSS: {problem} -> correct `oss` in the site file"
    if seen.installer == "":
        yield (
            f"harbor.installer: {site.harbor.installer} is no file on the orchestrator "
            "-> put the offline installer there, or give its https:// address"
        )
    elif seen.installer is not None and seen.installer != site.harbor.sha256.lower():
        yield (
            f"harbor.installer: {site.harbor.installer} has the checksum {seen.installer}, not "
            f"{site.harbor.sha256.lower()} -> fetch it again and compare with the publisher's, or correct harbor.sha256"
        )


def node_objections(site: HarborSite, node: NodeSeen, adopting: str | None = None) -> Iterator[str]:
    """List what speaks against building on this node, each with what to do about it."""
    yield from _machine_objections(node)
    least = MIN_FREE_BYTES if _lacks_something(node) else LEFT_FREE_BYTES
    for path, free in node.free_bytes.items():
        if free < least:
            yield (
                f"{path} has {free / 1e9:.1f} GB free -> make room for {least / 1e9:.1f} GB, "
                "or choose another directory"
            )
    for port, program in node.listeners.items():
        if not _own_listener(site, node, int(port), program):
            # It may be the old Harbor's database, which is to go on.
            keep = node.name == adopting and program == "postgres"
            right = (
                "set postgres.port to another one" if keep else "stop it, or change the port in the site file"
            )
            yield f"port {port} is held by {program} -> {right}"
    for name, addresses in node.resolves.items():
        if not addresses:
            yield f"the name {name} does not resolve -> add it to DNS or to /etc/hosts"
    if node.nas_mounted is None and not site.nas.source:
        yield f"nothing is mounted on {site.nas.path} -> mount the NAS there, or give nas.source"
    if node.redis != "ok":
        yield (
            f"Redis at {site.redis.host}:{site.redis.port} says: {node.redis} "
            "-> check address, password and the allow list of the Redis instance"
        )
    for target, answer in node.connects.items():
        if answer != "ok":
            yield f"{target} cannot be reached: {answer} -> open it in the security group"
    yield from _supply_objections(site, node)
    if node.name != adopting:
        yield from adoption_objections(site, node)
    if node.database is not None:
        yield from _database_objections(site, node.database)


def _supply_objections(site: HarborSite, node: NodeSeen) -> Iterator[str]:
    for wanted, answer in node.packages.items():
        if answer != "ok":
            right = (
                "set postgres.major to one that is"
                if wanted.startswith("postgresql")
                else "complete apt's sources"
            )
            yield f"{answer} -> {right}"
    if node.installer != "ok":
        yield f"{site.harbor.installer} cannot be fetched: {node.installer} -> correct harbor.installer"
    if node.images_beside:
        registry = f"{site.harbor.data_volume.rstrip('/')}/registry"
        yield (
            f"{registry} holds images that are not on the NAS "
            f"-> stop Harbor, copy it to {site.nas.path.rstrip('/')}/registry and move it away"
        )
    if node.docker is None:
        return
    if node.docker.snap:
        yield "Docker is a snap, which cannot see Harbor's data -> snap remove docker, and run bootstrap again"
    if node.docker.too_old:
        oldest = ".".join(str(number) for number in engine.OLDEST_ENGINE)
        yield f"Docker {node.docker.engine} is too old for Harbor -> {oldest} or newer"
    try:
        daemon.merged(node.daemon_json, site.docker.registry_mirrors, site.docker.insecure_registries)
    except Refused as refused:
        yield from (f"{daemon.PATH}: {reason} -> nothing of it is overwritten" for reason in refused.reasons)


def across_objections(seen: Sequence[NodeSeen]) -> Iterator[str]:
    """List what does not fit together between nodes."""
    keys = {node.name: node.secretkey for node in seen if node.secretkey is not None}
    if len(set(keys.values())) > 1:
        yield (
            f"{' and '.join(keys)} hold different secretkeys of Harbor -> find out which one the database was "
            "written with, and move the other away; a wrong one garbles stored credentials without an error"
        )
    open_operations = {node.operation.op_id: node.operation for node in seen if node.operation is not None}
    closed = {
        node.operation.op_id
        for node in seen
        if node.operation is not None and node.operation.phase in _CLOSED
    }
    for op_id, operation in open_operations.items():
        if op_id not in closed:
            yield f"{operation.kind} {op_id} is open ({operation.phase}) -> run it again first; it goes on"
    sysids = {node.name: node.database.sysid for node in seen if node.database and node.database.sysid}
    if len(set(sysids.values())) > 1:
        listed = ", ".join(f"{name} {sysid}" for name, sysid in sysids.items())
        yield f"the nodes hold different databases ({listed}) -> move the wrong one away"
    primaries = [node.name for node in seen if _holds(node) and node.database and not node.database.standby]
    holders = [node.name for node in seen if _holds(node)]
    if len(primaries) > 1:
        yield (
            f"{' and '.join(primaries)} would both start as primary -> run `check`, then `rejoin` the one "
            "that is behind"
        )
    if holders and not primaries:
        yield f"{' and '.join(holders)} are all standbys -> run `check` and `failover`"


def _bundled_objections(site: HarborSite, seen: Sequence[NodeSeen]) -> Iterator[str]:
    directory = f"{site.harbor.data_volume.rstrip('/')}/database"
    holders = {node.name: node.bundled_database for node in seen if node.bundled_database is not None}
    for name, state in holders.items():
        if not site.harbor.migrate_from_bundled:
            yield (
                f"{name}: there is a Harbor of its own with data in {directory} -> set harbor.migrate_from_bundled "
                "to take the data over, or move the directory away if it may go"
            )
        elif state != "running":
            yield f"{name}: there is a bundled database in {directory}, but harbor-db does not run -> start it"
    if site.harbor.migrate_from_bundled and len(holders) > 1:
        yield f"{' and '.join(holders)} each have a bundled database -> move the one away that is not to be kept"


def _machine_objections(node: NodeSeen) -> Iterator[str]:
    oldest = OLDEST.get(node.os_id)
    if oldest is None or _number(node.os_version) < oldest:
        yield (
            f"{node.os_id or 'an unknown system'} {node.os_version} is not supported "
            "-> Debian 11 or Ubuntu 20.04, or newer"
        )
    missing = [name for name, there in node.tools.items() if not there]
    if missing:
        yield f"{', '.join(missing)} is missing -> install it"
    if node.systemd < MIN_SYSTEMD:
        yield f"systemd {node.systemd} is too old for the boot guard -> {MIN_SYSTEMD} or newer"
    if node.memory_bytes < MIN_MEMORY_BYTES:
        yield f"it has {node.memory_bytes / 1e9:.1f} GB of memory -> {MIN_MEMORY_BYTES / 1e9:.1f} GB at the least"
    if abs(node.skew_s) > MAX_SKEW_S:
        yield f"its clock is {node.skew_s:+.1f} s off -> set up chrony or systemd-timesyncd"


def _database_objections(site: HarborSite, database: DatabaseSeen) -> Iterator[str]:
    where = site.postgres.data_dir
    for path in database.mount_points:
        yield (
            f"{path} is itself a mount point, and a clone or a restore puts another directory in its place, which "
            f"fails after the whole copy -> mount the disk at {path.rpartition('/')[0] or '/'} or elsewhere, and "
            "give a directory below it in the site file"
        )
    if database.cluster_data is not None:
        name = f"{site.postgres.major}/{site.postgres.cluster}"
        yield (
            f"there is a cluster {name} already, with its data in {database.cluster_data}; it was not touched "
            "-> set postgres.cluster to another name, and postgres.port to another port if it runs on that one"
        )
    if database.record_site not in (None, site.name):
        yield f"{where} belongs to the site {database.record_site} -> this node is in two site files"
    elif database.occupied and database.record_sysid is None and not database.creating:
        yield (
            f"{where} holds {_what(database)}, which this site did not create "
            "-> move it away if it may go; it was not touched"
        )
    elif database.sysid is not None and database.record_sysid not in (None, database.sysid):
        yield (
            f"{where} holds the database {database.sysid}, the site's is {database.record_sysid} "
            "-> somebody put another database there; it was not touched"
        )


def _what(database: DatabaseSeen) -> str:
    return f"the database {database.sysid}" if database.sysid else "files"


def _lacks_something(node: NodeSeen) -> bool:
    lacks_harbor = node.docker is not None and node.harbor_sha256 is None
    return lacks_harbor or (node.database is not None and not _holds(node))


def _holds(node: NodeSeen) -> bool:
    database = node.database
    return database is not None and database.sysid is not None and not database.creating


def _own_listener(site: HarborSite, node: NodeSeen, port: int, program: str) -> bool:
    if port == site.postgres.port:
        return program == "postgres" and _holds(node)
    # Of a Harbor elsewhere is told what it is; "stop it" would be bad advice for one that serves.
    return program == "docker-proxy" and (node.harbor_installed or node.harbor is not None)


def _roles(site: HarborSite, seen: Sequence[NodeSeen]) -> Plan:
    databases = [node for node in seen if node.database is not None]
    holding = [
        node.name for node in databases if _holds(node) and node.database and not node.database.standby
    ]
    primary = holding[0] if holding else databases[0].name
    harbor = [node.name for node in site.nodes if node.runs_harbor]
    return Plan(
        primary=primary,
        standbys=tuple(node.name for node in databases if node.name != primary),
        harbor=tuple(sorted(harbor, key=lambda name: name != primary)),
        first_time=not any(_holds(node) for node in databases),
        migrate_from=next((node.name for node in seen if node.bundled_database is not None), None),
        forget=() if uses_repository(site) else tuple(node.name for node in seen if node.wal_repository),
    )


def _number(version: str) -> float:
    try:
        return float(version)
    except ValueError:
        # Debian testing has no VERSION_ID.
        return 99.0 if not version else 0.0
