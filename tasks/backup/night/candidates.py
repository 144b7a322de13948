"""What a backup must know of the database nodes before it chooses one."""

from dataclasses import dataclass

from blocks import HarborSite
from tasks.backup.server import query, server_of
from tasks.hosts.connection import Host
from tasks.postgres.layout import layout_of

_SQL = """
SELECT pg_is_in_recovery(),
  pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
                  '0/0')::bigint,
  EXISTS (SELECT 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'),
  (SELECT system_identifier FROM pg_control_system()),
  current_setting('server_version_num');
"""


@dataclass(frozen=True)
class Position:
    """Where a database node stands.

    Attributes:
        role: `primary` or `standby`.
        lsn: write position of a primary, replay position of a standby, in bytes.
        streaming: whether a standby receives from a primary right now.
        system_identifier: of its database.
        version_num: of its server: 150004 is 15.4.
    """

    role: str
    lsn: int
    streaming: bool
    system_identifier: str
    version_num: int


def replication_position(site: HarborSite, host: Host) -> Position:
    """Read a node's role and position.

    Raises:
        HarborHaError: the node or its PostgreSQL does not answer.
    """
    server = server_of(layout_of(site))
    standby, lsn, streaming, sysid, version = query(host, server, "postgres", _SQL, timeout=15)[0]
    role = "standby" if standby == "t" else "primary"
    return Position(role, int(lsn or 0), streaming == "t", sysid, int(version))
