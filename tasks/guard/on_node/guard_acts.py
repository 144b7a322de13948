"""Part of the guard: what it does to a server that must not run. Stop first, note afterwards."""

import signal
import subprocess
import threading
import time
from typing import Any, Dict, List

from tasks.guard.on_node.guard_note import note_fence, note_held_start
from tasks.guard.on_node.guard_question import beside
from tasks.on_node.pg_disk import (
    attempt,
    postmaster_in,
    servers_in,
    set_standby_signal,
    set_start_conf,
    signal_all,
    wait_gone,
)

# See the times of a pass in guard_watch.
FAST_S = 3.0
IMMEDIATE_S = 2.0
# They write to the shared storage without asking PostgreSQL for each byte.
CONTAINERS = ["harbor-jobservice", "harbor-core", "registryctl"]
# The core for another database that waits beside it; who switches to it starts it.
NEXT_CORE = "harbor-core.next"


def stop_server(p: Dict[str, Any]) -> None:
    """Stop the server within five seconds; looks at processes only, no disk can keep it from that."""
    postmaster = postmaster_in(p["data"])
    if postmaster is not None:
        signal_all([postmaster], signal.SIGINT)
        if wait_gone(p["data"], FAST_S):
            return
        signal_all([postmaster], signal.SIGQUIT)
        if wait_gone(p["data"], IMMEDIATE_S):
            return
    signal_all(servers_in(p["data"]), signal.SIGKILL)


def stop_containers() -> None:
    """Stop what writes without PostgreSQL."""
    script = 'timeout 10 docker stop -t 1 "$@" >/dev/null 2>&1'
    subprocess.call(["sh", "-c", script, "sh"] + CONTAINERS + [NEXT_CORE], cwd="/")


def start_containers() -> None:
    """Start it again; core has another address now, and nginx resolves the name once: it answered 502."""
    script = '{ docker start "$@"; docker exec nginx nginx -s reload || docker restart -t 1 nginx; } >/dev/null 2>&1'
    subprocess.call(["timeout", "60", "sh", "-c", script, "sh"] + CONTAINERS, cwd="/")


def fence(p: Dict[str, Any], why: str) -> List[str]:
    """Stop the server, and the containers at the same time; then note what for. Returns what could not be done."""
    problems: List[str] = []
    stopping: List[threading.Thread] = []
    attempt(problems, "containers", lambda: stopping.append(beside(stop_containers)))
    stop_server(p)
    note = {"at": time.time(), "why": why}
    attempt(problems, "note", lambda: note_fence(p, note))
    for thread in stopping:
        thread.join(10)
    return problems


def yield_to_peer(p: Dict[str, Any], why: str) -> List[str]:
    """Stop, and become a standby to be: another one is the primary. Returns what could not be done."""
    problems: List[str] = []
    stop_server(p)
    attempt(problems, "standby.signal", lambda: set_standby_signal(p))
    # Not `manual`: pg_ctlcluster starts such a cluster for the user postgres, past systemd and the boot guard.
    attempt(problems, "start.conf", lambda: set_start_conf(p, "disabled"))
    return problems


def hold_back(p: Dict[str, Any], why: str) -> List[str]:
    """Stop, and start again when nothing speaks against it any more. Returns what could not be done."""
    problems: List[str] = []
    stop_server(p)
    attempt(problems, "the note for its start", lambda: note_held_start(p, why, told=True))
    return problems
