"""Proof of replication: a row written on the primary and read on the standby.

`state = streaming` proves nothing: a standby that took another history says so for ever. Nor does a position: a
former primary that diverged was already beyond the marker, on its own timeline, and passed for a standby that
had replayed it. The row itself can come from nowhere else.
"""

import time
import uuid

from blocks import HarborSite
from tasks.errors import HarborHaError, RemoteCommandFailed, RemoteTimeout
from tasks.hosts.connection import Host
from tasks.outcome import Outcome, unchanged
from tasks.postgres.on_node.pg_heartbeat import HEARTBEAT
from tasks.postgres.sql import execute

_COMMIT = HEARTBEAT + "SELECT pg_current_wal_lsn();"
# The row must not wait for the standby that it is to judge.
_WRITE = "SET synchronous_commit = local;\n" + _COMMIT

# One session that looks every 20 ms. The table itself may not have arrived yet.
_READ = """
SELECT set_config('harbor_ha.token', :'token', false), set_config('harbor_ha.limit_s', :'limit', false);
DO $$
DECLARE
  until timestamptz := clock_timestamp() + current_setting('harbor_ha.limit_s')::float8 * interval '1 second';
  found boolean := false;
BEGIN
  WHILE NOT found AND pg_is_in_recovery() AND clock_timestamp() < until LOOP
    BEGIN
      SELECT operation = current_setting('harbor_ha.token') INTO found FROM harbor_ha.heartbeat;
      found := coalesce(found, false);
    EXCEPTION WHEN undefined_table OR invalid_schema_name THEN found := false;
    END;
    IF NOT found THEN PERFORM pg_sleep(0.02); END IF;
  END LOOP;
  PERFORM set_config('harbor_ha.found', (found AND pg_is_in_recovery())::text, false);
END $$;
SELECT current_setting('harbor_ha.found'), coalesce(pg_last_wal_replay_lsn()::text, 'nothing');
"""


class WriteFailed(HarborHaError):
    """A primary answers, and a commit does not go through."""


class MarkerNotReplayed(HarborHaError):
    """The standby did not replay a record of the primary in time."""


def prove_write(site: HarborSite, primary: Host, *, name: str = "harbor-ha", timeout: float = 5.0) -> Outcome:
    """Commit a row, and wait for the standby as every commit of Harbor does.

    Args:
        timeout: seconds; the program is killed then, since statement_timeout does not end that wait.

    Raises:
        WriteFailed: refused (read-only, disk full) or not ended in time.
    """
    started = time.monotonic()
    try:
        position = execute(site, primary, _COMMIT, timeout=timeout, operation=name)[-1][0]
    except (RemoteCommandFailed, RemoteTimeout) as error:
        raise WriteFailed(
            f"A commit does not go through: {error.what}",
            where=primary.name,
            meaning="It runs as a primary, and Harbor cannot work with it.",
            remedy="Disk full, read-only, or waiting for a lost standby: read its PostgreSQL log.",
        ) from error
    return unchanged(f"wrote up to {position} in {time.monotonic() - started:.2f} s", lsn=position)


def replicate_marker(
    site: HarborSite, standby: Host, primary: Host, *, name: str = "harbor-ha", timeout: float = 30.0
) -> Outcome:
    """Write a row on the primary and wait until the standby shows it.

    Args:
        name: what the row is called, before a random part.
        timeout: seconds to wait for the replay.

    Returns:
        data: `marker`, the primary's position after the write.

    Raises:
        MarkerNotReplayed: the standby follows nothing, or another history.
    """
    started = time.monotonic()
    token = f"{name} {uuid.uuid4()}"
    marker = execute(site, primary, _WRITE, operation=token)[-1][0]
    answer = execute(site, standby, _READ, timeout=timeout + 10, token=token, limit=str(timeout))
    found, at = answer[-1]
    if found != "true":
        raise MarkerNotReplayed(
            f"The marker at {marker} of {primary.name} was not replayed in {timeout:.0f} s; it is at {at}.",
            where=standby.name,
            meaning="The standby is not a copy of the primary; a failover now would lose writes.",
            remedy="Read the standby's PostgreSQL log; `rejoin` rebuilds it.",
        )
    seconds = time.monotonic() - started
    return unchanged(f"marker {marker} replayed by {standby.name} after {seconds:.2f} s", marker=marker)
