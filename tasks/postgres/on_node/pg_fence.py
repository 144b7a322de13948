"""Runs on a former primary: stop the server by all means, and see to it that nothing starts it as a primary."""

import json
import signal
import socket
import subprocess
import sys
import time
from typing import Any, Dict, List, Optional

from tasks.on_node.authority import stopping
from tasks.on_node.pg_disk import (
    SHUT_DOWN,
    attempt,
    postmaster_in,
    seen,
    servers_in,
    set_standby_signal,
    set_start_conf,
    signal_all,
    unknown_servers,
    wait_gone,
)
from tasks.on_node.pg_run import mask

# A disk that hangs does not tell how the shutdown goes; then the processes do.
_CONTROL_S = 2.0


def fence(p: Dict[str, Any]) -> Dict[str, Any]:
    """Return how the server was stopped, its control file, and what still stands against calling it fenced.

    Nothing is written before the server was told to stop, and no write that fails keeps it from being stopped:
    with a full disk the first file failed, and the primary went on.
    """
    data = p["data"]
    against: List[str] = []
    was_running = bool(servers_in(data))
    postmaster = postmaster_in(data)
    if postmaster is not None:
        signal_all([postmaster], signal.SIGINT)
    # While the server shuts down: from here on neither systemd nor a reboot starts it.
    changed = attempt(against, "the unit cannot be masked", lambda: mask(p))
    # Not `manual`: pg_ctlcluster starts such a cluster for the user postgres, past systemd and the boot guard.
    changed = attempt(against, "start.conf cannot be written", lambda: disable(p)) or changed
    how = descend(p, postmaster) if was_running else "was down"
    signal_path = "standby.signal cannot be written"
    changed = attempt(against, signal_path, lambda: set_standby_signal(p)) or changed
    left = servers_in(data)
    if left:
        against.append("server processes are left: %s" % ", ".join(map(str, left)))
    elif unknown_servers(data):
        against.append(unknown_servers(data))
    elif listens(p):
        against.append("port %s of %s is still open" % (p["port"], p["address"]))
    facts = shown(p)
    clean = facts["cluster_state"] == SHUT_DOWN
    return dict(facts, how=how, clean=clean, against=against, changed=changed or was_running)


def disable(p: Dict[str, Any]) -> bool:
    """Keep the boot and pg_ctlcluster from starting it; tell if that is new."""
    return set_start_conf(p, "disabled")


def shown(p: Dict[str, Any]) -> Dict[str, Any]:
    """Summarise the control file; one that cannot be read in time tells nothing."""
    try:
        return seen(p, _CONTROL_S)
    except (OSError, ValueError, subprocess.SubprocessError):
        return {"cluster_state": "unreadable", "sysid": None, "checkpoint": None, "timeline": 0}


def descend(p: Dict[str, Any], postmaster: Optional[int]) -> str:
    """Wait for the fast stop, then stop without regard; return which it took."""
    data = p["data"]
    if postmaster is not None:
        deadline = time.monotonic() + p["graceful_s"]
        while time.monotonic() < deadline and servers_in(data):
            if shown(p)["cluster_state"] == SHUT_DOWN:
                # All is written; what is left only archives or sends the last of it.
                if wait_gone(data, p["archiver_grace_s"]):
                    return "fast"
                break
            time.sleep(0.05)
        if not servers_in(data):
            # A standby, which may be fenced too, ends with "shut down in recovery".
            return "fast" if shown(p)["cluster_state"].startswith(SHUT_DOWN) else "crashed while stopping"
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
