"""Runs on the primary: a fast shutdown for a switchover, seen through on the control file."""

import json
import os
import signal
import sys
import time
from typing import Any, Dict, List, Set

from tasks.on_node.authority import authorized
from tasks.on_node.pg_disk import (
    SHUT_DOWN,
    attempt,
    postmaster_of,
    seen,
    servers_in,
    set_standby_signal,
    set_start_conf,
    signal_all,
)


def stop(p: Dict[str, Any]) -> Dict[str, Any]:
    """Return what became of the server: `stopped`, `unheld`, `standby`, `crashed` or `late`, and its control file."""
    data, before = p["data"], seen(p)
    if not servers_in(data):
        if before["cluster_state"] != SHUT_DOWN:
            return dict(before, state="crashed")
        return held(p, dict(before, state="stopped", how="was down", changed=False))
    if os.path.exists(data + "/standby.signal"):
        return dict(before, state="standby")
    postmaster = postmaster_of(data)
    if postmaster is None:
        return dict(before, state="crashed")
    # Not `systemctl stop`: it starts a Perl program first, a third of a second. systemd sees the end itself.
    old = set(servers_in(data))
    os.kill(postmaster, signal.SIGINT)
    deadline = time.monotonic() + p["limit_s"]
    # The control file, not the process: the process waits for the archiver, which may hang on its storage.
    while seen(p)["cluster_state"] != SHUT_DOWN:
        if not servers_in(data) and seen(p)["cluster_state"] != SHUT_DOWN:
            return dict(seen(p), state="crashed")
        if time.monotonic() > deadline:
            return dict(seen(p), state="late")
        time.sleep(0.02)
    kept = held(p, {"state": "stopped"})
    how = "fast"
    # Not whatever runs there by now: this program outlives a killed flow, and the next one may have taken the
    # primary back.
    if not wait_ended(data, old, p["archiver_grace_s"]):
        signal_all(sorted(old & set(servers_in(data))), signal.SIGKILL)
        wait_ended(data, old, 5.0)
        how = "killed after its clean shutdown checkpoint, while archiving"
    return dict(seen(p), how=how, running=servers_in(data), **dict(kept, changed=True))


def wait_ended(data: str, old: Set[int], limit: float) -> bool:
    """Wait until none of these server processes is left."""
    deadline = time.monotonic() + limit
    while old & set(servers_in(data)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def held(p: Dict[str, Any], answer: Dict[str, Any]) -> Dict[str, Any]:
    """Hold a stopped server down and return the answer; `unheld` with the reasons when that cannot be written."""
    against: List[str] = []
    changed = attempt(against, "it cannot be kept from starting", lambda: hold(p))
    if against:
        return dict(answer, state="unheld", why="; ".join(against))
    return dict(answer, changed=changed)


def hold(p: Dict[str, Any]) -> bool:
    """From here on whatever starts this directory starts a standby, and the boot does not start it."""
    changed = set_standby_signal(p)
    return set_start_conf(p, "manual") or changed


if __name__ == "__main__":
    json.dump(authorized(json.load(sys.stdin), stop), sys.stdout)
