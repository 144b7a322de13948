"""The NAS: mounted at the same place on every node, and proven to be the same one."""

import json
import secrets

from blocks import HarborSite, NasVolume
from tasks.errors import HarborHaError
from tasks.hosts import packages
from tasks.hosts.connection import Host
from tasks.hosts.on_node import nas_mount, nas_try
from tasks.node_program import node_program
from tasks.outcome import Outcome, changed, unchanged

_NAS_MOUNT = node_program(nas_mount)
_NAS_TRY = node_program(nas_try)


class NotTheSameNas(HarborHaError):
    """Two nodes see different file systems at the NAS path."""


def packages_of(site: HarborSite) -> tuple[str, ...]:
    """Name what a Harbor node needs to mount the NAS; nothing where the operator mounts it."""
    return ("nfs-common",) if site.nas.source and site.nas.fs_type.startswith("nfs") else ()


def mount(site: HarborSite, host: Host) -> Outcome:
    """Mount the NAS, now and at boot, if a source is configured; else make sure that it is mounted.

    Raises:
        HarborHaError: it is not mounted and cannot be: Harbor would write images to the node's own disk.
        AptBusy, RemoteCommandFailed: apt did not begin, or failed to install what NFS needs.
    """
    nas = site.nas
    if lacking := packages.lacking(host, packages_of(site)):
        packages.refresh(host)
        packages.install(host, lacking)
    answer = host.python(_NAS_MOUNT, _asked(nas), timeout=120)
    if "problem" in answer:
        raise HarborHaError(
            answer["problem"],
            where=host.name,
            meaning="Without the NAS, Harbor would put images on the node's own disk.",
            remedy="Mount it by hand and look at /etc/fstab, or give nas.source in the site file.",
        )
    return (
        changed(f"mounted {nas.source} on {nas.path}")
        if answer["changed"]
        else unchanged(f"{nas.path} is mounted")
    )


def try_out(nas: NasVolume, host: Host) -> str:
    """Say why a node cannot have the NAS, empty when it can; a bare node is asked whether the server answers.

    Raises:
        HostUnreachable, LoginRefused, RemoteTimeout, …: the node cannot be asked.
    """
    return str(host.python(_NAS_TRY, _asked(nas), timeout=60).get("problem", ""))


def _asked(nas: NasVolume) -> dict[str, str | None]:
    return {
        "path": nas.path.rstrip("/"),
        "source": nas.source,
        "type": nas.fs_type,
        "options": nas.options,
    }


def prove(site: HarborSite, *hosts: Host) -> Outcome:
    """Write a sentinel file through the first node and read it through all others.

    Raises:
        NotTheSameNas: a node does not see the sentinel.
    """
    path = f"{site.nas.path.rstrip('/')}/.harbor-ha-{site.name}.json"
    existing = hosts[0].read(path)
    if existing is None:
        existing = json.dumps({"site": site.name, "id": secrets.token_hex(8)}).encode()
        hosts[0].put(path, existing)
        outcome = changed(f"wrote the sentinel {path}")
    else:
        outcome = unchanged("all nodes see the same sentinel")
    for host in hosts[1:]:
        if host.read(path) != existing:
            raise NotTheSameNas(
                f"{path} written by {hosts[0].name} is not seen.",
                where=host.name,
                meaning="The two nodes have different file systems at the NAS path.",
                remedy="Compare `findmnt` of both nodes.",
            )
    return outcome
