"""Runs on a primary that was stopped for a switchover, or has crashed or hangs: start it as the primary again."""

import json
import os
import signal
import sys
from typing import Any, Dict

from tasks.on_node.authority import authorized
from tasks.on_node.pg_disk import (
    SHUT_DOWN,
    postmaster_of,
    remove_durably,
    seen,
    servers_in,
    set_start_conf,
    signal_all,
    wait_gone,
)
from tasks.on_node.pg_run import Failed, psql, start, systemctl, unmask

_ROLE = """
SELECT CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE 'primary ' ||
  ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END
"""


def compensate(p: Dict[str, Any]) -> Dict[str, Any]:
    """Return `primary` with its timeline, or `problem`; never removes the signal of a true standby."""
    wanted = "primary %d" % p["timeline"]
    signal_is_there = os.path.exists(p["data"] + "/standby.signal")
    if role(p) == wanted and not signal_is_there:
        return {"state": "primary", "changed": let_start_again(p)}
    if signal_is_there and not p["take_back"]:
        return {"problem": "it is kept as a standby (standby.signal)"}
    postmaster = postmaster_of(p["data"])
    if postmaster is not None:
        # It was told to stop and cannot be told otherwise; crash recovery of a primary loses nothing.
        os.kill(postmaster, signal.SIGQUIT)
        if not wait_gone(p["data"], 5.0):
            signal_all(servers_in(p["data"]), signal.SIGKILL)
            wait_gone(p["data"], 5.0)
    facts = seen(p)
    if facts["timeline"] != p["timeline"]:
        return {"problem": "its data is on timeline %s, not %s" % (facts["timeline"], p["timeline"])}
    if facts["cluster_state"] not in (SHUT_DOWN, "in production", "shutting down", "in crash recovery"):
        return {"problem": "its data is that of a standby (%s)" % facts["cluster_state"]}
    remove_durably(p["data"] + "/standby.signal")
    let_start_again(p)
    problem = start(p, p["limit_s"])
    if problem is None and role(p) != wanted:
        problem = "it came back as %s" % role(p)
    return {"problem": problem} if problem else {"state": "primary", "changed": True}


def let_start_again(p: Dict[str, Any]) -> bool:
    """Let the boot start it again."""
    changed = set_start_conf(p, "auto")
    changed = unmask(p) or changed
    if changed:
        systemctl("daemon-reload")
    return changed


def role(p: Dict[str, Any]) -> str:
    """Return `primary N`, `standby`, or empty when no SQL is answered."""
    try:
        return psql(p, _ROLE, 3)
    except Failed:
        return ""


if __name__ == "__main__":
    json.dump(authorized(json.load(sys.stdin), compensate), sys.stdout)
