"""Runs on a standby: is it still one, and will it stay one? Asked under the lock of whoever goes on with a killed run.

A server that was told to promote itself does so at any moment, also when the program that told it is gone, and SQL
does not show it. So the request is on disk before it is made, and stands until the server has been started anew.
"""

import json
import os
import sys
from typing import Any, Dict

from tasks.on_node.authority import Busy, state_lock, why_replaced
from tasks.on_node.pg_disk import postmaster_of
from tasks.on_node.pg_run import Failed, psql, standby_timeline
from tasks.on_node.pg_told import forget_request, requested

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
        # What is decided on this answer is that this node stays a standby: no guard may go by the note any more.
        forget_request(p)
    return {"state": "pending" if asked else "standby", "timeline": timeline}


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
