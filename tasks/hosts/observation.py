"""The whole site looked at before bootstrap: all nodes at once, the bucket, the installer."""

import hashlib
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from blocks import HarborSite, SshHost
from tasks.errors import HarborHaError, Refused
from tasks.hosts.connection import connect
from tasks.hosts.preflight import NodeSeen, observe

logger = logging.getLogger(__name__)

# The longest command without a progress of its own; a clone of a large database is waited for in further runs.
_LEFT_RUNNING_S = 1800.0


@dataclass(frozen=True)
class SiteSeen:
    """A site before bootstrap.

    Attributes:
        nodes: those that can be reached.
        unreachable: why the others cannot.
        bucket: what is wrong with the bucket; empty when it takes and gives.
        installer: checksum of the installer's file on the orchestrator; None when it was not needed, or lies at
            an address; empty when there is no such file.
    """

    nodes: tuple[NodeSeen, ...]
    unreachable: tuple[str, ...] = ()
    bucket: tuple[str, ...] = ()
    installer: str | None = None


def observe_site(site: HarborSite, *, wait: bool = True) -> SiteSeen:
    """Look at everything, in parallel. On the nodes nothing is changed; the bucket gets a small object for a moment.

    Args:
        site: the site.
        wait: wait for commands that an earlier run, killed since, left running on the nodes; without it,
            the bucket is only read.

    Raises:
        Refused: such a command does not come to its end.
    """
    with ThreadPoolExecutor(len(site.nodes) + 1) as pool:
        bucket = pool.submit(bucket_problems, site, write=wait)
        found = list(pool.map(lambda node: _seen(site, node), site.nodes))
        if wait:
            found = list(pool.map(lambda seen: _settled(site, seen), found))
        nodes = tuple(seen for seen in found if isinstance(seen, NodeSeen))
        errors = tuple(str(error) for error in found if isinstance(error, HarborHaError))
        return SiteSeen(nodes, errors, tuple(bucket.result()), installer_checksum(site, nodes))


def bucket_problems(site: HarborSite, *, write: bool) -> list[str]:
    """Return every problem of the bucket as a sentence; empty when it can be used, or the site has none."""
    if site.oss is None:
        return []
    # Imported late: oss2 takes a second, which is spent while the nodes are looked at.
    from tasks.storage.errors import StorageError
    from tasks.storage.facts import bucket_facts, preflight
    from tasks.storage.retry import Patience
    from tasks.storage.store import open_store

    try:
        store = open_store(site.oss, site.name, threads=2, patience=Patience(attempts=3, total_s=10.0))
        if write:
            return preflight(store)
        bucket_facts(store)
        next(iter(store.list("meta/")), None)
    except StorageError as error:
        return [str(error)]
    return []


def installer_checksum(site: HarborSite, nodes: Sequence[NodeSeen]) -> str | None:
    """Hash the installer's file, if any node still needs it; see SiteSeen.installer."""
    harbor = site.harbor
    needed = [
        node for node in nodes if node.docker is not None and node.harbor_sha256 != harbor.sha256.lower()
    ]
    if not needed or harbor.installer.startswith(("https://", "http://")):
        return None
    try:
        with Path(harbor.installer).expanduser().open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _seen(site: HarborSite, node: SshHost) -> NodeSeen | HarborHaError:
    try:
        return observe(site, connect(node))
    except HarborHaError as error:
        return error


def _settled(site: HarborSite, seen: NodeSeen | HarborHaError) -> NodeSeen | HarborHaError:
    """Look again until nothing of an earlier run is left running on the node."""
    deadline = time.monotonic() + _LEFT_RUNNING_S
    while isinstance(seen, NodeSeen) and seen.unfinished:
        if time.monotonic() > deadline:
            commands = [f"{seen.name}: {command}" for command in seen.unfinished]
            raise Refused(
                f"Commands of another run, or of one that was killed, do not end on {seen.name}.",
                [f"{command} -> wait for it, or end it" for command in commands],
            )
        logger.info("%s: waiting for what another run began: %s", seen.name, seen.unfinished[0])
        time.sleep(1.0)
        seen = _seen(site, site.node(seen.name))
    return seen
