"""The Docker engine of the nodes."""

from prefect.blocks.core import Block
from pydantic import Field


class DockerOptions(Block):
    """What is merged into the nodes' daemon.json; nothing that is there already is overwritten."""

    _block_type_name = "Harbor HA: Docker Options"
    _block_type_slug = "harbor-ha-docker"

    registry_mirrors: list[str] = Field(
        default_factory=list, title="Registry mirrors", description="Addresses with scheme, https://…"
    )
    insecure_registries: list[str] = Field(
        default_factory=list,
        title="Insecure registries",
        description="`host:port` without scheme, or a subnet",
    )
