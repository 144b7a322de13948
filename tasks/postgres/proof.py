"""Proof of replication: a marker written on the primary and replayed on the standby.

`state = streaming` proves nothing: a standby that took another history says so for ever.
"""

import time

from blocks import HarborSite
from tasks.errors import HarborHaError
from tasks.hosts.connection import Host
from tasks.outcome import Outcome, unchanged
from tasks.postgres.sql import value

_REPLAYED = """
SELECT pg_is_in_recovery() AND pg_last_wal_replay_lsn() >= :'marker'::pg_lsn
"""


class MarkerNotReplayed(HarborHaError):
    """The standby did not replay a record of the primary in time."""


def replicate_marker(
    site: HarborSite, standby: Host, primary: Host, *, name: str = "harbor-ha", timeout: float = 30.0
) -> Outcome:
    """Write a restore point on the primary and wait until the standby has replayed it.

    Args:
        timeout: seconds to wait for the replay.

    Raises:
        MarkerNotReplayed: the standby follows nothing, or another history.
    """
    started = time.monotonic()
    marker = value(site, primary, "SELECT pg_create_restore_point(:'name')", name=name)
    while True:
        if value(site, standby, _REPLAYED, marker=marker) == "t":
            seconds = time.monotonic() - started
            return unchanged(
                f"marker {marker} replayed by {standby.name} after {seconds:.2f} s", marker=marker
            )
        if time.monotonic() - started > timeout:
            at = value(site, standby, "SELECT coalesce(pg_last_wal_replay_lsn()::text, 'nothing')")
            raise MarkerNotReplayed(
                f"The marker {marker} of {primary.name} was not replayed in {timeout:.0f} s; it is at {at}.",
                where=standby.name,
                meaning="The standby is not a copy of the primary; a failover now would lose writes.",
                remedy="Read the standby's PostgreSQL log; `rejoin` rebuilds it.",
            )
        time.sleep(0.1)
