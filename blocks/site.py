"""A Harbor site: what an operator configures, as Prefect Blocks."""

from typing import Literal

from prefect.blocks.core import Block
from pydantic import BaseModel, Field, SecretStr


class Role(BaseModel):
    """A PostgreSQL login role."""

    user: str
    password: SecretStr


class SshHost(Block):
    """A machine of the site, as it is reached over SSH."""

    name: str
    address: str
    port: int = 22
    user: str = "root"
    private_key: SecretStr
    host_key: str = Field(description="`ssh-ed25519 AAAA…`, pinned")
    runs_harbor: bool = True
    runs_postgres: bool = True


class PostgresPair(Block):
    """PostgreSQL primary and standby."""

    major: int = 15
    cluster: str = "main"
    port: int = 5432
    data_dir: str = "/data/pgsql/data"
    archive_dir: str = "/data/pgsql/archive"
    durability: Literal["async", "preferred", "required"] = "async"
    database: str = "registry"
    application: Role
    replication: Role
    rewind: Role


class HarborRelease(Block):
    """The Harbor installation, the same on every node."""

    installer: str = Field(description="Path of a file on the orchestrator, or an https:// address")
    sha256: str
    version: str
    hostname: str
    certificate: str = Field(description="PEM chain")
    certificate_key: SecretStr
    admin_password: SecretStr
    components: list[str] = []
    install_dir: str = "/opt/harbor"
    data_volume: str = "/data/harbor"
    http_port: int = 80
    https_port: int = 443
    network: str = Field(default="10.213.48.0/24", description="Subnet of Harbor's containers, equal on all nodes")
    migrate_from_bundled: bool = False


class RedisServer(Block):
    """The Redis that all Harbor nodes share."""

    host: str
    port: int = 6379
    password: SecretStr
    registry_db: int = 1
    jobservice_db: int = 2
    chartmuseum_db: int = 3
    trivy_db: int = 5


class NasVolume(Block):
    """The shared file system that holds the image data."""

    path: str = Field(description="Mount point, the same on every node")
    source: str | None = Field(default=None, description="What to mount; empty when it is mounted already")
    fs_type: str = "nfs"
    options: str = "vers=3,nolock,noresvport,hard,timeo=600,lookupcache=positive"


class LoadBalancer(Block):
    """The TCP load balancer in front of the nodes."""

    kind: Literal["haproxy", "command", "none"] = "none"
    address: str
    port: int = 443
    admin_host: str | None = None
    admin_port: int | None = None
    backend: str = "harbor"
    drain_command: list[str] | None = None
    undrain_command: list[str] | None = None
    status_command: list[str] | None = None


class OssBucket(Block):
    """A bucket of Alibaba Cloud OSS and the right to use it."""

    endpoint: str
    region: str
    bucket: str
    prefix: str = "harbor"
    access_key_id: str
    access_key_secret: SecretStr
    is_cname: bool = False


class DockerOptions(Block):
    """What is merged into the nodes' daemon.json."""

    registry_mirrors: list[str] = []
    insecure_registries: list[str] = []


class FailoverPolicy(Block):
    """What the automatic path may do."""

    fencing: Literal["confirmed", "witnesses"] = "confirmed"
    fence_command: list[str] | None = Field(default=None, description="Runs on the orchestrator; `{node}` is replaced")
    restart_first: bool = True
    restart_budget_s: int = 30
    max_lag_bytes: int = 1 << 20
    cooldown_s: int = 600
    self_fence_s: int | None = None
    repoint: Literal["edit", "prepare"] = "edit"


class BackupPolicy(Block):
    """When backups are made, for whom they are encrypted and how long they are kept."""

    cron: str = "0 2 * * *"
    timezone: str = "Asia/Shanghai"
    age_recipients: list[str] = []
    keep_daily: int = 7
    keep_weekly: int = 4
    keep_monthly: int = 12
    keep_yearly: int = 2
    keep_at_least: int = 3
    traffic_limit_bytes_s: int | None = None
    time_budget_s: int | None = None


class HarborSite(Block):
    """One Harbor installation: all of it together."""

    name: str
    nodes: list[SshHost]
    postgres: PostgresPair
    harbor: HarborRelease
    redis: RedisServer
    nas: NasVolume
    balancer: LoadBalancer
    oss: OssBucket | None = None
    docker: DockerOptions
    failover: FailoverPolicy
    backup: BackupPolicy

    def node(self, name: str) -> SshHost:
        """Find a node by name; KeyError when the site has none of it."""
        return {node.name: node for node in self.nodes}[name]
