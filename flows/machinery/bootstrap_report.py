"""What bootstrap tells: what was found on the nodes, what was decided, how it ended."""

from collections.abc import Sequence

from blocks import HarborSite
from flows.machinery.protocol import Protocol
from flows.rules.adoption import would_take_over
from flows.rules.preflight import Plan
from tasks.hosts.observation import SiteSeen
from tasks.hosts.preflight import DatabaseSeen, NodeSeen


def headline(run: Protocol, plan: Plan) -> str:
    """Say in one sentence how it ended."""
    standbys = f"standby {', '.join(plan.standbys)}" if plan.standbys else "no standby"
    if run.dry_run:
        return f"Would bring up {run.site.name}: primary {plan.primary}, {standbys}."
    changed, _ = run.counts()
    if not changed:
        return f"{run.site.name} is as configured; nothing was changed."
    return f"{run.site.name} takes pushes at https://{run.site.harbor.hostname}; {changed} steps changed something."


def decided(site: HarborSite, plan: Plan) -> list[str]:
    """Tell who is what and why."""
    why = "no node held a database yet" if plan.first_time else "it holds the site's database as primary"
    lines = [
        f"primary: {plan.primary}, because {why}",
        f"standby: {', '.join(plan.standbys) or 'none'}",
        f"Harbor {site.harbor.version} on: {', '.join(plan.harbor)}; {plan.harbor[0]} first, which creates the schema",
    ]
    if plan.migrate_from:
        lines.append(f"data: taken over from the bundled database on {plan.migrate_from}")
    docker = site.docker
    if docker.registry_mirrors or docker.insecure_registries:
        mirrors = ", ".join(docker.registry_mirrors) or "none"
        lines.append(f"Docker: mirrors {mirrors}; insecure {', '.join(docker.insecure_registries) or 'none'}")
    return lines


def found(site: HarborSite, seen: SiteSeen) -> list[str]:
    """Tell what stood on the nodes before, and which services answered."""
    lines = [f"{node.name}: {', '.join(_node(node))}" for node in seen.nodes]
    lines += [line for node in seen.nodes for line in would_take_over(site, node)]
    bucket = "not configured, so there are no backups" if site.oss is None else "takes and gives"
    return [*lines, *seen.unreachable, f"OSS: {'; '.join(seen.bucket) or bucket}"]


def _node(node: NodeSeen) -> Sequence[str]:
    free = min(node.free_bytes.values(), default=0)
    return (
        f"{node.os_id} {node.os_version}",
        f"{node.memory_bytes / 1e9:.1f} GB memory",
        f"{free / 1e9:.0f} GB free at the least",
        f"clock {node.skew_s:+.1f} s",
        f"NAS {node.nas_mounted or 'not mounted'}",
        _docker(node),
        _database(node.database),
        f"Harbor {'unpacked' if node.harbor_sha256 else 'not there'}",
    )


def _docker(node: NodeSeen) -> str:
    if node.docker is None or node.docker.engine is None:
        return "no Docker"
    silent = "not answering" if node.docker.client else "without its client"
    return f"Docker {node.docker.engine or silent} with {' '.join(node.docker.compose) or 'no compose'}"


def _database(database: DatabaseSeen | None) -> str:
    if database is None:
        return "no database wanted"
    if database.creating:
        return "a database half made by an earlier run"
    if database.sysid is None:
        return "no database"
    return "a standby" if database.standby else "a primary"
