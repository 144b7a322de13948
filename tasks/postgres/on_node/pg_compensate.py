"""Runs on a primary that was stopped for a switchover, or has crashed or hangs: start it as the primary again."""

import json
import os
import signal
import sys
import time
from typing import Any, Dict, List

from tasks.on_node.authority import authorized
from tasks.on_node.pg_disk import (
    SHUT_DOWN,
    attempt,
    postmaster_of,
    remove_durably,
    seen,
    servers_in,
    set_start_conf,
    signal_all,
    text_of,
    wait_gone,
)
from tasks.on_node.pg_run import Failed, psql, start, systemctl, unmask

# A start of a sound database takes a second; what waiting has used up does not take that too.
_LEAST_START_S = 10.0
_ROLE = """
SELECT CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE 'primary ' ||
  ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END
"""


def compensate(p: Dict[str, Any]) -> Dict[str, Any]:
    """Return `primary` with its timeline, or `problem`; never removes the signal of a true standby."""
    wanted = "primary %d" % p["timeline"]
    signal_is_there = os.path.exists(p["data"] + "/standby.signal")
    unwritten: List[str] = []
    if role(p) == wanted and not signal_is_there:
        # That the boot would not start it is no reason to call a primary that runs none.
        changed = attempt(unwritten, "autostart", lambda: let_start_again(p))
        return {"state": "primary", "changed": changed, "unwritten": unwritten}
    if signal_is_there and not p["take_back"]:
        return {"problem": "it is kept as a standby (standby.signal)"}
    begun = time.monotonic()
    if not signal_is_there and answers_yet(p, wanted):
        changed = attempt(unwritten, "autostart", lambda: let_start_again(p))
        return {"state": "primary", "changed": changed, "unwritten": unwritten}
    if recovering(p):
        return {"problem": "it is still in crash recovery after %.0f s and was left to it" % p["limit_s"]}
    waited = time.monotonic() - begun
    stop_by_all_means(p)
    facts = seen(p)
    if facts["timeline"] != p["timeline"]:
        return {"problem": "its data is on timeline %s, not %s" % (facts["timeline"], p["timeline"])}
    if facts["cluster_state"] not in (SHUT_DOWN, "in production", "shutting down", "in crash recovery"):
        return {"problem": "its data is that of a standby (%s)" % facts["cluster_state"]}
    remove_durably(p["data"] + "/standby.signal")
    attempt(unwritten, "autostart", lambda: let_start_again(p))
    problem = start(p, max(_LEAST_START_S, p["limit_s"] - waited))
    if problem is None and role(p) != wanted:
        problem = "it came back as %s" % role(p)
    if problem is not None:
        return {"problem": "; ".join([problem] + unwritten)}
    return {"state": "primary", "changed": True, "unwritten": unwritten}


def answers_yet(p: Dict[str, Any], wanted: str) -> bool:
    """Wait for a server that runs and does not answer: in crash recovery for all of the time, else with patience.

    Killing a recovery only begins it anew, and one that commits slowly is no dead one.
    """
    begun, limit = time.monotonic(), p["patience_s"]
    while servers_in(p["data"]):
        if recovering(p):
            # Also when it has just ended: it answers in a moment.
            limit = p["limit_s"]
        if time.monotonic() - begun >= limit:
            return False
        if role(p) == wanted:
            return True
        time.sleep(0.1)
    return False


def recovering(p: Dict[str, Any]) -> bool:
    """Tell whether a server runs and is in crash recovery, or on its way there."""
    status = postmaster_status(p)
    if not servers_in(p["data"]) or status == "stopping":
        return False
    return status == "starting" or seen(p)["cluster_state"] in ("starting up", "in crash recovery")


def postmaster_status(p: Dict[str, Any]) -> str:
    """Return what the postmaster last wrote of itself: `starting`, `ready`, `standby`, `stopping`; or nothing."""
    lines = (text_of(p["data"] + "/postmaster.pid") or "").split("\n")
    return lines[7].strip() if len(lines) > 7 else ""


def stop_by_all_means(p: Dict[str, Any]) -> None:
    """Stop it fast, then immediately, then by SIGKILL; crash recovery of a primary loses nothing."""
    postmaster = postmaster_of(p["data"])
    # One that was told to stop and is to be taken back cannot be told otherwise: the fast stop is under way.
    stopping = postmaster_status(p) == "stopping" and p["take_back"]
    for number, limit in ((signal.SIGINT, p["fast_s"]), (signal.SIGQUIT, p["immediate_s"])):
        if postmaster is not None and not (stopping and number == signal.SIGINT):
            signal_all([postmaster], number)
            if wait_gone(p["data"], limit):
                return
    signal_all(servers_in(p["data"]), signal.SIGKILL)
    wait_gone(p["data"], p["kill_s"])


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
