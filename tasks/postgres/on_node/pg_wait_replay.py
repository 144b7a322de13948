"""Runs on a standby: wait until it has replayed beyond a position, strictly."""

import json
import sys
from typing import Any, Dict

from tasks.on_node.pg_run import Failed, psql, standby_timeline

# One session that looks every 10 ms: a psql for each look would cost more than the wait.
_WAIT = """
DO $$
DECLARE until timestamptz := clock_timestamp() + interval '%(limit_s)d seconds';
BEGIN
  WHILE pg_is_in_recovery() AND NOT coalesce(pg_last_wal_replay_lsn() > '%(checkpoint)s'::pg_lsn, false)
    AND clock_timestamp() < until
  LOOP PERFORM pg_sleep(0.01); END LOOP;
END $$;
SELECT pg_is_in_recovery(), coalesce(pg_last_wal_replay_lsn()::text, 'nothing'),
  coalesce(pg_last_wal_replay_lsn() > '%(checkpoint)s'::pg_lsn, false),
  (SELECT system_identifier FROM pg_control_system());
"""


def wait(p: Dict[str, Any]) -> Dict[str, Any]:
    """Return the replayed position, and what stands against the proof."""
    try:
        recovering, replayed, beyond, sysid = psql(p, _WAIT % p, p["limit_s"] + 2).split("|")
        timeline = standby_timeline(p)
    except Failed as error:
        return {"problem": "It does not answer: %s" % error, "replayed": None}
    problem = None
    if recovering != "t":
        problem = "It is not in recovery"
    elif sysid != p["sysid"]:
        problem = "It holds another database (%s)" % sysid
    elif timeline != p["timeline"]:
        problem = "It is on timeline %d" % timeline
    elif beyond != "t":
        problem = "It has replayed %s only" % replayed
    return {"problem": problem, "replayed": replayed}


if __name__ == "__main__":
    json.dump(wait(json.load(sys.stdin)), sys.stdout)
