"""What a backup must know of the database nodes before it chooses one."""

from blocks import HarborSite
from tasks.backup.server import query, server_of
from tasks.hosts.connection import Host
from tasks.postgres.layout import layout_of

_SQL = """
SELECT pg_is_in_recovery(),
  pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
                  '0/0')::bigint,
  EXISTS (SELECT 1 FROM pg_stat_wal_receiver WHERE status = 'streaming');
"""


def replication_position(site: HarborSite, host: Host) -> tuple[str, int, bool]:
    """Read a node's role (`primary`, `standby`), its position in bytes, and whether it is streaming.

    Raises:
        HarborHaError: the node or its PostgreSQL does not answer.
    """
    server = server_of(layout_of(site))
    standby, lsn, streaming = query(host, server, "postgres", _SQL, timeout=15)[0]
    return ("standby" if standby == "t" else "primary", int(lsn or 0), streaming == "t")
