"""Harbor's `repositories/` tree: millions of tiny files, packed on the node into one object."""

import json
from dataclasses import dataclass

from tasks.backup.format.layout import LINKS
from tasks.backup.format.manifest import Artifact, Links
from tasks.backup.night.on_node import pack_links
from tasks.backup.night.stored import Destination, store_output
from tasks.backup.tools import NodeTools, pipeline
from tasks.hosts.connection import Host
from tasks.node_program import node_program

_PACK_LINKS = node_program(pack_links)

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
    program = ["python3", "-c", _PACK_LINKS, f"{registry}/{REGISTRY_ROOT}"]
    produced = store_output(host, pipeline(program, tools), to, LINKS, role="links", timeout=timeout)
    said = json.loads(produced.stderr.strip().splitlines()[-1])
    return SavedLinks(
        produced.artifact,
        Links(said["repositories"], said["files"]),
        tuple(said["damaged"]),
        said["damaged_count"],
    )
