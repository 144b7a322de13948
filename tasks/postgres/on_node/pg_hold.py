"""Runs on a standby: is it still one, and will it stay one? Asked under the lock of whoever goes on with a killed run.

A server that was told to promote itself does so at any moment, also when the program that told it is gone, and SQL
does not show it. So the request is on disk before it is made, and stands until the server has been started anew.
"""

import json
import os
import sys
from typing import Any, Dict

from tasks.on_node.authority import Busy, boot_id, state_lock, state_of, uptime, why_replaced
from tasks.on_node.pg_disk import postmaster_of, remove_durably, text_of
from tasks.on_node.pg_run import Failed, psql, standby_timeline

_ROLE = "SELECT pg_is_in_recovery()"
_TIMELINE = "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int"


def hold(p: Dict[str, Any]) -> Dict[str, Any]:
    """Return `standby`, `pending`, `primary` or `down`, with the timeline where one is known.

    The lock is the caller's by now, so a program of the run before it is refused from here on.
    """
    postmaster = postmaster_of(p["data"])
    if postmaster is None:
        return {"state": "down", "timeline": None}
    try:
        if psql(p, _ROLE) != "t":
            return {"state": "primary", "timeline": int(psql(p, _TIMELINE))}
        timeline = standby_timeline(p)
    except Failed as error:
        return {"state": "down", "timeline": None, "why": str(error)}
    asked = os.path.exists(p["data"] + "/promote") or requested(p, postmaster)
    if not asked:
        # Void, and what is decided on this answer is that this node stays a standby: guard_promoted goes by the note.
        remove_durably(p["state_dir"] + "/promotion.json")
    return {"state": "pending" if asked else "standby", "timeline": timeline}


def requested(p: Dict[str, Any], postmaster: int) -> bool:
    """Tell whether this very server was told to promote itself; a start forgets it."""
    note = state_of(p, "promotion")
    if note is None or note.get("boot") != boot_id():
        return False
    return float(note["uptime"]) >= started(postmaster)


def started(pid: int) -> float:
    """Return when a process started, in seconds since the boot."""
    ticks = (text_of("/proc/%d/stat" % pid) or "").rpartition(")")[2].split()
    return float(ticks[19]) / os.sysconf("SC_CLK_TCK") if len(ticks) > 19 else uptime()


def held(p: Dict[str, Any]) -> Dict[str, Any]:
    """Look with all others kept out; whoever still acts here for the run before is waited for, or named."""
    try:
        with state_lock(p):
            why = why_replaced(p)
            return {"outdated": why} if why else hold(p)
    except (Busy, ValueError, OSError) as error:
        return {"outdated": "it cannot be asked: %s" % error}


if __name__ == "__main__":
    json.dump(held(json.load(sys.stdin)), sys.stdout)
