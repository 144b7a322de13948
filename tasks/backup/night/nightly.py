"""The steps of a backup, each on one node: dump, roles, configuration, links."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from blocks import HarborSite
from tasks.backup.format.blobs import BlobFile
from tasks.backup.format.layout import parse_backup_id
from tasks.backup.night.configuration import save_configuration
from tasks.backup.night.database import databases_to_dump, dump_database, dump_globals, source_of
from tasks.backup.night.images import NEEDED
from tasks.backup.night.links import save_links
from tasks.backup.server import server_of
from tasks.backup.settings import destination_of
from tasks.backup.tools import find_tools
from tasks.hosts.connection import Host
from tasks.outcome import Outcome, changed
from tasks.postgres.layout import layout_of

# A dump of a database of Harbor's takes minutes; this only bounds a node that hangs.
DUMP_TIMEOUT_S = 6 * 3600.0


def dump(
    site: HarborSite,
    host: Host,
    *,
    backup: str,
    work: str,
    reason: str,
    progress: Callable[[int], None] = lambda size: None,
) -> Outcome:
    """Dump all databases of Harbor and the roles from one node, and list the blobs that they need.

    Args:
        site: its databases and bucket.
        host: the chosen node.
        backup: id of the backup.
        work: directory on the orchestrator for the list of blobs.
        reason: why this node, for the manifest.
        progress: called with the bytes that came so far, compressed, of all databases.

    Returns:
        data: `source`, `databases` and `artifacts`, as in the manifest; `left_out`, what a restore will not bring back.
    """
    server, to = server_of(layout_of(site)), destination_of(site, parse_backup_id(backup))
    registry = site.postgres.database
    so_far = 0

    def seen(size: int) -> None:
        nonlocal so_far
        so_far += size
        progress(so_far)

    dumped = [
        dump_database(
            host,
            server,
            name,
            to,
            blobs=BlobFile(Path(work) / NEEDED) if name == registry else None,
            timeout=DUMP_TIMEOUT_S,
            seen=seen,
        )
        for name in databases_to_dump(host, server, registry)
    ]
    source = source_of(host.name, dumped, find_tools(host, server), reason)
    artifacts = [*(each.artifact for each in dumped), dump_globals(host, server, to)]
    rows = sum(sum(each.facts.tables.values()) for each in dumped)
    size = sum(artifact.size for artifact in artifacts)
    lost = [f"{each.facts.database}: {line}" for each in dumped for line in each.left_out]
    note = f"; a restore leaves out {len(lost)} things" if lost else ""
    return changed(
        f"{len(dumped)} database{'s'[: len(dumped) > 1]}, {rows:,} rows, {size:,} bytes, from the {source.role}{note}",
        left_out=lost,
        source=asdict(source),
        databases=[asdict(each.entry) for each in dumped],
        artifacts=[asdict(artifact) for artifact in artifacts],
    )


def configuration(site: HarborSite, host: Host, *, backup: str) -> Outcome:
    """Store a node's configuration, encrypted; data: `artifact` and `secretkey_sha256`."""
    saved = save_configuration(site, host, destination_of(site, parse_backup_id(backup)))
    return changed(
        f"{len(saved.paths)} files and directories, encrypted",
        artifact=asdict(saved.artifact),
        secretkey_sha256=saved.secretkey_sha256,
    )


def links(site: HarborSite, host: Host, *, backup: str) -> Outcome:
    """Pack and store the links of all repositories; data: `artifact`, `links`, `damaged`."""
    to = destination_of(site, parse_backup_id(backup))
    saved = save_links(host, site.nas.registry, to, find_tools(host, server_of(layout_of(site))))
    data: dict[str, Any] = {
        "artifact": asdict(saved.artifact),
        "links": asdict(saved.links),
        "damaged": list(saved.damaged),
        "damaged_count": saved.damaged_count,
    }
    note = f", {saved.damaged_count} damaged ones left out" if saved.damaged_count else ""
    return changed(f"{saved.links.files} links of {saved.links.repositories} repositories{note}", **data)
