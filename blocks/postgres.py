"""PostgreSQL: primary and standby."""

from typing import Literal

from prefect.blocks.core import Block
from pydantic import BaseModel, Field, SecretStr


class Role(BaseModel):
    """A PostgreSQL login role."""

    user: str = Field(title="Role", description="Name of the role: lower-case letters, digits, _")
    password: SecretStr = Field(
        title="Password", description="Letters, digits and _ . ~ - only; starts with a letter or digit"
    )


class PostgresPair(Block):
    """The PostgreSQL primary and its standby: version, directories, roles, durability."""

    _block_type_name = "Harbor HA: PostgreSQL Pair"
    _block_type_slug = "harbor-ha-postgres"

    major: int = Field(
        default=15, ge=13, le=18, title="Major version", description="13 to 18, the same on all nodes"
    )
    cluster: str = Field(
        default="main", title="Cluster", description="Cluster name in Debian's sense, as in `15/main`"
    )
    port: int = Field(default=5432, ge=1024, le=65535, title="Port", description="Port on every node")
    data_dir: str = Field(
        default="/data/pgsql/data", title="Data directory", description="Absolute path, on a disk of the node"
    )
    archive_dir: str = Field(
        default="/data/pgsql/archive",
        title="WAL archive directory",
        description="Absolute path outside of the data directory; a week of WAL is kept there",
    )
    durability: Literal["async", "preferred", "required"] = Field(
        default="async",
        title="Durability",
        description="async: a failover may lose the last commits. preferred: commits wait for the standby "
        "while it is there. required: commits wait for the standby, and stop without it",
    )
    database: str = Field(default="registry", title="Database", description="Harbor's database")
    application: Role = Field(
        title="Application role", description="The role that Harbor logs in with; owns the database"
    )
    replication: Role = Field(title="Replication role", description="The role that the standby streams with")
    rewind: Role = Field(title="Rewind role", description="The role that pg_rewind reads the primary with")
