"""Runs on a former primary: stop the server by all means, and see to it that nothing starts it as a primary."""

import json
import os
import signal
import socket
import sys
import time
from typing import Any, Dict, List

from tasks.on_node.authority import stopping
from tasks.on_node.pg_disk import (
    SHUT_DOWN,
    postmaster_of,
    seen,
    servers_in,
    set_standby_signal,
    set_start_conf,
    signal_all,
    unknown_servers,
    wait_gone,
)
from tasks.on_node.pg_run import mask


def fence(p: Dict[str, Any]) -> Dict[str, Any]:
    """Return how the server was stopped, its control file, and what still stands against calling it fenced."""
    data = p["data"]
    changed = set_start_conf(p, "manual")
    postmaster = postmaster_of(data)
    was_running = bool(servers_in(data))
    if postmaster is not None:
        os.kill(postmaster, signal.SIGINT)
    # While the server shuts down: from here on neither systemd nor a reboot starts it.
    changed = mask(p) or changed
    how = descend(p, postmaster) if was_running else "was down"
    changed = set_standby_signal(p) or changed
    against: List[str] = []
    left = servers_in(data)
    if left:
        against.append("server processes are left: %s" % ", ".join(map(str, left)))
    elif unknown_servers(data):
        against.append(unknown_servers(data))
    elif listens(p):
        against.append("port %s of %s is still open" % (p["port"], p["address"]))
    facts = seen(p)
    clean = facts["cluster_state"] == SHUT_DOWN
    return dict(facts, how=how, clean=clean, against=against, changed=changed or was_running)


def descend(p: Dict[str, Any], postmaster: Any) -> str:
    """Wait for the fast stop, then stop without regard; return which it took."""
    data = p["data"]
    if postmaster is not None:
        deadline = time.monotonic() + p["graceful_s"]
        while time.monotonic() < deadline and servers_in(data):
            if seen(p)["cluster_state"] == SHUT_DOWN:
                # All is written; what is left only archives or sends the last of it.
                if wait_gone(data, p["archiver_grace_s"]):
                    return "fast"
                break
            time.sleep(0.05)
        if not servers_in(data):
            # A standby, which may be fenced too, ends with "shut down in recovery".
            return "fast" if seen(p)["cluster_state"].startswith(SHUT_DOWN) else "crashed while stopping"
        signal_all([postmaster], signal.SIGQUIT)
        if wait_gone(data, p["immediate_s"]):
            return "immediate"
    # A stopped (SIGSTOP) or orphaned process hears nothing else.
    signal_all(servers_in(data), signal.SIGKILL)
    wait_gone(data, p["kill_s"])
    return "killed"


def listens(p: Dict[str, Any]) -> bool:
    """Tell whether anything still accepts connections on the server's port."""
    try:
        socket.create_connection((p["address"], int(p["port"])), timeout=1.0).close()
        return True
    except OSError:
        return False


if __name__ == "__main__":
    json.dump(stopping(json.load(sys.stdin), fence), sys.stdout)
