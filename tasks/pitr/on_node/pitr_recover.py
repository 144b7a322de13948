"""Runs on a node: replay WAL out of the bucket up to the time that was asked for, and become a primary."""

import json
import re
import sys
import time
from typing import Any, Dict, Optional

from tasks.on_node.pg_disk import control, postmaster_of, servers_in, text_of, write_durably
from tasks.on_node.pg_log import log_since, log_size, log_text
from tasks.on_node.pg_run import Failed, psql, start, systemctl
from tasks.postgres.on_node.pg_follow import clean_auto_conf

_REACHED = """
SELECT coalesce(to_char(pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'), ''),
       ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int"""


def recover(p: Dict[str, Any]) -> Dict[str, Any]:
    """Return what was reached: `replayed` is when the last replayed transaction was committed."""
    known: Dict[str, Any] = json.loads(text_of(p["marker"]) or "{}")
    # Another cluster in its place was once reported as recovered, and was empty.
    if known.get("done") and control(p).get("Database system identifier") == known.get("sysid"):
        return {"changed": False, "replayed": known["replayed"], "timeline": known["timeline"]}
    before = log_size(p["log"])
    deadline = time.monotonic() + p["limit_s"]
    problem = None if servers_in(p["data"]) else start(p, p["limit_s"])
    while problem is None and time.monotonic() < deadline:
        if in_recovery(p) == "f":
            return promoted(p, known)
        if not servers_in(p["data"]):
            problem = log_since(p["log"], before)
        time.sleep(0.2)
    systemctl("stop", p["unit"])
    said = log_text(p["log"], before)
    if "recovery ended before configured recovery target was reached" in said:
        last = re.findall(r"last completed transaction was at log time (.+)", said)
        return {"ended": last[-1].strip() if last else ""}
    return {"problem": problem or "it did not end within %.0f s" % p["limit_s"]}


def in_recovery(p: Dict[str, Any]) -> Optional[str]:
    """Ask whether WAL is still replayed; None while the server does not answer."""
    try:
        return psql(p, "SELECT pg_is_in_recovery()", 5)
    except Failed:
        return None


def promoted(p: Dict[str, Any], known: Dict[str, Any]) -> Dict[str, Any]:
    """Keep what was reached: a restart of the server forgets it."""
    replayed, timeline = psql(p, _REACHED + ";", 30).split("|")
    # What was for this recovery only would come back with the next standby.signal.
    clean_auto_conf(p)
    postmaster = postmaster_of(p["data"])
    if postmaster is not None:
        psql(p, "SELECT pg_reload_conf()")
    reached = {"replayed": replayed, "timeline": int(timeline)}
    write_durably(p["marker"], json.dumps(dict(known, done=True, **reached)))
    return dict(reached, changed=True)


if __name__ == "__main__":
    json.dump(recover(json.load(sys.stdin)), sys.stdout)
