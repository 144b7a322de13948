"""Start a server that died on a living machine: no failover, no new timeline, nothing lost."""

from blocks import HarborSite
from tasks.errors import HarborHaError
from tasks.hosts.connection import Host
from tasks.outcome import Outcome, changed
from tasks.postgres.cluster import start
from tasks.postgres.sql import value


def restart(site: HarborSite, host: Host, *, limit_s: float) -> Outcome:
    """Start the server and prove that it is a primary that writes.

    Args:
        limit_s: seconds for the start, crash recovery included.

    Raises:
        HarborHaError: it did not start, is a standby, or does not write.
    """
    start(site, host, limit_s=limit_s)
    if value(site, host, "SELECT pg_is_in_recovery()") != "f":
        raise HarborHaError("It started as a standby.", where=host.name, remedy="Run check.")
    at = value(site, host, "SELECT pg_create_restore_point('harbor-ha restart')", timeout=5.0)
    return changed(f"started, writes at {at}")
