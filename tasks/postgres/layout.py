"""Where PostgreSQL keeps its things on Debian and Ubuntu (postgresql-common)."""

import re
from dataclasses import dataclass

from blocks import HarborSite, SshHost

STATE_DIR = "/var/lib/harbor-ha"
PROGRAM_DIR = "/usr/local/lib/harbor-ha"
# What a restore loads into, before it gets its name: Harbor's role logs in to it through the socket.
RESTORING = "harbor_ha_restoring"
PASSFILE = "/var/lib/postgresql/.harbor-ha.pgpass"


@dataclass(frozen=True)
class Layout:
    """Paths and names of the site's cluster, the same on every node."""

    major: int
    cluster: str
    data: str
    archive: str
    port: int

    @property
    def bin(self) -> str:
        """The directory of the server's programs."""
        return f"/usr/lib/postgresql/{self.major}/bin"

    @property
    def conf(self) -> str:
        """The configuration directory, which is outside the data directory on Debian."""
        return f"/etc/postgresql/{self.major}/{self.cluster}"

    @property
    def unit(self) -> str:
        """The systemd unit of this cluster; `postgresql` alone means all clusters of the machine."""
        return f"postgresql@{self.major}-{self.cluster}.service"

    @property
    def log(self) -> str:
        """The server's log; pg_ctlcluster names it."""
        return f"/var/log/postgresql/postgresql-{self.major}-{self.cluster}.log"

    @property
    def record(self) -> str:
        """The file that says which database this site created here."""
        return f"{STATE_DIR}/cluster.json"


def layout_of(site: HarborSite) -> Layout:
    """Take the layout out of the site's settings."""
    postgres = site.postgres
    return Layout(
        postgres.major,
        postgres.cluster,
        postgres.data_dir.rstrip("/"),
        postgres.archive_dir.rstrip("/"),
        postgres.port,
    )


def slot_of(node_name: str) -> str:
    """Name the replication slot, and the application name, of a node; letters, digits and `_` only."""
    return "ha_" + re.sub(r"[^a-z0-9]", "_", node_name.lower())


def database_nodes(site: HarborSite) -> list[SshHost]:
    """List the nodes that run PostgreSQL, in the order of the site file."""
    return [node for node in site.nodes if node.runs_postgres]


def peers_of(site: HarborSite, node_name: str) -> list[SshHost]:
    """List the other nodes that run PostgreSQL."""
    return [node for node in database_nodes(site) if node.name != node_name]
