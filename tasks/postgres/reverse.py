"""Can the primary follow the standby, once the roles are exchanged? Tried before, from where it will be needed."""

from blocks import HarborSite
from tasks.hosts.connection import Host
from tasks.outcome import Outcome, unchanged
from tasks.postgres.layout import layout_of
from tasks.postgres.settings import conninfo


def try_reverse_path(site: HarborSite, host: Host, *, peer: str) -> Outcome:
    """Log in from a node to its peer for replication, with the very settings it would follow with.

    Raises:
        RemoteCommandFailed: it was not let in; psql's message says why.
    """
    target = f"{conninfo(site, host.name)} host={site.node(peer).address} port={layout_of(site).port}"
    argv = ["psql", "-XAtq", "-w", f"{target} dbname=postgres replication=true", "-c", "IDENTIFY_SYSTEM"]
    host.run(argv, user="postgres", timeout=10)
    return unchanged(f"{host.name} may replicate from {peer}")
