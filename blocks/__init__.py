"""What an operator configures, as Prefect Blocks."""

from blocks.site import (
    BackupPolicy,
    DockerOptions,
    FailoverPolicy,
    HarborRelease,
    HarborSite,
    LoadBalancer,
    NasVolume,
    OssBucket,
    PostgresPair,
    RedisServer,
    Role,
    SshHost,
)

__all__ = [
    "BackupPolicy",
    "DockerOptions",
    "FailoverPolicy",
    "HarborRelease",
    "HarborSite",
    "LoadBalancer",
    "NasVolume",
    "OssBucket",
    "PostgresPair",
    "RedisServer",
    "Role",
    "SshHost",
]
