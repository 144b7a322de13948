"""The shared file system."""

from prefect.blocks.core import Block
from pydantic import Field


class NasVolume(Block):
    """The shared file system that holds the image data."""

    _block_type_name = "Harbor HA: NAS Volume"
    _block_type_slug = "harbor-ha-nas"

    path: str = Field(title="Mount point", description="Absolute path, the same on every node")
    source: str | None = Field(
        default=None,
        title="Source",
        description="What to mount, such as `nas.example.com:/share`; empty when it is mounted already",
    )
    fs_type: str = Field(
        default="nfs", title="File system", description="Type for mount and fstab: nfs, nfs4, …"
    )
    options: str = Field(
        default="vers=3,nolock,noresvport,hard,timeo=600,lookupcache=positive",
        title="Mount options",
        description="Options for mount and fstab, separated by commas",
    )

    @property
    def registry(self) -> str:
        """The directory on it that is /storage in Harbor's registry."""
        return f"{self.path.rstrip('/')}/registry"
