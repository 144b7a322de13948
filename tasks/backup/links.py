"""Harbor's `repositories/` tree: millions of tiny files, packed on the node into one object."""

import json
from dataclasses import dataclass

from tasks.backup.layout import LINKS
from tasks.backup.manifest import Artifact, Links
from tasks.backup.on_node import pack_links
from tasks.backup.stored import Destination, store_output
from tasks.backup.tools import NodeTools, pipeline
from tasks.hosts.connection import Host
from tasks.node_source import source_of

REGISTRY_ROOT = "docker/registry/v2"


@dataclass(frozen=True)
class SavedLinks:
    """The packed tree.

    Attributes:
        damaged: link files that are empty or no links, at most 100; they were left out.
        damaged_count: how many there are.
    """

    artifact: Artifact
    links: Links
    damaged: tuple[str, ...]
    damaged_count: int


def save_links(
    host: Host, registry: str, to: Destination, tools: NodeTools, *, timeout: float = 6 * 3600.0
) -> SavedLinks:
    """Pack and store all links of a registry, uploads in flight left out.

    Args:
        host: a node with the storage mounted.
        registry: the storage's directory, for example `/data/harbor/registry`.
        to: the backup.
        tools: of that node.
        timeout: seconds; NFS decides.
    """
    program = ["python3", "-c", source_of(pack_links), f"{registry}/{REGISTRY_ROOT}"]
    produced = store_output(host, pipeline(program, tools), to, LINKS, role="links", timeout=timeout)
    said = json.loads(produced.stderr.strip().splitlines()[-1])
    return SavedLinks(
        produced.artifact,
        Links(said["repositories"], said["files"]),
        tuple(said["damaged"]),
        said["damaged_count"],
    )
