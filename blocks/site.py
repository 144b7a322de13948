"""A Harbor site: what an operator configures, all of it together."""

from prefect.blocks.core import Block
from pydantic import Field

from blocks.aliyun import AliyunAccount
from blocks.docker import DockerOptions
from blocks.harbor import HarborRelease
from blocks.load_balancer import LoadBalancer
from blocks.nas import NasVolume
from blocks.oss import OssBucket
from blocks.policies import BackupPolicy, FailoverPolicy
from blocks.postgres import PostgresPair
from blocks.redis import RedisServer
from blocks.ssh_host import SshHost


class HarborSite(Block):
    """One Harbor installation: nodes, PostgreSQL, Harbor, Redis, NAS, load balancer, OSS, policies.

    Flows take the name of a saved site. Save one from a site file with `harbor-ha apply SITE.yml`.

    Example:
        ```python
        from blocks import load_site

        site = load_site("demo")
        ```
    """

    _block_type_name = "Harbor HA: Site"
    _block_type_slug = "harbor-ha-site"

    name: str = Field(title="Name", description="Name of the site: lower-case letters, digits and -")
    nodes: list[SshHost] = Field(
        title="Nodes",
        description="Two or more machines. The Block `<site>-<node>` of each, where there is one, counts",
    )
    postgres: PostgresPair = Field(title="PostgreSQL", description="Primary and standby")
    harbor: HarborRelease = Field(title="Harbor", description="The installation, the same on every node")
    redis: RedisServer = Field(title="Redis", description="Shared by all Harbor nodes")
    nas: NasVolume = Field(title="NAS", description="Shared file system with the image data")
    balancer: LoadBalancer = Field(
        title="Load balancer", description="TCP load balancer in front of the nodes"
    )
    oss: OssBucket | None = Field(
        default=None, title="OSS", description="Where the backups go; empty: no backups"
    )
    aliyun: AliyunAccount | None = Field(
        default=None,
        title="Alibaba Cloud",
        description="For the kinds aliyun-clb, aliyun-nlb and aliyun-ecs; empty: none of them is used",
    )
    docker: DockerOptions = Field(
        default_factory=DockerOptions, title="Docker", description="Merged into the nodes' daemon.json"
    )
    failover: FailoverPolicy = Field(
        default_factory=FailoverPolicy, title="Failover", description="What the automatic path may do"
    )
    backup: BackupPolicy = Field(
        default_factory=BackupPolicy, title="Backup", description="Schedules, encryption and retention"
    )

    def node(self, name: str) -> SshHost:
        """Find a node by name; KeyError when the site has none of it."""
        return {node.name: node for node in self.nodes}[name]
